"""Buckets: the sizes that graphs are compiled for; a step takes the smallest one that holds it."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from local.shims.logs import ToolError

SMALLEST_PROMPT = 128
DEFAULT_BATCHED_TOKENS = 8192  # vLLM's; never more than max_model_len on this platform
SEGMENTS = (512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class Buckets:
    """Prompt tokens and running sequences."""

    tokens: tuple[int, ...]
    sequences: tuple[int, ...]

    def names(self) -> list[str]:
        """As metrics label them."""
        return [f"prefill_s{size}" for size in self.tokens] + [f"decode_b{size}" for size in self.sequences]

    def prefill(self, tokens: int) -> str:
        """The bucket of a prompt; one longer than the largest is encoded in pieces of it."""
        return f"prefill_s{self.tokens[min(bisect_left(self.tokens, tokens), len(self.tokens) - 1)]}"

    def decode(self, running: int) -> str:
        return f"decode_b{self.sequences[min(bisect_left(self.sequences, running), len(self.sequences) - 1)]}"


def buckets(settings: dict[str, Any], *, batched_tokens: int, sequences: int) -> Buckets:
    """The buckets of `neuron_config`, or the defaults; raises ToolError for lists that do not fit."""
    segments = settings.get("kv_segment_size_buckets")
    if segments is not None and not set(segments) <= set(SEGMENTS):
        raise ToolError("ValueError", f"kv_segment_size_buckets must be in {set(SEGMENTS)}, got {segments}")
    tokens = settings.get("num_batched_tokens_buckets", powers(SMALLEST_PROMPT, batched_tokens))
    batches = settings.get("num_seqs_buckets", powers(1, sequences))
    return Buckets(
        _checked("num_batched_tokens_buckets", tokens, "max_num_batched_tokens", batched_tokens),
        _checked("num_seqs_buckets", batches, "max_num_seqs", sequences),
    )


def powers(low: int, high: int) -> list[int]:
    """Powers of two from `low`, and `high` itself."""
    found = []
    while low < high:
        found.append(low)
        low *= 2
    return [*found, high]


def _checked(name: str, given: Any, limit_name: str, limit: int) -> tuple[int, ...]:
    if not isinstance(given, list) or not given:
        raise ToolError("ValueError", f"{name} must be a non-empty list, got {given}")
    for index, size in enumerate(given):
        if not isinstance(size, int) or isinstance(size, bool):
            raise ToolError("ValueError", f"{name}[{index}] must be an integer, got {size}")
        if size <= 0:
            raise ToolError("ValueError", f"{name}[{index}] must be positive, got {size}")
    if any(after <= before for before, after in itertools.pairwise(given)):
        raise ToolError("ValueError", f"{name} must be in strictly ascending order, got {given}")
    if given[-1] != limit:
        raise ToolError(
            "ValueError", f"Last bucket in {name} must equal {limit_name} ({limit}), got {given[-1]}"
        )
    return tuple(given)
