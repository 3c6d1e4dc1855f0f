"""Performance, always side by side with a named peer: `python -m benchmarks --list`."""
