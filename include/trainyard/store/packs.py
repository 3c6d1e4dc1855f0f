"""Which files of a tree go together into one blob. A request a file is what makes trees of small files slow.

Packs follow the order of paths, so the same files make the same packs, and the same packs are one blob.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Larger files keep a blob of their own, which other trees may share.
MOST_IN_A_PACK = 256 << 10
# One request each way, and little enough to be held in memory.
PACK_BYTES = 8 << 20
# Fewer small files than this are not worth it: as blobs of their own, other bundles share them.
LEAST_FILES = 64


@dataclass(frozen=True)
class Grouped:
    """Indices into what was given. packs: files that go together, in order; alone: the others."""

    packs: tuple[tuple[int, ...], ...]
    alone: tuple[int, ...]


def group(sizes: Sequence[int]) -> Grouped:
    """Packs for files of these sizes (bytes), which are given in the order of their paths."""
    small = [index for index, size in enumerate(sizes) if size <= MOST_IN_A_PACK]
    if len(small) < LEAST_FILES:
        return Grouped((), tuple(range(len(sizes))))
    packs = tuple(_filled(small, sizes))
    packed = set(small)
    return Grouped(packs, tuple(index for index in range(len(sizes)) if index not in packed))


def _filled(small: Iterable[int], sizes: Sequence[int]) -> Iterable[tuple[int, ...]]:
    held: list[int] = []
    total = 0
    for index in small:
        if held and total + sizes[index] > PACK_BYTES:
            yield tuple(held)
            held, total = [], 0
        held.append(index)
        total += sizes[index]
    if held:
        yield tuple(held)
