"""The published configs and weights of the catalogue's models (tests/data/models)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.models import PaperHub
from trainyard.neuron.models import ModelFacts, Weights, read_facts

REPOSITORY = Path(__file__).parents[2]
MODELS = REPOSITORY / "tests" / "data" / "models"
CATALOGUE = REPOSITORY / "include" / "releases"
REFUSED = REPOSITORY / "tests" / "data" / "refused"
REPOS = sorted(path.name.replace("--", "/", 1) for path in MODELS.iterdir() if path.is_dir())

_SHARD = 5 * 10**9


def config_of(repo: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_folder(repo) / "config.json").read_text())
    return found


def weights_of(repo: str) -> Weights:
    return Weights.counted(_weights(repo)["parameters"])


def total_size(repo: str) -> int:
    """Bytes, as the index of its shards says."""
    return int(_weights(repo)["total_size"])


def facts_of(repo: str) -> ModelFacts:
    """Without `auto_map`: what would be known if an engine shipped the architecture."""
    config = {key: value for key, value in config_of(repo).items() if key != "auto_map"}
    return read_facts(config, weights_of(repo), gated=_weights(repo)["gated"])


def paper_hub(repo: str) -> PaperHub:
    """A Hub that has this model, in shards of at most 5 GB as published ones are."""
    found = _weights(repo)
    sizes = [_SHARD] * (found["total_size"] // _SHARD) + [found["total_size"] % _SHARD]
    names = (f"model-{number:05}-of-{len(sizes):05}.safetensors" for number in range(1, len(sizes) + 1))
    return PaperHub(
        config=config_of(repo),
        shards=dict(zip(names, sizes, strict=True)),
        parameters=found["parameters"],
        licence=found["gated"],
    )


def _folder(repo: str) -> Path:
    return MODELS / repo.replace("/", "--", 1)


def _weights(repo: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_folder(repo) / "weights.json").read_text())
    return found
