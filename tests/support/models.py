"""Models that need no disk: a Hub that knows what a model repository says, not its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.memory_objects import MemoryObjects
from trainyard.errors import NotFound
from trainyard.hub import About
from trainyard.hub_policy import HubFile
from trainyard.neuron.models import Weights
from trainyard.settings import Settings
from trainyard.stages.context import Context

GB = 10**9

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.1",
    "vocab_size": 128256,
}


@dataclass
class PaperHub:
    """The part of `trainyard.hub.Hub` that plan uses, over a description of one repository.

    shards: bytes by file name. Real Hubs are asked in tests/local; this one holds models of any size.
    """

    config: dict[str, Any] = field(default_factory=lambda: dict(LLAMA))
    shards: dict[str, int] = field(default_factory=lambda: {"model.safetensors": 16 * GB})
    seed: str = "one"
    others: tuple[str, ...] = ("tokenizer.json",)
    # By dtype, as the Hub spells it; empty: only the shards' sizes are known.
    parameters: dict[str, int] = field(default_factory=dict)
    licence: bool = False
    endpoint: str = "https://hub.example"

    @property
    def sha(self) -> str:
        return hashlib.sha1(f"{self.config}{self.shards}{self.seed}".encode()).hexdigest()

    def resolve(self, repo: str, revision: str) -> str:
        if revision not in ("main", "v2", self.sha):
            raise NotFound(f"{repo}@{revision}: no such revision.")
        return self.sha

    def read_json(self, repo: str, sha: str, path: str, max_bytes: int = 0) -> dict[str, Any]:
        assert path == "config.json"
        return dict(self.config)

    def files(self, repo: str, sha: str) -> list[HubFile]:
        found = [HubFile("config.json", 700, None, self._digest("config.json"))]
        found += [HubFile(name, 10, None, self._digest(name)) for name in self.others]
        for name, size in self.shards.items():
            found.append(HubFile(name, size, self._digest(name) * 1, self._digest(name)[:40]))
        return sorted(found)

    def about(self, repo: str, sha: str) -> About:
        return About(self.licence, None)

    def weights(self, repo: str, sha: str, files: Iterable[HubFile], about: About) -> Weights:
        if self.parameters:
            return Weights.counted(self.parameters)
        return Weights(sum(file.size for file in files if file.path.endswith(".safetensors")))

    def _digest(self, name: str) -> str:
        return hashlib.sha256(f"{name}{self.seed}".encode()).hexdigest()


def entry(**changes: Any) -> dict[str, Any]:
    """A catalogue entry that passes every rule; `changes` replace whole parts."""
    document: dict[str, Any] = {
        "name": "llama",
        "model": {"repo": "meta/llama", "revision": "main"},
        "engine": "optimum",
        "hardware": {"instance_type": "trn2.48xlarge", "nodepool": "neuron-trn2", "tensor_parallel": 8},
        "compile": {"batch_size": 8, "sequence_length": 4096, "memory": "64Gi"},
        "serving": {"name": "llama", "memory": "64Gi"},
        "rollout": {"steps": [{"weight": 10, "observe_seconds": 1}, {"weight": 50, "observe_seconds": 1}]},
    }
    return {**document, **changes}


def write_entry(folder: Path, document: dict[str, Any], name: str | None = None) -> Path:
    path = folder / f"{name or document['name']}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


class EmptyCluster:
    """A cluster without objects. What would change it is not there."""

    def find(self, kind: str, name: str, namespace: str | None) -> None:
        return None

    def create(self, body: dict[str, Any]) -> None:
        raise NotFound("no such namespace")


def paper_context(folder: Path, hub: PaperHub | None = None, **settings: Any) -> Context:
    """A context over a cluster that has nothing: for what plan works out before it touches one."""
    chosen = hub or PaperHub()
    return Context(
        settings=Settings(releases_dir=folder, **settings),
        objects=MemoryObjects(),
        cluster=EmptyCluster(),  # type: ignore[arg-type]
        make_hub=lambda: chosen,  # type: ignore[arg-type,return-value]
    )
