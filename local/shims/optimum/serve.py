"""`optimum-cli neuron serve`: check the exported model against the flags, then run vLLM's server."""

from __future__ import annotations

import argparse
from pathlib import Path

from local.shims import logs
from local.shims.logs import ToolError
from local.shims.optimum import hub_cache
from local.shims.optimum.config import model_config, read_neuron_config
from local.shims.server.options import parse
from local.shims.silicon import Silicon, silicon
from local.shims.versions import OPTIMUM, stack

SETTINGS = (
    # name of the flag, key in neuron_config.json, name in the message
    ("batch_size", "batch_size", "batch_size"),
    ("sequence_length", "sequence_length", "sequence length"),
    ("tensor_parallel_size", "tp_degree", "tensor parallel size"),
)


def serve(given: argparse.Namespace, others: list[str]) -> int:
    """Serve `given.model`; `others` are arguments for vLLM. Raises ToolError as the real command fails."""
    from local.shims.server.vllm import run

    installed, devices = stack(OPTIMUM), silicon()
    if not devices.present:
        raise ToolError("RuntimeError", "No Neuron device detected.")
    name = given.served_model_name or given.model
    if name != given.model:
        logs.neuron(f"Serving model {name} at path {given.model}")
    folder = Path(given.model)
    config = model_config(folder)
    neuron = read_neuron_config(folder, installed)
    if neuron is None:
        settings = _without_export(given, devices)
    else:
        if neuron["target"] != devices.target:
            raise ToolError(
                "ValueError",
                f"The neuron model is compiled for {neuron['target']} and cannot run on a "
                f"{devices.target} instance.",
            )
        settings = {}
        for flag, key, words in SETTINGS:
            asked = getattr(given, flag)
            if asked is not None and asked != neuron[key]:
                raise ToolError(
                    "ValueError",
                    f"The specified {words} {asked} is inconsistent"
                    f"with the one used to export the neuron model ({neuron[key]})",
                )
            settings[flag] = neuron[key]
        logs.neuron(f"Loading Neuron model: {given.model}")
    command = ["--model", given.model, "--served-model-name", name, "--task", given.task]
    command += ["--port", str(given.port), "--tensor-parallel-size", str(settings["tensor_parallel_size"])]
    command += ["--max-num-seqs", str(settings["batch_size"])]
    command += ["--max-model-len", str(settings["sequence_length"])]
    command += ["--dtype", str(config.get("torch_dtype") or "bfloat16")]
    if given.allow_non_cached_model:
        command.append("--model-loader-extra-config=allow_non_cached_model")
    parsed = parse([*command, *others], installed)
    # A second name after --served-model-name arrives here as a positional argument, which this entry
    # point of vLLM does not read: only the first name is served.
    if parsed.model_tag is not None:
        logs.neuron(
            f"The positional argument {parsed.model_tag!r} has no effect: one served name only.", "WARNING"
        )
        parsed.model_tag = None
    return run(parsed, installed)


def _without_export(given: argparse.Namespace, devices: Silicon) -> dict[str, int]:
    """Settings for a checkpoint that was not exported: a registered configuration, or defaults if allowed."""
    asked = {flag: getattr(given, flag) for flag, _, _ in SETTINGS}
    found = [
        entry
        for entry in hub_cache.entries(
            given.model,
            target=devices.target,
            batch_size=asked["batch_size"],
            sequence_length=asked["sequence_length"],
            degree=asked["tensor_parallel_size"],
        )
        if entry["tp_degree"] <= devices.available_cores()
    ]
    if found:
        best = max(
            found, key=lambda entry: [entry[key] for key in ("tp_degree", "batch_size", "sequence_length")]
        )
        return {flag: best[key] for flag, key, _ in SETTINGS}
    if not given.allow_non_cached_model:
        wanted = "".join(
            f", {words} = {asked[flag]}" for flag, _, words in SETTINGS if asked[flag] is not None
        )
        name = given.served_model_name or given.model
        raise hub_cache.not_cached(f"{name} instance type {devices.target}{wanted}")
    defaults = {"batch_size": 1, "sequence_length": 2048, "tensor_parallel_size": devices.available_cores()}
    logs.neuron(
        f"{given.model} is not a neuron model, and no cached configuration is available. "
        "The compilation might fail or the model might not fit on the target instance.",
        "WARNING",
    )
    return {flag: asked[flag] or default for flag, default in defaults.items()}
