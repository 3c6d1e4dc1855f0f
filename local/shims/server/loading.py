"""What a server does before it listens: check artifacts and devices, load weights, compile if it must."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.shims import logs
from local.shims.compiler.builder import compile_all
from local.shims.compiler.graph import decoder_graphs
from local.shims.compiler.shards import weight_files
from local.shims.compiler.traced import read_model
from local.shims.faults import Faults
from local.shims.logs import ToolError
from local.shims.optimum import hub_cache
from local.shims.optimum.config import check_loadable, model_config, read_neuron_config
from local.shims.optimum.export import compiler_flags, export_model
from local.shims.server.metrics import Metrics
from local.shims.server.pictures import Eyes
from local.shims.server.text import weights_digest
from local.shims.silicon import Silicon
from local.shims.versions import Stack

LOAD_SECONDS = 0.8  # LOCAL_LOAD_SECONDS says otherwise, for tests that start many servers
SECONDS_PER_GIB = 2.0


@dataclass(frozen=True)
class Loaded:
    """A model on its devices. `device_bytes` is what weights and cache take there.

    runs: False for a server that has compiled without devices and cannot generate. eyes: None for one that
    takes no pictures.
    """

    digest: str
    max_model_len: int
    max_num_seqs: int
    cores: int
    device_bytes: int
    make_metrics: Callable[[str, int], Metrics] = Metrics
    runs: bool = True
    eyes: Eyes | None = None


def load(given: argparse.Namespace, installed: Stack, devices: Silicon, knobs: Faults) -> Loaded:
    """Load `given.model` as the engine of `installed` would; raises ToolError where that one fails."""
    if installed.engine == "native":
        from local.shims.native import loading as native

        return native.load(given, installed, devices, knobs)
    if installed.engine == "nxdi":
        from local.shims.nxdi import loading as nxdi

        return nxdi.load(given, installed, devices, knobs)
    if not devices.present:
        raise ToolError("RuntimeError", "No Neuron device detected.")
    return _load_exported(given, installed, devices, knobs)


def no_device() -> ToolError:
    """vLLM without a platform: its Neuron plugins do not register where there is no /dev/neuron*."""
    return ToolError(
        "RuntimeError",
        "Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn "
        "on verbose logging to help debug the issue.",
    )


def check_tokenizer(folder: Path) -> None:
    """Raise ToolError for a model directory without a tokenizer: the API server renders prompts itself."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        raise ToolError(
            "OSError",
            f"Can't load tokenizer for '{folder}'. If you were trying to load it from "
            "'https://huggingface.co/models', make sure you don't have a local directory with the same name.",
        )


def _load_exported(given: argparse.Namespace, installed: Stack, devices: Silicon, knobs: Faults) -> Loaded:
    """optimum-neuron: the exported directory decides, the flags must agree with it."""
    degree = given.tensor_parallel_size
    if degree > devices.available_cores():
        raise ToolError(
            "ValueError",
            f"The specified tensor parallelism degree ({degree}) is higher"
            f" than the number of available Neuron cores ({devices.available_cores()})."
            " Please set tensor_parallel_size to a value less than or equal "
            "to the number of available Neuron cores.",
        )
    if given.pipeline_parallel_size not in (None, 1) or given.data_parallel_size not in (None, 1):
        raise ToolError("ValueError", "optimum-neuron does not support pipeline or data parallelism.")
    folder = Path(given.model)
    config = model_config(folder)
    neuron = read_neuron_config(folder, installed)
    if neuron is None:
        folder, neuron = _compile_missing(given, folder, devices)
    check_loadable(neuron, devices)
    graphs = read_model(folder / "model.pt")
    logs.neuron(f"Loaded graphs {graphs} from {folder / 'model.pt'}")
    if knobs.recompile:
        _recompile(config, neuron, installed)
    if given.max_model_len is not None and given.max_model_len > neuron["sequence_length"]:
        raise ToolError(
            "ValueError",
            f"max_model_len {given.max_model_len} exceeds the sequence_length "
            f"{neuron['sequence_length']} that the model was exported with.",
        )
    return settle(
        config,
        exported_weights(folder, Path(given.model), neuron),
        devices,
        degree=neuron["tp_degree"],
        max_model_len=given.max_model_len or neuron["sequence_length"],
        max_num_seqs=min(given.max_num_seqs or neuron["max_batch_size"], neuron["max_batch_size"]),
    )


def settle(
    config: dict[str, Any],
    weights: list[Path],
    devices: Silicon,
    *,
    degree: int,
    max_model_len: int,
    max_num_seqs: int,
) -> Loaded:
    """Put the weights and the cache onto `degree` cores, taking the time of a load."""
    size = sum(path.stat().st_size for path in weights)
    cache = _kv_cache_bytes(config, degree, max_model_len * max_num_seqs)
    _check_memory(size + cache, degree, devices)
    base = float(os.environ.get("LOCAL_LOAD_SECONDS", LOAD_SECONDS))
    time.sleep(base + SECONDS_PER_GIB * size / 2**30)
    return Loaded(weights_digest(weights), max_model_len, max_num_seqs, degree, size + cache)


def _compile_missing(
    given: argparse.Namespace, folder: Path, devices: Silicon
) -> tuple[Path, dict[str, Any]]:
    """Export a plain checkpoint while starting, where that is allowed."""
    found = hub_cache.entries(
        given.model,
        target=devices.target,
        batch_size=given.max_num_seqs,
        sequence_length=given.max_model_len,
        degree=given.tensor_parallel_size,
    )
    if not found and given.model_loader_extra_config != "allow_non_cached_model":
        raise hub_cache.not_cached(
            f"{given.model}, batch size = {given.max_num_seqs}, sequence length = {given.max_model_len}, "
            f"tp = {given.tensor_parallel_size}, dtype = {given.dtype}"
        )
    logs.neuron(f"No cached version found for {given.model}", "WARNING")
    logs.neuron("The model will be exported on the fly, which may take some time.", "WARNING")
    output = Path(tempfile.mkdtemp(prefix="neuron-export-"))
    neuron = export_model(
        folder,
        output,
        task="text-generation",
        target=devices.target,
        batch_size=given.max_num_seqs or 1,
        sequence_length=given.max_model_len,
        degree=given.tensor_parallel_size,
    )
    return output, neuron


def _recompile(config: dict[str, Any], neuron: dict[str, Any], installed: Stack) -> None:
    """The knob: as if the artifacts did not fit the graph, compile with an empty cache."""
    logs.neuron("Pre-compiled artifacts do not match the model's graph, compiling it again.", "WARNING")
    before = os.environ.get("NEURON_COMPILE_CACHE_URL")
    os.environ["NEURON_COMPILE_CACHE_URL"] = tempfile.mkdtemp(prefix="neuron-compile-cache-")
    try:
        flags = compiler_flags(neuron["target"])
        compile_all(decoder_graphs(config, neuron, flags), neuron["target"], installed.neuronxcc)
    finally:
        if before is None:
            del os.environ["NEURON_COMPILE_CACHE_URL"]
        else:
            os.environ["NEURON_COMPILE_CACHE_URL"] = before


def exported_weights(folder: Path, model: Path, neuron: dict[str, Any]) -> list[Path]:
    """The files of the weights, checked: sharded ones first, a plain checkpoint, then the Hub's."""
    shards = folder / "checkpoint" / "weights"
    if shards.is_dir():
        logs.neuron(f"Loading sharded checkpoint from {shards}")
        first = neuron["start_rank_id"]
        ranks = range(first, first + neuron["local_ranks_size"])
        files = [shards / f"tp{rank}_sharded_checkpoint.safetensors" for rank in ranks]
        for path in files:
            check_safetensors(path)
        return files
    logs.neuron("There are no saved sharded checkpoints.")
    for place in (folder, model):
        try:
            files = weight_files(place)
        except ToolError:
            continue
        for path in files:
            check_safetensors(path)
        return files
    if neuron["checkpoint_id"] is None:
        raise ToolError("ValueError", f"Checkpoint file not found under {folder}.")
    logs.neuron(f"Checkpoint file not found in {folder}, trying to load from HuggingFace Hub.")
    from huggingface_hub import snapshot_download

    return weight_files(
        Path(
            snapshot_download(
                neuron["checkpoint_id"],
                revision=neuron["checkpoint_revision"],
                allow_patterns=["*.safetensors*"],
            )
        )
    )


def check_safetensors(path: Path) -> None:
    """Raise ToolError for a shard that is missing or cut short."""
    from local.checkpoints.tensorfile import read_entries

    try:
        read_entries(path)
    except FileNotFoundError:
        raise ToolError("FileNotFoundError", f"No such file or directory: {path}") from None
    except (ValueError, json.JSONDecodeError) as error:
        raise ToolError(
            "safetensors_rust.SafetensorError", f"Error while deserializing header: {error}"
        ) from None


def _kv_cache_bytes(config: dict[str, Any], degree: int, tokens: int) -> int:
    heads = int(config.get("num_attention_heads", 1))
    kv_heads = max(int(config.get("num_key_value_heads") or heads), degree)
    head_dim = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    return 2 * 2 * int(config["num_hidden_layers"]) * kv_heads * head_dim * tokens


def _check_memory(needed: int, degree: int, devices: Silicon) -> None:
    """Weights and cache must fit the HBM behind the cores, as the runtime finds out when it allocates."""
    there = degree * devices.memory_per_device // devices.cores_per_device
    if needed > there:
        raise ToolError(
            "RuntimeError",
            f"Failed to allocate tensors: status=4 message=Allocation Failure: {needed} bytes on {degree} "
            f"cores with {there} bytes of device memory",
        )
