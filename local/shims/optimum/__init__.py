"""`optimum-cli` of optimum-neuron: export, serve, cache. Flags and wordings are those of 0.4.5."""
