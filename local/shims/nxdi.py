"""NxD Inference: `inference_demo`, which compiles, and what `vllm serve` does with its artifacts.

<compiled>/model.pt  neuron_config.json  weights/tp{rank}_sharded_checkpoint.safetensors
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from local.shims import logs
from local.shims.compiler.graph import decoder_graphs
from local.shims.compiler.shards import write_shards
from local.shims.faults import Faults, faults
from local.shims.logs import ToolError
from local.shims.optimum.config import check_degree, model_config
from local.shims.optimum.export import compile_all, compiler_flags, read_model, write_model
from local.shims.server.loading import Loaded, check_safetensors, settle
from local.shims.silicon import Silicon, silicon
from local.shims.versions import NXDI, Stack, stack

MODEL_TYPES = ("llama", "llama4", "mixtral", "dbrx", "qwen2", "qwen3", "qwen3_moe")
SWITCHES = (
    "--on-device-sampling",
    "--enable-bucketing",
    "--is-continuous-batching",
    "--fused-qkv",
    "--compile-only",
    "--save-sharded-checkpoint",
    "--skip-warmup",
    "--sequence-parallel-enabled",
    "--qkv-kernel-enabled",
    "--attn-kernel-enabled",
    "--mlp-kernel-enabled",
    "--async-mode",
    "--benchmark",
    "--do-sample",
)


def parser() -> argparse.ArgumentParser:
    """The flags of `inference_demo … run`."""
    top = argparse.ArgumentParser("inference_demo")
    top.add_argument("--model-type", choices=MODEL_TYPES, required=True)
    top.add_argument("--task-type", choices=["causal-lm"], required=True)
    run = top.add_subparsers(dest="action", required=True).add_parser("run")
    run.add_argument("--model-path", type=Path, required=True)
    run.add_argument("--compiled-model-path", type=Path, required=True)
    run.add_argument("--tp-degree", type=int, default=1)
    run.add_argument("--batch-size", type=int, default=1)
    run.add_argument("--max-context-length", type=int, default=128)
    run.add_argument("--seq-len", type=int, default=128)
    run.add_argument("--torch-dtype", default="bfloat16")
    run.add_argument("--logical-nc-config", type=int, choices=[1, 2], default=1)
    for name in (
        "--ctx-batch-size",
        "--tkg-batch-size",
        "--max-batch-size",
        "--start_rank_id",
        "--local_ranks_size",
    ):
        run.add_argument(name, type=int)
    for name in ("--pad-token-id", "--top-k", "--cc-pipeline-tiling-factor", "--max-new-tokens"):
        run.add_argument(name, type=int)
    run.add_argument("--prompt", action="append")
    for name in SWITCHES:
        run.add_argument(name, action="store_true")
    return top


def main(argv: list[str] | None = None) -> int:
    """Compile a model; without `--compile-only` it would also generate, which needs devices."""
    given = parser().parse_args(argv)
    faults()
    target = os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE") or silicon().target
    try:
        if not target:
            raise ToolError("RuntimeError", "No Neuron device detected: set NEURON_PLATFORM_TARGET_OVERRIDE.")
        compile_model(given.model_path, given.compiled_model_path, settings(given, target), target)
        if not given.compile_only and silicon().available_cores() < given.tp_degree:
            raise ToolError("RuntimeError", f"nrt_init: {given.tp_degree} Neuron cores are not available.")
    except ToolError as error:
        logs.traceback(error, "neuronx_distributed_inference/inference_demo.py:671 in main")
        return 1
    return 0


def settings(given: argparse.Namespace, target: str) -> dict[str, Any]:
    """The NeuronConfig of these flags."""
    return {
        "tp_degree": given.tp_degree,
        "batch_size": given.batch_size,
        "max_batch_size": given.max_batch_size or given.batch_size,
        "seq_len": given.seq_len,
        "max_context_length": given.max_context_length,
        "torch_dtype": given.torch_dtype,
        "is_continuous_batching": given.is_continuous_batching,
        "on_device_sampling_config": {"dynamic": True} if given.on_device_sampling else None,
        "fused_qkv": given.fused_qkv,
        "logical_nc_config": 2 if target == "trn2" else given.logical_nc_config,
        "enable_bucketing": given.enable_bucketing,
        "save_sharded_checkpoint": True,
        "target": target,
    }


def compile_model(source: Path, output: Path, neuron: dict[str, Any], target: str) -> None:
    """Compile and shard `source` into `output`; raises ToolError as the compiler fails."""
    config = model_config(source)
    check_degree(config, neuron["tp_degree"], target)
    installed = stack(NXDI)
    neffs = compile_all(decoder_graphs(config, neuron, compiler_flags(target)), target, installed.neuronxcc)
    output.mkdir(parents=True, exist_ok=True)
    write_model(output / "model.pt", neffs)
    content = config | {"neuron_config": neuron, "neuronxcc_version": installed.neuronxcc}
    (output / "neuron_config.json").write_text(json.dumps(content, indent=4, sort_keys=True) + "\n")
    write_shards(source, output / "weights", neuron["tp_degree"])


def load(given: argparse.Namespace, installed: Stack, devices: Silicon, knobs: Faults) -> Loaded:
    """Load pre-compiled artifacts, or silently compile the model again: only the log tells which."""
    source, degree = Path(given.model), given.tensor_parallel_size
    if degree > devices.available_cores():
        raise ToolError(
            "RuntimeError", f"nrt_init: {degree} of {devices.available_cores()} Neuron cores needed."
        )
    neuron: dict[str, Any] = {
        "tp_degree": degree,
        "batch_size": given.max_num_seqs or 1,
        "max_batch_size": given.max_num_seqs or 1,
        "seq_len": given.max_model_len or 2048,
        "max_context_length": given.max_model_len or 2048,
        "target": devices.target,
    }
    extra = json.loads(given.additional_config or "{}").get("override_neuron_config", {})
    compiled = Path(os.environ.get("NEURON_COMPILED_ARTIFACTS", source / "neuron-compiled-artifacts"))
    try:
        if knobs.recompile:
            raise ToolError("FileNotFoundError", f"{compiled} does not match the model")
        found = _artifacts(compiled, neuron, installed)
        logs.vllm(
            f"Successfully loaded pre-compiled model artifacts from {compiled}",
            place="neuronx_distributed.py:300",
        )
    except ToolError as error:
        logs.vllm(f"Exception: {error}", "WARNING", "neuronx_distributed.py:310")
        logs.vllm(f"Unable to find precompiled artifacts from {compiled}. Recompiling...", "WARNING")
        compiled = Path(tempfile.mkdtemp(prefix="neuron-compiled-artifacts-"))
        compile_model(source, compiled, neuron | extra, devices.target)
        found = neuron
    weights = compiled / "weights"
    for path in sorted(weights.glob("*.safetensors")):
        check_safetensors(path)
    size = sum(path.stat().st_size for path in weights.glob("*.safetensors"))
    return settle(
        model_config(source),
        weights,
        size,
        devices,
        degree=degree,
        max_model_len=found["seq_len"],
        max_num_seqs=found["max_batch_size"],
    )


def _artifacts(folder: Path, wanted: dict[str, Any], installed: Stack) -> dict[str, Any]:
    """The configuration of compiled artifacts that fit what is wanted; raises ToolError when they do not."""
    try:
        content = json.loads((folder / "neuron_config.json").read_text())
    except (OSError, ValueError) as error:
        raise ToolError("FileNotFoundError", str(error)) from None
    read_model(folder / "model.pt")
    found: dict[str, Any] = content["neuron_config"]
    if content.get("neuronxcc_version") != installed.neuronxcc:
        raise ToolError("ValueError", f"artifacts of neuronx-cc {content.get('neuronxcc_version')}")
    for key in ("tp_degree", "max_batch_size", "seq_len", "target"):
        if found.get(key) != wanted[key]:
            raise ToolError("ValueError", f"{key} of the artifacts is {found.get(key)}, not {wanted[key]}")
    if not (folder / "weights").is_dir():
        raise ToolError("FileNotFoundError", f"{folder / 'weights'} does not exist")
    return found
