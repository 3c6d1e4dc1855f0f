"""NxD Inference's NeuronConfig and the `neuron_config.json` that it is kept in."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from local.shims.logs import ToolError

DTYPES = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
QUANTIZED_DTYPES = ("int8", "f8e4m3")
# What NeuronConfig keeps of the flags, with the defaults that do not follow from others.
KEPT: dict[str, Any] = {
    "allow_input_truncation": False,
    "async_mode": False,
    "attn_kernel_enabled": None,
    "cc_pipeline_tiling_factor": 2,
    "context_encoding_buckets": None,
    "cp_degree": 1,
    "enable_bucketing": False,
    "ep_degree": 1,
    "flash_decoding_enabled": False,
    "fused_qkv": False,
    "is_continuous_batching": False,
    "kv_cache_quant": False,
    "mlp_kernel_enabled": False,
    "output_logits": False,
    "padding_side": "right",
    "pp_degree": 1,
    "qkv_kernel_enabled": False,
    "quantization_dtype": "int8",
    "quantization_type": "per_tensor_symmetric",
    "quantized": False,
    "quantized_checkpoints_path": None,
    "save_sharded_checkpoint": False,
    "sequence_parallel_enabled": False,
    "skip_sharding": False,
    "skip_warmup": False,
    "speculation_length": 0,
    "start_rank_id": 0,
    "token_generation_buckets": None,
    "torch_dtype": "bfloat16",
    "tp_degree": 1,
    "vocab_parallel": False,
}
# What no graph depends on: where weights come from, and what happens at load time.
NO_SHAPES = {
    "async_mode",
    "local_ranks_size",
    "quantized_checkpoints_path",
    "save_sharded_checkpoint",
    "skip_sharding",
    "skip_warmup",
    "start_rank_id",
}


def torch_dtype(text: str) -> str:
    """The dtype, checked; raises ToolError as `to_torch_dtype` asserts."""
    if text not in DTYPES:
        raise ToolError("AssertionError", f"Unsupported dtype: {text}")
    return text


def neuron_config(given: dict[str, Any], target: str) -> dict[str, Any]:
    """NeuronConfig(**given) as it is saved; raises ToolError for what its constructor refuses."""
    batch, length = int(given.get("batch_size", 1)), int(given.get("seq_len", 128))
    context = int(given.get("max_context_length", length))
    if context > int(given.get("max_length", length)):
        raise ToolError("AssertionError", "max_context_length cannot be more than max_length")
    if given.get("quantized") and not given.get("quantized_checkpoints_path"):
        raise ToolError("AssertionError", "quantized_checkpoints_path is required")
    kept = {name: given.get(name, default) for name, default in KEPT.items()}
    for name, words, most in (
        ("context_encoding_buckets", "Context bucket", context),
        ("token_generation_buckets", "Token generation bucket", int(given.get("max_length", length))),
    ):
        if kept[name]:
            kept[name] = sorted(kept[name])
            if kept[name][-1] > most:
                raise ToolError("AssertionError", f"{words} {kept[name][-1]} should be <= {most}")
    world = kept["tp_degree"] * kept["pp_degree"] * kept["ep_degree"]
    sampling = given.get("on_device_sampling_config") or (
        {
            "deterministic": False,
            "do_sample": bool(given.get("do_sample")),
            "dynamic": bool(given.get("dynamic")),
        }
        if given.get("on_device_sampling")
        else None
    )
    return kept | {
        "batch_size": batch,
        "ctx_batch_size": given.get("ctx_batch_size", batch),
        "tkg_batch_size": given.get("tkg_batch_size", batch),
        "max_batch_size": given.get("max_batch_size", batch),
        "kv_cache_batch_size": given.get("kv_cache_batch_size", batch),
        "seq_len": length,
        "n_active_tokens": given.get("n_active_tokens", length),
        "n_positions": given.get("n_positions", length),
        "max_context_length": context,
        "max_length": given.get("max_length", length),
        "on_device_sampling_config": sampling,
        # The environment wins over the flag, and both over the platform's own.
        "logical_nc_config": int(os.environ.get("NEURON_LOGICAL_NC_CONFIG") or 0)
        or given.get("logical_nc_config")
        or (2 if target == "trn2" else 1),
        "world_size": given.get("world_size", world),
        "local_ranks_size": given.get("local_ranks_size", given.get("world_size", world)),
        "target": given.get("target"),
    }


def check_quantization(neuron: dict[str, Any]) -> None:
    """Raise ToolError for a dtype that weights cannot be quantized to."""
    if neuron["quantized"] and neuron["quantization_dtype"] not in QUANTIZED_DTYPES:
        raise ToolError("ValueError", f"{neuron['quantization_dtype']!r} is not a valid QuantizedDtype")


def buckets(low: int, high: int) -> list[int]:
    """autobucketing.generate_buckets: powers of two from `low`, and `high`."""
    if low == high:
        return [high]
    return [2**power for power in range(int(math.log2(low)), round(math.log2(high)))] + [high]


def context_buckets(neuron: dict[str, Any]) -> list[int]:
    """Prompt lengths that get a graph of their own."""
    most = neuron["max_context_length"]
    if not neuron["enable_bucketing"]:
        return [most]
    return list(neuron["context_encoding_buckets"] or buckets(128, most))


def generation_buckets(neuron: dict[str, Any]) -> list[int]:
    """Lengths of the KV cache that get a graph of their own."""
    most = neuron["max_length"]
    if not neuron["enable_bucketing"]:
        return [most]
    return list(neuron["token_generation_buckets"] or buckets(128, most))


def save(config: dict[str, Any], neuron: dict[str, Any], source: Path, folder: Path) -> None:
    """InferenceConfig.save: the model's configuration and the NeuronConfig, in one file."""
    content = {name: value for name, value in config.items() if name not in ("torch_dtype", "dtype")}
    content |= {"_name_or_path": str(source), "fused_spec_config": None, "metadata": None}
    content |= {"neuron_config": neuron, "num_cores_per_group": 1}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "neuron_config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def load(folder: Path) -> dict[str, Any]:
    """InferenceConfig.load; raises ToolError of the kind that Python would."""
    path = folder / "neuron_config.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise ToolError("FileNotFoundError", f"[Errno 2] No such file or directory: '{path}'") from None
    except ValueError as error:
        raise ToolError("json.decoder.JSONDecodeError", str(error)) from None
    if not isinstance(content.get("neuron_config"), dict):
        raise ToolError(
            "TypeError", "InferenceConfig.__init__() missing 1 required positional argument: 'neuron_config'"
        )
    return content
