"""`optimum-cli export neuron` for decoders: configuration, two graphs, `model.pt`, sharded weights."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from local.shims import logs
from local.shims.compiler.builder import compile_all
from local.shims.compiler.graph import decoder_graphs
from local.shims.compiler.traced import write_model
from local.shims.logs import ToolError
from local.shims.optimum.config import check_degree, check_supported, model_config, neuron_config
from local.shims.silicon import TARGETS, silicon
from local.shims.versions import OPTIMUM, stack

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model")
COPIED_FILES = (*TOKENIZER_FILES, "generation_config.json", "chat_template.jinja")
TENSORIZER_OPTIONS = "--enable-ccop-compute-overlap --cc-pipeline-tiling-factor=2 --vectorize-strided-dma "
CAST_TYPES = {"bf16": "bfloat16", "fp16": "float16", "tf32": "float32"}


def compiler_flags(target: str) -> list[str]:
    """What decoders are always compiled with, whatever the command line says."""
    lnc = 2 if target == "trn2" else 1
    tensorizer = f"--tensorizer-options={TENSORIZER_OPTIONS}"
    return ["--auto-cast=none", "--model-type=transformer", tensorizer, "-O2", f"--lnc={lnc}"]


def export(given: argparse.Namespace) -> None:
    """Compile the model and write the exported directory; raises ToolError as the real command fails."""
    task = "text-generation" if given.task == "auto" else given.task
    source, checkpoint = _source(given.model)
    older = "instance_type" not in given
    if older:
        target, degree = override_target(), given.num_cores or silicon().available_cores()
        if not degree:
            raise ToolError(
                "ZeroDivisionError", "integer division or modulo by zero"
            )  # no cores to share among
    else:
        target = TARGETS[given.instance_type] if given.instance_type else silicon().target
        degree = given.tensor_parallel_size
    export_model(
        source,
        given.output,
        task=task,
        target=target,
        batch_size=given.batch_size or 1,
        sequence_length=given.sequence_length,
        degree=degree,
        checkpoint=checkpoint,
        dtype=CAST_TYPES[given.auto_cast_type] if older else None,
    )


def override_target() -> str:
    """What optimum-neuron before 0.4 compiles for: the override of the platform, else the instance."""
    named = os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE") or silicon().target
    if named not in TARGETS and named not in TARGETS.values():
        raise ToolError(
            "RuntimeError",
            f"Unsupported Platform - {named or 'unknown'}: set NEURON_PLATFORM_TARGET_OVERRIDE on hosts "
            "without Neuron devices.",
        )
    return TARGETS.get(named, named)


def export_model(
    source: Path,
    output: Path,
    *,
    task: str,
    target: str,
    batch_size: int,
    sequence_length: int | None,
    degree: int,
    checkpoint: tuple[str | None, str | None] = (None, None),
    dtype: str | None = None,
    weights: bool = True,
) -> dict[str, Any]:
    """Compile what is in `source` into `output` and return its neuron_config.

    `checkpoint` is (Hub id, commit) for a Hub model: its weights are then not part of the export. `dtype`:
    None takes that of the model's configuration.
    """
    installed = stack(OPTIMUM)
    config = model_config(source)
    check_supported(config, task, installed)
    check_degree(config, degree, target)
    neuron = neuron_config(
        installed=installed,
        checkpoint=checkpoint,
        batch_size=batch_size,
        sequence_length=sequence_length or min(int(config.get("max_position_embeddings", 1024)), 4096),
        degree=degree,
        dtype=dtype or str(config.get("torch_dtype") or config.get("dtype") or "bfloat16"),
        target=target,
    )
    _set_target(target)
    graphs = decoder_graphs(config, neuron, compiler_flags(target))
    neffs = compile_all(graphs, target, installed.neuronxcc)
    output.mkdir(parents=True, exist_ok=True)
    _write_json(output / "config.json", config | {"torch_dtype": neuron["torch_dtype"]})
    _write_json(output / "neuron_config.json", neuron)
    write_model(output / "model.pt", neffs)
    if checkpoint[0] is None and weights:
        from local.shims.compiler.shards import write_shards

        logs.neuron(f"Sharding weights for ranks: 0...{degree - 1}")
        write_shards(source, output / "checkpoint" / "weights", degree)
    for name in COPIED_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, output / name)
    if not (source / "tokenizer_config.json").exists():
        logs.neuron(f"No tokenizer found while exporting {source}.")
    return neuron


def _source(model: str) -> tuple[Path, tuple[str | None, str | None]]:
    """The folder with the model's configuration and tokenizer, and the Hub checkpoint for a Hub id."""
    if Path(model).is_dir():
        return Path(model), (None, None)
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        revision = HfApi().model_info(model).sha
        patterns = ["*.json", "*.jinja", "tokenizer.model"]
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns)), (model, revision)
    except (HfHubHTTPError, HFValidationError) as error:
        raise ToolError(
            "OSError",
            f"{model} is not a local folder and is not a valid model identifier listed on "
            f"'https://huggingface.co/models': {error}",
        ) from None


def _set_target(target: str) -> None:
    devices = silicon()
    if not devices.present:
        logs.neuron(f"Setting the compilation target to {target}.")
    elif devices.target != target:
        logs.neuron(f"The current instance type is {devices.target}, but we are compiling for {target}.")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
