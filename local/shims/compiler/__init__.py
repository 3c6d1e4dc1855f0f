"""`neuronx-cc`, and what surrounds it: graphs, the persistent compile cache, sharded checkpoints."""
