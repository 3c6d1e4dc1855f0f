"""Tiny but real Llama checkpoints, made on the spot from a seed.

What comes out is what a Hub repository of a Llama holds: `config.json`, a byte-level tokenizer, BF16
safetensors shards with their index. Any loader of such checkpoints may read it; only its size is small.

    from local.checkpoints.checkpoint import write_checkpoint
"""
