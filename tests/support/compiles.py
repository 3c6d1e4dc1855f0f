"""Compile jobs around the stand-in of optimum's tool, and what they leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.checkpoints.checkpoint import write_checkpoint
from tests.local.shims.conftest import environment, export_command
from trainyard.store.compile_cache import CompileCache
from trainyard.store.objects import Objects

KEY = "c0ffee"
HISTORY = "history/compiles/optimum-trn2.json"
# Longer than anything here hangs: who is silent for so long is taken for dead.
LEASE_SECONDS = 15
Job = dict[str, Any]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "model", seed=1)


@pytest.fixture
def make(tiny: Path, store: Objects, tmp_path: Path) -> Callable[..., Job]:
    """A compile job of its own disk: `disk` names it, what is given by keyword replaces or adds."""

    def _make(disk: str, *, faults: dict[str, Any] | None = None, **fields: Any) -> Job:
        place = tmp_path / disk
        place.mkdir(exist_ok=True)
        env = environment(place, faults=faults or {"compile_seconds": 0}, **fields.pop("env", {}))
        return {
            "bucket": store.bucket,
            "fingerprint": "f1",
            "attempt": disk,
            "model_dir": str(tiny),
            "output_dir": str(place / "out"),
            "command": [str(word) for word in export_command(tiny, place / "out")],
            "env": env | {"HF_HUB_OFFLINE": "1"},
            "log_key": f"logs/{disk}.log",
            "expect": ["model.pt"],
            "cache": {
                "kind": "neuronx",
                "dir": str(place / "cache"),
                "key": KEY,
                "lease_seconds": LEASE_SECONDS,
            }
            | fields.pop("cache", {}),
            "history": {"key": HISTORY, "shape": {"family": "llama"}},
            **fields,
        }

    return _make


def counts(result: Job) -> tuple[int, int, int, int]:
    """Graphs compiled and cached, entries from and to S3."""
    told = result["compile"]
    return (
        told["graphs"]["compiled"],
        told["graphs"]["cached"],
        told["cache"]["brought"],
        told["cache"]["kept"],
    )


def modules(store: Objects) -> dict[str, str]:
    return {entry.module: entry.by for entry in CompileCache(store, KEY).read().entries}


def log_of(store: Objects, disk: str) -> str:
    return store.get(f"logs/{disk}.log").body.decode()


def compiling(store: Objects, holder: str) -> bool:
    """Whether this pod is the key's writer now."""
    stored = store.get_or_none(CompileCache(store, KEY).writer_key)
    document = json.loads(stored.body) if stored else {}
    return document.get("holder") == holder and not document.get("released")
