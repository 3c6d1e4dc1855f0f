"""What a compilation depends on: the model's graph, not the values of its weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

# Keys of config.json that say where a model comes from, not what its graph is.
PROVENANCE = {"_name_or_path", "transformers_version", "architectures", "auto_map", "_commit_hash"}


@dataclass(frozen=True)
class Graph:
    """One HLO module: its key (`context_encoding_model`), serialized content and compiler flags.

    Keys are unique in a model: that of a bucket ends with the bucket.
    """

    key: str
    hlo: bytes
    flags: tuple[str, ...]

    @property
    def module(self) -> str:
        """`MODULE_<hlo hash>+<flags hash>`, its name in the compile cache."""
        flags = hashlib.sha256("\0".join(self.flags).encode()).hexdigest()
        return f"MODULE_{hashlib.sha256(self.hlo).hexdigest()[:20]}+{flags[:8]}"


def decoder_graphs(config: dict[str, Any], neuron_config: dict[str, Any], flags: list[str]) -> list[Graph]:
    """The two graphs of a decoder: one encodes a prompt, one generates a token for the whole batch."""
    shapes = {
        key: value
        for key, value in neuron_config.items()
        if key not in ("checkpoint_id", "checkpoint_revision", "neuronxcc_version")
    }
    keys = ("context_encoding_model", "token_generation_model")
    return [module(key, config, shapes, flags) for key in keys]


def module(
    key: str, config: dict[str, Any], shapes: dict[str, Any], flags: list[str], bucket: int | None = None
) -> Graph:
    """One graph of the model in `config`. `shapes` is all that the graph depends on besides."""
    model = {name: value for name, value in config.items() if name not in PROVENANCE}
    content: dict[str, Any] = {"key": key, "model": model, "neuron": shapes}
    if bucket is not None:
        content["bucket"] = bucket
        key = f"{key}_bk{bucket}"
    # The prefix stands for the protobuf envelope of a HloModuleProto.
    hlo = b"\n\x1fHloModuleProto\x12" + json.dumps(content, sort_keys=True).encode()
    return Graph(key, hlo, tuple(flags))


def parameters(config: dict[str, Any]) -> int:
    """Rough number of parameters of a decoder, for the timing model."""
    hidden = int(config.get("hidden_size", 1024))
    layers = int(config.get("num_hidden_layers", 1))
    return layers * (4 * hidden * hidden + 3 * hidden * int(config.get("intermediate_size", 4 * hidden)))
