"""The command `inference_demo --model-type … --task-type causal-lm run …`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from local.shims import logs
from local.shims.faults import faults
from local.shims.logs import ToolError
from local.shims.nxdi.compiling import compile_application
from local.shims.nxdi.config import check_quantization, neuron_config, torch_dtype
from local.shims.silicon import TARGETS, silicon

MODEL_TYPES = ("llama", "mistral", "mixtral", "dbrx", "qwen2", "qwen3", "qwen3_moe", "gemma3")
QUANTIZATION_TYPES = ("per_tensor_symmetric", "per_channel_symmetric")
# Flags of the real parser: without a value, with a number, with a text. Those that are checked are below.
SWITCHES = """benchmark do-sample dynamic top-k-kernel-enabled allow-input-truncation output-logits
vocab-parallel layer-boundary-markers fused-qkv sequence-parallel-enabled
flash-decoding-enabled is-continuous-batching disable-kv-cache-tiling on-device-sampling
enable-bucketing bucket-n-active-tokens quantized kv-cache-quant
early-expert-affinity-modulation disable-normalize-top-k-affinities fused-shared-experts
enable-fused-speculation enable-eagle-speculation is-medusa enable-torch-dist
save-sharded-checkpoint skip-sharding enable-block-kv-layout enable-chunked-prefill
enable-prefix-caching async-mode enable-lora qkv-kernel-enabled mlp-kernel-enabled
quantized-mlp-kernel-enabled k-cache-transposed enable-spill-reload-dge on-cpu skip-warmup
skip-compile compile-only compile-dry-run hlo-debug apply-seq-ids-mask"""
NUMBERS = """num-tokens-to-check top-k global-topk pad-token-id batch-size seq-len n-active-tokens n-positions
max-context-length max-new-tokens max-length weight-gather-seq-len-threshold ctx-batch-size tkg-batch-size
max-batch-size kv-cache-batch-size kv-cache-padding-size sampling-dp-degree speculation-length
spec-batch-size tp-degree cp-degree attention-dp-degree pp-degree ep-degree moe-tp-degree moe-ep-degree
world-size start_rank_id local_ranks_size pa-num-blocks pa-block-size max-num-seqs
windowed-context-encoding-size cc-pipeline-tiling-factor scratchpad-page-size"""
TEXTS = """check-accuracy-mode expected-outputs-path tol-map padding-side quantized-checkpoints-path
quantization-dtype modules-to-not-convert-file draft-model-path compiled-draft-model-path router-act-fn
router-dtype benchmark-report-path"""
BUCKETS = ("context-encoding-buckets", "prefix-buckets", "token-generation-buckets")


def parser() -> argparse.ArgumentParser:
    """The real flags; unknown ones are refused by argparse with code 2."""
    top = argparse.ArgumentParser("inference_demo")
    top.add_argument("--model-type", choices=MODEL_TYPES, required=True)
    top.add_argument("--task-type", required=True)
    run = top.add_subparsers(dest="action", required=True).add_parser("run")
    run.add_argument("--model-path", type=Path, required=True)
    run.add_argument("--compiled-model-path", type=Path, required=True)
    run.add_argument("--prompt", dest="prompts", action="append", required=True)
    run.add_argument("--torch-dtype", type=torch_dtype)
    run.add_argument("--quantization-type", choices=QUANTIZATION_TYPES)
    for name in ("--top-p", "--temperature", "--divergence-difference-tol", "--capacity-factor"):
        run.add_argument(name, type=float)
    run.add_argument("--attn-kernel-enabled", action=argparse.BooleanOptionalAction)
    for name in SWITCHES.split():
        run.add_argument(f"--{name}", action="store_true")
    for name in NUMBERS.split():
        run.add_argument(f"--{name}", type=int)
    for name in TEXTS.split():
        run.add_argument(f"--{name}")
    for name in BUCKETS:
        run.add_argument(f"--{name}", nargs="+", type=int)
    cores = run.add_mutually_exclusive_group()
    cores.add_argument("--logical-neuron-cores", type=int)  # deprecated
    cores.add_argument("--logical-nc-config", type=int)
    return top


def main(argv: list[str] | None = None) -> int:
    """Compile a model; without `--compile-only` it would also generate, which needs devices."""
    try:
        given = parser().parse_args(argv)
        faults()
        if given.task_type != "causal-lm":
            raise ToolError("AssertionError", f"Unsupported task: {given.model_type}/{given.task_type}")
        _run(given)
    except ToolError as error:
        logs.traceback(error, "neuronx_distributed_inference/inference_demo.py:816 in main")
        return 1
    return 0


def _run(given: argparse.Namespace) -> None:
    target = platform_target()
    print("Loading configs...", flush=True)
    # What is not given stays out, so that NeuronConfig's defaults hold; switches are always given.
    settings: dict[str, Any] = {name: value for name, value in vars(given).items() if value is not None}
    if given.logical_neuron_cores is not None:
        settings["logical_nc_config"] = given.logical_neuron_cores
    neuron = neuron_config(settings, target)
    check_quantization(neuron)
    print("\nCompiling and saving model...", flush=True)
    began = time.monotonic()
    compile_application(given.model_path, given.compiled_model_path, neuron, target)
    print(f"Compiling and tracing time: {time.monotonic() - began} seconds", flush=True)
    if given.compile_only or given.compile_dry_run:
        return
    print("\nLoading model to Neuron...", flush=True)
    if silicon().available_cores() < neuron["tp_degree"]:
        raise ToolError("RuntimeError", f"nrt_init: {neuron['tp_degree']} Neuron cores are not available.")


def platform_target() -> str:
    """The compilation target: NEURON_PLATFORM_TARGET_OVERRIDE, else the instance."""
    named = os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE") or silicon().target
    if named not in TARGETS.values() and named not in TARGETS:
        raise ToolError(
            "RuntimeError",
            f"Unsupported Platform - {named or 'unknown'}: set NEURON_PLATFORM_TARGET_OVERRIDE on hosts "
            "without Neuron devices.",
        )
    return TARGETS.get(named, named)
