"""Configuration files: the model's `config.json`, and optimum-neuron's `neuron_config.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from local.shims import logs
from local.shims.logs import ToolError
from local.shims.silicon import Silicon
from local.shims.versions import Stack

DECODERS = {
    "text-generation": [
        "granite",
        "llama",
        "llama4_text",
        "mixtral",
        "phi3",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "smollm3",
    ],
    "feature-extraction": ["qwen3"],
}
OLDER_DECODERS = {"text-generation": ["granite", "llama", "phi3", "qwen2", "mixtral", "qwen3"]}
# What the compiler and the runtime can place on a node: powers of two on trn2 (neuron.md, 5), and the
# core counts that inf2 and trn1 instances have.
DEGREES = {"trn2": (1, 2, 4, 8, 16, 32, 64), "trn1": (1, 2, 4, 8, 12, 16, 24, 32)}
# What NxDNeuronConfig had besides before 0.4; it did not know what it was compiled for.
OLDER_SWITCHES = """async_mode attn_kernel_enabled enable_bucketing flash_decoding_enabled is_chunked_prefill
mlp_kernel_enabled mlp_kernel_fuse_residual_add qk_layernorm qkv_kernel_enabled sequence_parallel_enabled
vocab_parallel"""
OLDER_SETTINGS = {
    "cc_pipeline_tiling_factor": 2,
    "logical_nc_config": 1,
    "num_cores_per_group": 1,
    "padding_side": "right",
}
MANDATORY = ("optimum_neuron_version", "_serialized_key", "neuronxcc_version")


def model_config(folder: Path) -> dict[str, Any]:
    """The text model's configuration in `folder`; raises ToolError as transformers words it."""
    try:
        content = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise ToolError(
            "OSError",
            f"{folder} does not appear to have a file named config.json. "
            f"Checkout 'https://huggingface.co/{folder}/tree/main' for available files.",
        ) from None
    except ValueError:
        raise ToolError(
            "OSError",
            f"It looks like the config file at '{folder / 'config.json'}' is not a valid JSON file.",
        ) from None
    if "model_type" not in content:
        raise ToolError(
            "ValueError",
            f"Unrecognized model in {folder}. Should have a `model_type` key in its config.json.",
        )
    text = content.get("text_config")
    return dict(text) if isinstance(text, dict) and "model_type" in text else dict(content)


def check_supported(config: dict[str, Any], task: str, installed: Stack) -> None:
    """Raise ToolError for an architecture without a Neuron model class."""
    supported = DECODERS.get(task, [])
    if installed.optimum_release < (0, 4):
        supported = OLDER_DECODERS.get(task, [])
    if config["model_type"] not in supported:
        raise ToolError(
            "ValueError",
            f"Model type {config['model_type']} is not supported for task {task} in neuron in inference "
            f"mode. Supported types are: {supported}.",
        )


def check_degree(config: dict[str, Any], degree: int, target: str, *, pads_heads: bool = True) -> None:
    """Raise ToolError for a tensor-parallel size that the target or the model's heads do not allow.

    optimum-neuron and NxD Inference pad query heads that do not divide, and repeat or expand the others.
    """
    allowed = DEGREES.get(target, DEGREES["trn2"])
    if degree not in allowed:
        raise ToolError(
            "ValueError",
            f"tensor_parallel_size {degree} is not supported on {target}: must be one of {allowed}.",
        )
    heads = int(config.get("num_attention_heads", 1))
    if heads % degree and not pads_heads:
        raise ToolError(
            "ValueError",
            f"Total number of attention heads ({heads}) must be divisible by "
            f"tensor parallel size ({degree}).",
        )


def neuron_config(
    *,
    installed: Stack,
    checkpoint: tuple[str | None, str | None],
    batch_size: int,
    sequence_length: int,
    degree: int,
    dtype: str,
    target: str,
) -> dict[str, Any]:
    """What a decoder's export writes: NxDNeuronConfig with the values of `_get_neuron_config`."""
    content: dict[str, Any] = {
        "_serialized_key": "NxDNeuronConfig",
        "optimum_neuron_version": installed.optimum,
        "neuronxcc_version": installed.neuronxcc,
        "checkpoint_id": checkpoint[0],
        "checkpoint_revision": checkpoint[1],
        "batch_size": batch_size,
        "max_batch_size": batch_size,
        "continuous_batching": batch_size > 1,
        "speculation_length": 0,
        "sequence_length": sequence_length,
        "tp_degree": degree,
        "ep_degree": 1,
        "pp_degree": 1,
        "torch_dtype": dtype,
        "n_active_tokens": sequence_length,
        "max_context_length": sequence_length,
        "output_logits": False,
        "fused_qkv": True,
        "target": target,
        "on_device_sampling": True,
        "max_topk": 256,
        "start_rank_id": 0,
        "local_ranks_size": degree,
        "capacity_factor": None,
        "glu_mlp": True,
    }
    if installed.optimum_release >= (0, 4):
        return content
    switches = dict.fromkeys(OLDER_SWITCHES.split(), False)
    return content | switches | OLDER_SETTINGS | {"rpl_reduce_dtype": dtype, "target": None}


def read_neuron_config(folder: Path, installed: Stack) -> dict[str, Any] | None:
    """`neuron_config.json` of an exported model, None for one that was not exported.

    Raises ToolError when it was made by other versions than are installed (`NeuronConfig.from_dict`).
    """
    path = folder / "neuron_config.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        # The real loader takes this for "no configuration" and goes on to its cache; so does the server here.
        logs.neuron(f"It looks like the config file at '{path}' is not a valid JSON file.", "WARNING")
        return None
    for key in MANDATORY:
        if key not in content:
            raise ToolError("ValueError", f"Invalid neuron configuration: missing mandatory {key} attribute.")
    version = content["optimum_neuron_version"]
    if version != installed.optimum:
        raise ToolError(
            "ValueError",
            f"This neuron configuration file was generated with optimum-neuron version {version}, "
            f"but this version is {installed.optimum}.",
        )
    if content["neuronxcc_version"] != installed.neuronxcc:
        raise ToolError(
            "RuntimeError",
            "This neuron configuration corresponds to a model exported using version"
            f" {content['neuronxcc_version']} of the neuronxcc compiler, "
            f"but {installed.neuronxcc} is installed.",
        )
    return content


def check_loadable(config: dict[str, Any], devices: Silicon) -> None:
    """Raise ToolError when the exported model cannot run on these devices ."""
    if config["target"] != devices.target:
        raise ToolError(
            "ValueError",
            f"The model was compiled for {config['target']} but the current instance type is "
            f"{devices.target}. Please use a compatible instance type.",
        )
    available = devices.available_cores()
    if available < config["tp_degree"]:
        raise ToolError(
            "ValueError",
            f"The model requires at least {config['tp_degree']} Neuron cores but only "
            f"{available} are available. Please use a compatible instance type.",
        )
