"""NeuronApplicationBase.compile: one graph a bucket, `model.pt`, and sharded weights when asked for.

<compiled>/neuron_config.json  model.pt  weights/tp{rank}_sharded_checkpoint.safetensors
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from local.shims import logs
from local.shims.compiler.builder import compile_all
from local.shims.compiler.graph import Graph, module
from local.shims.compiler.shards import weight_files, write_shards
from local.shims.compiler.traced import write_model
from local.shims.logs import ToolError
from local.shims.nxdi.config import NO_SHAPES, context_buckets, generation_buckets, save
from local.shims.nxdi.quantizing import write_quantized
from local.shims.optimum.config import check_degree, model_config
from local.shims.versions import NXDI, stack


def graphs(config: dict[str, Any], neuron: dict[str, Any]) -> list[Graph]:
    """Context encoding graphs, then token generation ones; their weights and places are no part of them."""
    shapes = {name: value for name, value in neuron.items() if name not in NO_SHAPES}
    return [
        module(tag, config, shapes, _flags(neuron, tag), bucket)
        for tag, sizes in (
            ("context_encoding_model", context_buckets(neuron)),
            ("token_generation_model", generation_buckets(neuron)),
        )
        for bucket in sizes
    ]


def _flags(neuron: dict[str, Any], tag: str) -> list[str]:
    """ModelWrapper's compiler arguments."""
    encoding = tag == "context_encoding_model"
    tiling = neuron["cc_pipeline_tiling_factor"] if encoding else 1
    tensorizer = (
        f"--enable-ccop-compute-overlap --cc-pipeline-tiling-factor={tiling} --vectorize-strided-dma "
    )
    options = " --modular-flow-mac-threshold=10 " if encoding else ""
    if neuron["quantized"] and neuron["quantization_dtype"] == "f8e4m3":
        options += " --experimental-unsafe-fp8e4m3fn-as-fp8e4m3 "
    return [
        "--auto-cast=none",
        "--model-type=transformer",
        f"--tensorizer-options={tensorizer}",
        f"--lnc={neuron['logical_nc_config']}",
        "-O1" if encoding else "-O2",
        f"--internal-hlo2tensorizer-options={options} --verify-hlo=true ",
    ]


def compile_application(source: Path, output: Path, neuron: dict[str, Any], target: str) -> None:
    """Quantize, compile and shard `source` into `output`; raises ToolError as the real one fails.

    neuron_config.json comes first: a failed compilation leaves it behind alone.
    """
    config = model_config(source)
    check_degree(config, neuron["tp_degree"], target)
    weights = source
    if neuron["quantized"]:
        weights = Path(neuron["quantized_checkpoints_path"])
        write_quantized(source, weights, neuron["quantization_type"], neuron["quantization_dtype"])
    save(config, neuron, source, output)
    logs.neuron(f"Saving the neuron_config to {output}/")
    neffs = compile_all(graphs(config, neuron), target, stack(NXDI).neuronxcc)
    write_model(output / "model.pt", neffs)
    if neuron["skip_sharding"]:
        logs.neuron("Pre-sharding the checkpoints is forced to be SKIPPED with skip_sharding.")
    elif not neuron["save_sharded_checkpoint"]:
        logs.neuron(
            "SKIPPING pre-sharding the checkpoints. The checkpoints will be sharded during load time."
        )
    else:
        logs.neuron("Pre-sharding checkpoints.")
        checkpoint_files(weights)
        write_shards(weights, output / "weights", neuron["tp_degree"])


def checkpoint_files(folder: Path) -> list[Path]:
    """The weights of a checkpoint; raises ToolError as `load_state_dict` words a folder without any."""
    if not any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        raise ToolError(
            "FileNotFoundError", f"Can not find model.safetensors or pytorch_model.bin in {folder}/"
        )
    return weight_files(folder)
