"""`optimum-cli export neuron` for decoders: configuration, two graphs, `model.pt`, sharded weights."""

from __future__ import annotations

import argparse
import json
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

from local.shims import logs
from local.shims.compiler.cache import compile_graph
from local.shims.compiler.graph import Graph, decoder_graphs
from local.shims.logs import ToolError
from local.shims.optimum.config import check_degree, check_supported, model_config, neuron_config
from local.shims.silicon import TARGETS, silicon
from local.shims.versions import OPTIMUM, stack

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model")
COPIED_FILES = (*TOKENIZER_FILES, "generation_config.json", "chat_template.jinja")
TENSORIZER_OPTIONS = "--enable-ccop-compute-overlap --cc-pipeline-tiling-factor=2 --vectorize-strided-dma "


def compiler_flags(target: str) -> list[str]:
    """What decoders are always compiled with, whatever the command line says."""
    lnc = 2 if target == "trn2" else 1
    tensorizer = f"--tensorizer-options={TENSORIZER_OPTIONS}"
    return ["--auto-cast=none", "--model-type=transformer", tensorizer, "-O2", f"--lnc={lnc}"]


def export(given: argparse.Namespace) -> None:
    """Compile the model and write the exported directory; raises ToolError as the real command fails."""
    task = "text-generation" if given.task == "auto" else given.task
    source, checkpoint = _source(given.model)
    export_model(
        source,
        given.output,
        task=task,
        target=TARGETS[given.instance_type] if given.instance_type else silicon().target,
        batch_size=given.batch_size or 1,
        sequence_length=given.sequence_length,
        degree=given.tensor_parallel_size,
        checkpoint=checkpoint,
    )


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
) -> dict[str, Any]:
    """Compile what is in `source` into `output` and return its neuron_config.

    `checkpoint` is (Hub id, commit) for a Hub model: its weights are then not part of the export.
    """
    config = model_config(source)
    check_supported(config, task)
    check_degree(config, degree, target)
    installed = stack(OPTIMUM)
    neuron = neuron_config(
        installed=installed,
        checkpoint=checkpoint,
        batch_size=batch_size,
        sequence_length=sequence_length or min(int(config.get("max_position_embeddings", 1024)), 4096),
        degree=degree,
        dtype=str(config.get("torch_dtype") or config.get("dtype") or "bfloat16"),
        target=target,
    )
    _set_target(target)
    graphs = decoder_graphs(config, neuron, compiler_flags(target))
    neffs = compile_all(graphs, target, installed.neuronxcc)
    output.mkdir(parents=True, exist_ok=True)
    _write_json(output / "config.json", config | {"torch_dtype": neuron["torch_dtype"]})
    _write_json(output / "neuron_config.json", neuron)
    write_model(output / "model.pt", neffs)
    if checkpoint[0] is None:
        from local.shims.compiler.shards import write_shards

        logs.neuron(f"Sharding weights for ranks: 0...{degree - 1}")
        write_shards(source, output / "checkpoint" / "weights", degree)
    for name in COPIED_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, output / name)
    if not (source / "tokenizer_config.json").exists():
        logs.neuron(f"No tokenizer found while exporting {source}.")
    return neuron


def compile_all(graphs: list[Graph], target: str, version: str) -> dict[str, bytes]:
    """The NEFF of each graph; the token generation graph goes first, its layouts bind the others."""
    began = time.monotonic()
    logs.neuron(f"Generating HLOs for the following models: {[graph.key for graph in graphs]}")
    for graph in graphs:
        time.sleep(0.05)
        logs.neuron(f"Finished generating HLO for {graph.key} in {time.monotonic() - began} seconds")
    logs.neuron("Starting compilation for the priority HLO")
    logs.neuron(f"{graphs[-1].key!r} is the priority model with bucket rank 0")
    logs.neuron(f"Neuron compiler flags: {' '.join(graphs[-1].flags)} --target {target}")
    neffs: dict[str, bytes] = {}
    for graph in reversed(graphs):
        neffs[graph.key] = compile_graph(graph, target, version)
        if len(neffs) == 1:
            logs.neuron(f"Done compilation for the priority HLO in {time.monotonic() - began} seconds")
            logs.neuron("Starting compilation for all HLOs")
    logs.neuron(f"Finished Compilation for all HLOs in {time.monotonic() - began} seconds")
    logs.neuron(f"Finished building model in {time.monotonic() - began} seconds")
    return neffs


def write_model(path: Path, neffs: dict[str, bytes]) -> None:
    """`model.pt`: a TorchScript archive (a zip) with the NEFFs inside, the same bytes for the same NEFFs."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        members = {
            "code/__torch__.py": b"class NxDModel(Module):\n  __parameters__ = []\n",
            "version": b"3\n",
        }
        members |= {f"neffs/{key}.neff": neff for key, neff in sorted(neffs.items())}
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"model/{name}", date_time=(1980, 1, 1, 0, 0, 0)), content)


def read_model(path: Path) -> list[str]:
    """Check `model.pt` and name its graphs; raises ToolError as torch words a missing or damaged archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ToolError(
                    "RuntimeError", f"PytorchStreamReader failed reading file {damaged}: file read failed"
                )
            return [Path(name).stem for name in archive.namelist() if name.endswith(".neff")]
    except FileNotFoundError:
        raise ToolError("ValueError", f"The provided filename {path} does not exist") from None
    except zipfile.BadZipFile:
        raise ToolError(
            "RuntimeError", "PytorchStreamReader failed reading zip archive: failed finding central directory"
        ) from None


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
