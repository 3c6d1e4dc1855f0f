"""What Neuron hardware, engines and models can do together. Pure: no I/O."""
