"""The native vLLM plugin (beta): its compile cache, and what it does when graphs are missing.

$VLLM_CACHE_ROOT/neuron/compile_cache/<md5>/model.neff
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from local.shims import logs
from local.shims.compiler.cache import compile_graph
from local.shims.compiler.graph import Graph, decoder_graphs
from local.shims.compiler.shards import weight_files
from local.shims.faults import Faults
from local.shims.logs import ToolError
from local.shims.optimum.config import check_degree, model_config
from local.shims.optimum.export import compiler_flags
from local.shims.server.loading import Loaded, check_safetensors, settle
from local.shims.silicon import Silicon
from local.shims.versions import Stack

TARGETS = ("trn2", "trn3")
ARCHITECTURES = ("llama", "gpt_oss", "qwen3", "qwen3_vl", "qwen3_vl_text")


def load(given: argparse.Namespace, installed: Stack, devices: Silicon, knobs: Faults) -> Loaded | None:
    """Load the plain checkpoint, and each graph from the cache or the compiler.

    With VLLM_NEURON_CPU_COMPILE=1 only compile, for NEURON_PLATFORM_TARGET_OVERRIDE; returns None then.
    """
    compile_only = os.environ.get("VLLM_NEURON_CPU_COMPILE") == "1"
    target = os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE") or devices.target
    if not devices.present and not compile_only:
        raise ToolError("RuntimeError", "No Neuron device detected.")
    if target not in TARGETS:
        raise ToolError(
            "ValueError", f"vllm-neuron supports {', '.join(TARGETS)}, not {target or 'an unknown target'}."
        )
    source, degree = Path(given.model), given.tensor_parallel_size
    config = model_config(source)
    if config["model_type"] not in ARCHITECTURES:
        raise ToolError(
            "ValueError", f"Model architectures {config.get('architectures')} are not supported for now."
        )
    check_degree(config, degree, target)
    if not compile_only and degree > devices.available_cores():
        raise ToolError(
            "RuntimeError", f"nrt_init: {degree} of {devices.available_cores()} Neuron cores needed."
        )
    length = given.max_model_len or int(config.get("max_position_embeddings", 2048))
    sequences = given.max_num_seqs or 8
    shapes = {
        "tp_degree": degree,
        "max_model_len": length,
        "max_num_seqs": sequences,
        "max_num_batched_tokens": given.max_num_batched_tokens,
        "target": target,
        **json.loads(given.additional_config or "{}").get("neuron_config", {}),
    }
    for graph in decoder_graphs(config, shapes, compiler_flags(target)):
        _graph(graph, target, installed, forget=knobs.recompile)
    if compile_only:
        logs.vllm("CPU compilation finished", place="neuron_worker.py:210")
        return None
    files = weight_files(source)
    for path in files:
        check_safetensors(path)
    size = sum(path.stat().st_size for path in files)
    return settle(config, source, size, devices, degree=degree, max_model_len=length, max_num_seqs=sequences)


def _graph(graph: Graph, target: str, installed: Stack, *, forget: bool) -> None:
    """Have the graph in the plugin's own cache; refuse to compile where that is switched off."""
    root = Path(os.environ.get("VLLM_CACHE_ROOT") or Path.home() / ".cache" / "vllm")
    content = graph.hlo + "\0".join([*graph.flags, installed.neuronxcc]).encode()
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    folder = root / "neuron" / "compile_cache" / digest
    if (folder / "model.neff").exists() and not forget:
        logs.vllm(f"Using cached graph {graph.key} from {folder}", place="neuron_compiler.py:88")
        return
    forbidden: dict[str, Any] = {
        name: os.environ.get(name)
        for name in ("VLLM_NEURON_DISABLE_WARMUP_COMPILE", "NEURON_LIBTORCH_DISABLE_GRAPH_CAPTURE_BACKEND")
    }
    if all(value == "1" for value in forbidden.values()):
        raise ToolError("RuntimeError", f"Graph {graph.key} is not in {folder}, and compiling is disabled.")
    logs.vllm(f"Compiling graph {graph.key}", place="neuron_compiler.py:97")
    neff = compile_graph(graph, target, installed.neuronxcc)
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f".model.neff.{os.getpid()}"
    staged.write_bytes(neff)
    staged.replace(folder / "model.neff")
