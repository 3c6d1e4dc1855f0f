"""NxD Inference: `inference_demo`, which compiles, and what `vllm serve` of its plugin does with the result.

Sources: neuronx_distributed_inference/{inference_demo.py,models/application_base.py,models/config.py} and
vllm_neuron/worker/neuronx_distributed_model_loader.py (release 0.2).
"""
