"""`optimum-cli neuron cache`: the registry of exports that somebody else has compiled already.

The real one is a Hub repository. Here it is a folder named by `LOCAL_NEURON_CACHE_REGISTRY` that holds
neuron_config.json files as `<org>/<name>/*.json`; unset, no model has cached entries.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from local.shims.logs import ToolError
from local.shims.silicon import TARGETS
from local.shims.versions import OPTIMUM, stack

DEFAULT_REPOSITORY = "aws-neuron/optimum-neuron-cache"
COLUMNS = ("batch size", "sequence length", "tensor parallel", "dtype", "instance type")


def entries(
    model: str,
    *,
    target: str | None = None,
    batch_size: int | None = None,
    sequence_length: int | None = None,
    degree: int | None = None,
    dtype: str | None = None,
) -> list[dict[str, Any]]:
    """Registered configurations of `model` that match: at least the batch and sequence, exactly the rest."""
    registry = os.environ.get("LOCAL_NEURON_CACHE_REGISTRY")
    if registry is None or Path(model).is_absolute():
        return []
    folder, installed = Path(registry) / model, stack(OPTIMUM)
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [
        entry
        for entry in found
        # The registry has a folder for each pair of versions, and only one's own is looked into.
        if entry["optimum_neuron_version"] == installed.optimum
        and entry["neuronxcc_version"] == installed.neuronxcc
        and target in (None, entry["target"])
        and degree in (None, entry["tp_degree"])
        and dtype in (None, entry["torch_dtype"])
        and (batch_size or 0) <= entry["batch_size"]
        and (sequence_length or 0) <= entry["sequence_length"]
    ]


def not_cached(wanted: str) -> ToolError:
    """The refusal of a model that was not exported; `wanted` names it and the settings asked for."""
    return ToolError(
        "ValueError",
        f"No cached version found for {wanted}."
        "You can start a discussion to request it on https://huggingface.co/aws-neuron/optimum-neuron-cache "
        "Alternatively, you can export your own neuron model "
        "as explained in https://huggingface.co/docs/optimum-neuron/main/en/guides/export_model",
    )


def run(given: argparse.Namespace) -> None:
    """`lookup` answers; the others need a Hub to write to, which there is none of here."""
    if given.cache_action != "lookup":
        raise ToolError(
            "huggingface_hub.errors.LocalTokenNotFoundError", "Token is required to call this API."
        )
    if given.repo_id not in (None, DEFAULT_REPOSITORY):
        raise ToolError(
            "huggingface_hub.errors.RepositoryNotFoundError",
            f"404 Client Error. Repository Not Found for url: {given.repo_id}.",
        )
    if given.task is None and Path(given.model_id).is_dir():
        raise ToolError(
            "RuntimeError",
            "Cannot infer the task from a local directory yet, please specify the task manually.",
        )
    if "instance_type" not in given:
        _print_all(given.model_id)
        return
    found = entries(
        given.model_id,
        target=TARGETS[given.instance_type] if given.instance_type else None,
        batch_size=given.batch_size,
        sequence_length=given.sequence_length,
        degree=given.tensor_parallel_size,
        dtype=given.dtype,
    )
    if not found:
        print(f"No cached entries found for {given.model_id}.")
        return
    keys = ("batch_size", "sequence_length", "tp_degree", "torch_dtype", "target")
    rows = {tuple(str(entry[key]) for key in keys) for entry in found}
    line = "{:^16}" * len(COLUMNS)
    print(f"Cached entries for {given.model_id}")
    print(line.format(*COLUMNS))
    for row in sorted(rows, key=lambda row: (int(row[2]), int(row[0]), int(row[1]), row[3])):
        print(line.format(*row))


def _print_all(model: str) -> None:
    """`lookup` before 0.4: every setting of every entry, whatever it was compiled for."""
    found = entries(model)
    output = f"\n*** {len(found)} entrie(s) found in cache for {model}.***\n\n"
    for entry in found:
        output += "".join(f"\n{key}: {value}" for key, value in entry.items()) + "\n"
    print(output)
