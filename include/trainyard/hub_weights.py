"""What the weights of a commit say of themselves: how many parameters of which dtype, how many bytes.

Three places say it, the cheapest first: the Hub's own summary of the headers, the index, the headers. The Hub
keeps one summary a repository, and indexes are written by many tools: neither is believed where the files of
this commit have another size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

from trainyard.errors import CorruptArtifact, NotFound, Refused
from trainyard.hub_headers import Header
from trainyard.hub_policy import HubFile
from trainyard.neuron.models import Weights, weights_of_index

INDEX = "model.safetensors.index.json"
# Headers say names, shapes and places of tensors: about 100 bytes each.
_HEADER = 1 << 20


def shards_of(files: Iterable[HubFile]) -> list[HubFile]:
    """The safetensors files, in path order."""
    return sorted(file for file in files if file.path.endswith(".safetensors"))


def of_summary(summary: Mapping[str, Any] | None, shards: list[HubFile]) -> Weights | None:
    """From the Hub's `safetensors` field ({"parameters": {"BF16": 8030261248}}); None: it does not fit."""
    counts = (summary or {}).get("parameters")
    if not isinstance(counts, Mapping) or not counts:
        return None
    if not all(
        isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in counts.values()
    ):
        return None
    try:
        return _fitting(Weights.counted(counts), shards)
    except Refused:  # a dtype that is newer than this code: the sizes of the files are known all the same
        return None


def of_index(read: Callable[[str], Mapping[str, Any]], shards: list[HubFile]) -> Weights | None:
    """From the index, where there is one and it agrees with the files. One shard alone has none."""
    if len(shards) < 2:
        return None
    try:
        found = weights_of_index(read(INDEX))
    except (CorruptArtifact, NotFound):
        return None
    return _fitting(found, shards) if found else None


def of_headers(headers: Iterable[Header]) -> Weights:
    """From the shards' headers themselves: exact."""
    counts: Counter[str] = Counter()
    total = 0
    for header in headers:
        total += header.data_bytes
        for tensor in header.tensors.values():
            counts[tensor.dtype] += prod(tensor.shape)
    return Weights(total, dict(counts))


def _fitting(found: Weights, shards: list[HubFile]) -> Weights | None:
    size = sum(file.size for file in shards)
    return found if found.total <= size <= found.total + _HEADER * len(shards) else None
