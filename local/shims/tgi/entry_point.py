"""`/tgi_entry_point.py` of the image: what the launcher is not told is taken from the export.

Source: backends/neuron/{tgi-entrypoint.sh,tgi_entry_point.py,server/text_generation_server/tgi_env.py}.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from local.shims.logs import ToolError
from local.shims.optimum.config import read_neuron_config
from local.shims.silicon import Silicon
from local.shims.versions import Stack

ROUTER = ("MAX_BATCH_SIZE", "MAX_TOTAL_TOKENS", "MAX_INPUT_TOKENS", "MAX_BATCH_PREFILL_TOKENS")
SERVER = ("HF_NUM_CORES", "HF_AUTO_CAST_TYPE")


def environment(arguments: list[str], installed: Stack, devices: Silicon) -> dict[str, str]:
    """Variables for the launcher; raises ToolError when the export and what is asked for do not agree."""
    asked = _asked(arguments)
    if all(asked.get(name) for name in (*SERVER, *ROUTER)):
        return {}  # the user knows what they are doing
    model = asked["MODEL_ID"]
    shown = {name: asked.get(name) for name in (*SERVER, *ROUTER)}
    known = (
        f"env {shown}, available cores {devices.available_cores()}, neuronxcc version {installed.neuronxcc}"
    )
    try:
        neuron = read_neuron_config(Path(model), installed)
    except ToolError:
        neuron = None
    if neuron is None:
        raise ToolError("Exception", f"No compatible neuron config found. Provided {known}")
    if not _compatible(neuron, asked, devices):
        raise ToolError("Exception", f"Invalid neuron config and env. Config {neuron}, {known}")
    most = asked.get("MAX_INPUT_TOKENS") or str(neuron["sequence_length"] // 2)
    prefill = asked.get("MAX_BATCH_PREFILL_TOKENS") or str(neuron["batch_size"] * int(most))
    return asked | {
        "MAX_BATCH_SIZE": str(neuron["batch_size"]),
        "MAX_TOTAL_TOKENS": str(neuron["sequence_length"]),
        "HF_NUM_CORES": str(neuron["tp_degree"]),
        "HF_AUTO_CAST_TYPE": str(neuron["torch_dtype"]),
        "MAX_INPUT_TOKENS": most,
        "MAX_BATCH_PREFILL_TOKENS": prefill,
    }


def _asked(arguments: list[str]) -> dict[str, str]:
    """The command line over the environment, by the names of variables."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in (*ROUTER, "MODEL_ID"):
        parser.add_argument(f"--{name.lower().replace('_', '-')}", dest=name, default=os.environ.get(name))
    given = vars(parser.parse_known_args(arguments)[0])
    found = {name: value for name, value in given.items() if value}
    found |= {name: os.environ[name] for name in SERVER if os.environ.get(name)}
    if "MODEL_ID" not in found:
        raise ToolError(
            "Exception",
            "No model id provided ! Either specify it using --model-id cmdline or MODEL_ID env var",
        )
    return found


def _compatible(neuron: dict[str, Any], asked: dict[str, str], devices: Silicon) -> bool:
    """Nothing larger than what was exported, the same dtype, and cores enough."""
    if neuron["tp_degree"] > devices.available_cores():
        return False
    for name, key in (
        ("MAX_BATCH_SIZE", "batch_size"),
        ("MAX_TOTAL_TOKENS", "sequence_length"),
        ("HF_NUM_CORES", "tp_degree"),
    ):
        if name in asked and neuron[key] < int(asked[name]):
            return False
    dtypes = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    cast = asked.get("HF_AUTO_CAST_TYPE")
    if cast and dtypes.get(cast, cast) != neuron["torch_dtype"]:
        return False
    return int(asked.get("MAX_INPUT_TOKENS", 0)) < int(neuron["sequence_length"])
