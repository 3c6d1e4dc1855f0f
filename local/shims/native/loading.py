"""What the plugin does before it serves: compile or find a graph a bucket, load the weights, warm up."""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from local.shims import logs
from local.shims.compiler.graph import Graph, module
from local.shims.compiler.neff import check_runs
from local.shims.compiler.shards import weight_files
from local.shims.faults import Faults
from local.shims.logs import ToolError
from local.shims.native.buckets import DEFAULT_BATCHED_TOKENS, Buckets, buckets
from local.shims.native.cache import Cache, key_of
from local.shims.native.metrics import NativeMetrics, Start
from local.shims.optimum.config import check_degree, model_config
from local.shims.server.loading import Loaded, check_safetensors, check_tokenizer, no_device, settle
from local.shims.server.pictures import read_eyes
from local.shims.silicon import Silicon
from local.shims.versions import Stack

TARGETS = ("trn2", "trn3")
ARCHITECTURES = ("llama", "gpt_oss", "qwen3", "qwen3_vl", "qwen3_vl_text")
FLAGS = ("--model-type=transformer", "-O1", "--lnc=2")
FP8_ON_TRN2 = "--internal-hlo2tensorizer-options=--experimental-unsafe-fp8e4m3fn-as-fp8e4m3"
PLACE = "neuron_worker.py:{}"


def load(given: argparse.Namespace, installed: Stack, devices: Silicon, knobs: Faults) -> Loaded:
    """Load the plain checkpoint, and each graph from the cache or the compiler.

    With VLLM_NEURON_CPU_COMPILE=1 graphs are compiled for NEURON_PLATFORM_TARGET_OVERRIDE and nothing else is
    done. The server comes up all the same, as nothing in the plugin ends it; it only cannot generate.
    """
    began = time.monotonic()
    cpu_compile = flag("VLLM_NEURON_CPU_COMPILE")
    if cpu_compile and flag("VLLM_NEURON_CPU_MODE"):
        raise ToolError(
            "ValueError", "VLLM_NEURON_CPU_COMPILE and VLLM_NEURON_CPU_MODE cannot be enabled together."
        )
    if not devices.present and not cpu_compile:
        raise no_device()
    target = os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE") or devices.target
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
    check_tokenizer(source)
    eyes = read_eyes(source, given.limit_mm_per_prompt)
    check_degree(config, degree, target, pads_heads=False)
    if not cpu_compile and degree > devices.available_cores():
        raise ToolError(
            "RuntimeError", f"nrt_init: {degree} of {devices.available_cores()} Neuron cores needed."
        )
    length = given.max_model_len or int(config.get("max_position_embeddings", 2048))
    sequences = given.max_num_seqs or 8
    settings = json.loads(given.additional_config or "{}").get("neuron_config") or {}
    batched = min(given.max_num_batched_tokens or DEFAULT_BATCHED_TOKENS, length)
    sizes = buckets(settings, batched_tokens=batched, sequences=sequences)
    if cpu_compile:
        loaded = Loaded("", length, sequences, 0, 0, runs=False)
    else:
        files = weight_files(source)
        for path in files:
            check_safetensors(path)
        loaded = settle(config, files, devices, degree=degree, max_model_len=length, max_num_seqs=sequences)
    loading = time.monotonic() - began
    took = have_graphs(
        graphs(given, config, sizes, settings, length, target), target, installed, devices, knobs
    )
    logs.vllm("=" * 80, place=PLACE.format(912))
    logs.vllm(
        f"Model warmup completed: {len(sizes.tokens)} num_batched_tokens_buckets, "
        f"{len(sizes.sequences)} num_seqs_buckets",
        place=PLACE.format(913),
    )
    logs.vllm("=" * 80, place=PLACE.format(918))
    start = Start(
        model=given.model,
        buckets=sizes,
        compilation=dict(zip(sizes.names(), took, strict=True)),
        startup=time.monotonic() - began,
        load_seconds=loading,
        load_bytes=loaded.device_bytes,
    )
    return replace(loaded, eyes=eyes, make_metrics=functools.partial(NativeMetrics, start=start))


def flag(name: str) -> bool:
    return os.environ.get(name, "0") == "1"


def graphs(
    given: argparse.Namespace,
    config: dict[str, Any],
    sizes: Buckets,
    settings: dict[str, Any],
    length: int,
    target: str,
) -> list[Graph]:
    """One graph a bucket, prompts first. The number of cache blocks is a shape of them all."""
    shapes = {
        "tp_degree": given.tensor_parallel_size,
        "max_model_len": length,
        "target": target,
        "block_size": given.block_size,
        "num_gpu_blocks": given.num_gpu_blocks_override,
        "gpu_memory_utilization": given.gpu_memory_utilization,
        "kv_cache_dtype": given.kv_cache_dtype,
        "dtype": given.dtype,
        **{name: value for name, value in settings.items() if not name.endswith("_buckets")},
    }
    flags = [*FLAGS, *([FP8_ON_TRN2] if target == "trn2" else [])]
    return [
        *(module("prefill", config, shapes, flags, size) for size in sizes.tokens),
        *(module("decode", config, shapes, flags, size) for size in sizes.sequences),
    ]


def have_graphs(
    wanted: list[Graph], target: str, installed: Stack, devices: Silicon, knobs: Faults
) -> list[float]:
    """Have the NEFF of each graph; returns seconds of each. Raises ToolError when one may not be compiled.

    Two things compile: the capture backend, in parallel and before the warm-up, and the warm-up itself. Only
    with both switched off does a miss end the server.
    """
    cache = Cache.configured()
    uncached, strict = (
        flag("NEURON_LIBTORCH_DISABLE_COMPILE_CACHE"),
        flag("VLLM_NEURON_DISABLE_WARMUP_COMPILE"),
    )
    if uncached and strict:
        raise ToolError(
            "ValueError",
            "NEURON_LIBTORCH_DISABLE_COMPILE_CACHE cannot be set with VLLM_NEURON_DISABLE_WARMUP_COMPILE",
        )
    closed = strict and flag("NEURON_LIBTORCH_DISABLE_GRAPH_CAPTURE_BACKEND")

    def have(graph: Graph) -> float:
        began = time.monotonic()
        key = key_of(graph, installed.neuronxcc, target)
        logs.vllm(f"Compilation cache key: {key}", place="backend.py:190")
        neff = None if uncached or knobs.recompile else cache.local(key)
        if neff is None and closed:
            raise ToolError(
                "RuntimeError",
                f"VLLM_NEURON_DISABLE_WARMUP_COMPILE: local compile cache miss for key {key}. "
                "All graphs must be pre-compiled when warmup compilation is disabled.",
            )
        if neff is None:
            neff = cache.fetch_or_compile(key, graph, target, invalidate=uncached or knobs.recompile)
        if devices.present and not flag("VLLM_NEURON_CPU_COMPILE"):
            check_runs(neff, devices)
        return time.monotonic() - began

    workers = int(os.environ.get("NEURON_LIBTORCH_PARALLEL_COMPILE_WORKERS") or 8)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(have, wanted))
