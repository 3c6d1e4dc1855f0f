"""Text Generation Inference for Neuron: inf2 and trn1 only, in maintenance mode.

Sources: huggingface/text-generation-inference v3.3.6: launcher/, router/, backends/v2/, backends/neuron/ and
Dockerfile.neuron.
"""
