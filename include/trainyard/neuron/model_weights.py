"""What published weights say of themselves: how many numbers of which dtype, how many bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainyard.errors import Problem, Refused

# Bits of one number, by safetensors' names. F4, F6 and the packed integers are left to whoever packs them.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
# Enough for every model there is a thousand times over; a hostile index says anything.
MOST_BYTES = 1 << 60

WeightsFrom = Literal["headers", "index", "config"]


@dataclass(frozen=True)
class Weights:
    """What the published weights say of themselves.

    total: bytes of all tensors. parameters: numbers by dtype as safetensors spells it (BF16, F8_E4M3, …);
    empty where only the total is known. source: "headers" of the shards (also as the Hub read them), or
    their "index".
    """

    total: int
    parameters: Mapping[str, int] = field(default_factory=dict)
    source: WeightsFrom = "headers"

    @staticmethod
    def counted(counts: Mapping[str, int]) -> Weights:
        """From numbers by dtype. Raises Refused for a dtype of unknown size."""
        unknown = sorted(str(name) for name in counts if name not in _BITS)
        if unknown:
            raise Refused(
                Problem("model.weights", unknown[0], "safetensors has no such dtype", "Publish it anew.")
            )
        return Weights(sum(-(-number * _BITS[name] // 8) for name, number in counts.items()), dict(counts))


def weights_of_index(index: Mapping[str, Any]) -> Weights | None:
    """From a model.safetensors.index.json; None where it does not say how much there is."""
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    # Some tools write the size as 1.5e10.
    if isinstance(total, float) and total.is_integer():
        total = int(total)
    if isinstance(total, bool) or not isinstance(total, int) or not 0 < total <= MOST_BYTES:
        return None
    return Weights(total, source="index")
