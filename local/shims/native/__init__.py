"""The native vLLM plugin (beta): one NEFF a bucket in a cache of its own, weights as they are.

Sources: the plugin's design documents on the compilation cache, CPU compilation and metrics (SDK 2.32), and
the sources of release 0.21 (compile/{backend,cache}.py, vllm/worker/neuron_worker.py, envs.py).
"""
