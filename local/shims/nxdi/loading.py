"""What the plugin's model loader does: load pre-compiled artifacts, or silently compile the model again.

Only FileNotFoundError and ValueError lead to a compilation; everything else ends the server. Nothing compares
the server's flags with the artifacts: their own configuration counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from local.shims import logs
from local.shims.compiler.neff import check_model_runs
from local.shims.compiler.traced import read_model
from local.shims.faults import Faults
from local.shims.logs import ToolError
from local.shims.nxdi.compiling import checkpoint_files, compile_application
from local.shims.nxdi.config import load as load_config
from local.shims.nxdi.config import neuron_config
from local.shims.optimum.config import model_config
from local.shims.server.loading import Loaded, check_safetensors, check_tokenizer, no_device, settle
from local.shims.silicon import Silicon
from local.shims.versions import Stack

PLACE = "neuronx_distributed_model_loader.py:{}"
# neuronx_distributed_inference.utils.constants.MODEL_TYPES, by the class name of the model in lower case.
MODEL_TYPES = [
    "gpt_oss",
    "llama",
    "llama4",
    "mllama",
    "mistral",
    "mixtral",
    "pixtral",
    "dbrx",
    "qwen2",
    "qwen2_vl",
    "qwen3",
    "qwen3_moe",
    "gemma3",
    "qwen3_vl",
]
RECOMPILED = ("FileNotFoundError", "ValueError", "json.decoder.JSONDecodeError")


def load(given: argparse.Namespace, installed: Stack, devices: Silicon, knobs: Faults) -> Loaded:
    """Load `given.model`; raises ToolError where the real loader fails hard."""
    if not devices.present:
        raise no_device()
    source = Path(given.model)
    config = model_config(source)
    _check_architecture(json.loads((source / "config.json").read_text()))
    check_tokenizer(source)
    override = json.loads(given.additional_config or "{}").get("override_neuron_config")
    if override is None:
        _say(
            "No neuron overrides are passed via additional_config: "
            f"{json.loads(given.additional_config or '{}')}. Proceeding with defaults.",
            line=758,
        )
    else:
        _say(f"Retrieved override_neuron_config from additional_config: {override}", line=754)
    wanted = serving_config(given, devices, override or {})
    compiled = _compiled_path(source, config, wanted)
    try:
        if knobs.recompile:
            raise ToolError("FileNotFoundError", f"{compiled} does not match the model")
        loaded = _load_compiled(compiled, compiled, config, devices)
        _say(f"Successfully loaded pre-compiled model artifacts from {compiled}", line=243)
        if override:
            _say("Using pre-compiled artifacts, override_neuron_config will be ignored", "WARNING", 247)
        return loaded
    except ToolError as error:
        if error.kind not in RECOMPILED:
            raise
        _say(f"Exception: {error}", "WARNING", 209)
        _say(f"Unable to find precompiled artifacts from {compiled}. Recompiling...", "WARNING", 211)
    compile_application(source, compiled, wanted, devices.target)
    return _load_compiled(compiled, source, config, devices)


def _say(message: str, level: str = "INFO", line: int = 0) -> None:
    logs.vllm(message, level, PLACE.format(line))


def _check_architecture(config: dict[str, Any]) -> None:
    architecture = (config.get("architectures") or [""])[0]
    model = architecture.split("For")[0].lower().replace("qwen3moe", "qwen3_moe").replace("gptoss", "gpt_oss")
    if "For" not in architecture or model not in MODEL_TYPES:
        raise ToolError(
            "ValueError",
            f"Model {architecture} is not supported on Neuron for now. Supported models: {MODEL_TYPES}",
        )


def serving_config(given: argparse.Namespace, devices: Silicon, override: dict[str, Any]) -> dict[str, Any]:
    """The NeuronConfig that the flags stand for; used only when the model is compiled."""
    batch, length = given.max_num_seqs or 32, given.max_model_len or 2048
    defaults: dict[str, Any] = {
        "tp_degree": given.tensor_parallel_size,
        "ctx_batch_size": 1,
        "batch_size": batch,
        "max_context_length": length,
        "seq_len": length,
        "enable_bucketing": True,
        "is_continuous_batching": batch > 1,
        "on_device_sampling_config": {"deterministic": False, "do_sample": False, "dynamic": True},
    }
    return neuron_config(defaults | override, devices.target)


def _compiled_path(source: Path, config: dict[str, Any], wanted: dict[str, Any]) -> Path:
    """NEURON_COMPILED_ARTIFACTS, else a folder in the model's that is emptied first."""
    if named := os.environ.get("NEURON_COMPILED_ARTIFACTS"):
        return Path(named)
    content = json.dumps(config | {"neuron_config": wanted}, sort_keys=True)
    digest = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
    folder = source / "neuron-compiled-artifacts" / digest
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _load_compiled(compiled: Path, model: Path, config: dict[str, Any], devices: Silicon) -> Loaded:
    """`application.load`: configuration, traced model, then weights; `model` is the application's path."""
    content = load_config(compiled)
    neuron: dict[str, Any] = content["neuron_config"]
    read_model(compiled / "model.pt")
    check_model_runs(compiled / "model.pt", devices)
    if neuron["local_ranks_size"] > devices.available_cores():
        raise ToolError(
            "RuntimeError",
            f"nrt_init: {neuron['local_ranks_size']} Neuron cores are needed, "
            f"{devices.available_cores()} are available.",
        )
    files = _weights(compiled, model, content)
    for path in files:
        check_safetensors(path)
    loaded = settle(
        config,
        files,
        devices,
        degree=neuron["tp_degree"],
        max_model_len=neuron["seq_len"],
        max_num_seqs=neuron["max_batch_size"],
    )
    if neuron["skip_warmup"]:
        logs.neuron("Skipping model warmup")
    else:
        logs.neuron("Warming up the model.")
        logs.neuron("Warmup completed in 0.01 seconds.")
    return loaded


def _weights(compiled: Path, model: Path, content: dict[str, Any]) -> list[Path]:
    """The files of the weights: sharded ones, else a checkpoint that is sharded now.

    Without shards the path that the model had when it was compiled is looked at first.
    """
    neuron = content["neuron_config"]
    first = neuron["start_rank_id"]
    ranks = range(first, first + neuron["local_ranks_size"])
    if neuron["save_sharded_checkpoint"]:
        logs.neuron(f"Loading presharded checkpoints for ranks: {first}...{ranks[-1]}")
        return [compiled / "weights" / f"tp{rank}_sharded_checkpoint.safetensors" for rank in ranks]
    logs.neuron("Sharding weights on load...")
    if neuron["quantized"]:
        quantized = Path(neuron["quantized_checkpoints_path"])
        if not quantized.exists():
            raise ToolError("FileNotFoundError", f"Quantized checkpoint file not found: {quantized}")
        return [quantized] if quantized.is_file() else checkpoint_files(quantized)
    named = content.get("_name_or_path")
    return checkpoint_files(Path(named) if named and Path(named).is_dir() else model)
