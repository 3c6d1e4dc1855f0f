"""Stand-ins for the Neuron toolchain: the commands in `bin/`, for one machine without silicon.

They take the real flags, refuse what the real tools refuse, write the real file layouts and speak the real
protocols; time is a model, and faults come by knob. `docs/shims.md` says what is modelled and what is not.

    LOCAL_SILICON  {"instance_type": "trn2.48xlarge", "devices": [0, 1], "node": "…"}; unset: no Neuron device
    LOCAL_FAULTS   the knobs of `faults.py`
    LOCAL_POD_IP   the loopback address that "0.0.0.0" means
    LOCAL_IMAGE    the image that the command stands for; decides the versions that are "installed"
"""
