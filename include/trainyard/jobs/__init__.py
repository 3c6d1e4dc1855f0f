"""What runs inside pods: `python -m trainyard.jobs NAME`, or `python trainyard.pyz NAME` in images that are
not ours.

Input is a JSON object in TRAINYARD_JOB; each job is a module with `run(job) -> result`. Nothing heavy is
imported here: the probe has to start fast.
"""
