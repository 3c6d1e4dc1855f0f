"""A change that begins with the version seen last: fewer requests, and never another outcome."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.memory_objects import MemoryObjects
from trainyard.store.ledger import Ledger
from trainyard.store.objects import Stored

MODEL, RELEASE = "llama", "llama-1"


class CountedObjects(MemoryObjects):
    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get(self, key: str) -> Stored:
        self.reads += 1
        return super().get(key)


def ledger() -> tuple[Ledger, CountedObjects]:
    objects = CountedObjects()
    found = Ledger(objects)
    found.create(MODEL, RELEASE, {"schema": 1, "seen": []})
    return found, objects


def add(name: str) -> Any:
    return lambda document: {**document, "seen": [*document["seen"], name]}


def test_a_known_version_spares_the_read() -> None:
    records, objects = ledger()
    known = records.read(MODEL, RELEASE)
    objects.reads = 0
    for name in ("a", "b", "c"):
        known = records.update(MODEL, RELEASE, add(name), known=known)
    assert objects.reads == 0
    assert records.read(MODEL, RELEASE).document["seen"] == ["a", "b", "c"]


def test_what_others_wrote_meanwhile_is_kept() -> None:
    records, _ = ledger()
    stale = records.read(MODEL, RELEASE)
    records.update(MODEL, RELEASE, add("theirs"))
    records.update(MODEL, RELEASE, add("ours"), known=stale)
    assert records.read(MODEL, RELEASE).document["seen"] == ["theirs", "ours"]


def test_a_change_that_a_stale_version_does_not_need_is_still_made() -> None:
    records, _ = ledger()
    stale = records.read(MODEL, RELEASE)
    records.update(MODEL, RELEASE, add("theirs"))
    records.update(MODEL, RELEASE, lambda document: {**document, "seen": []}, known=stale)
    assert records.read(MODEL, RELEASE).document["seen"] == []


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=5))
def test_the_outcome_is_the_same_with_and_without_a_known_version(steps: list[tuple[bool, bool]]) -> None:
    """Each step: whether it begins with the version seen last, and whether others write before it."""
    records, _ = ledger()
    seen, expected = records.read(MODEL, RELEASE), []
    for number, (known, interrupted) in enumerate(steps):
        if interrupted:
            records.update(MODEL, RELEASE, add(f"theirs-{number}"))
            expected.append(f"theirs-{number}")
        seen = records.update(MODEL, RELEASE, add(f"ours-{number}"), known=seen if known else None)
        expected.append(f"ours-{number}")
        assert seen.document["seen"] == expected
    assert records.read(MODEL, RELEASE).document["seen"] == expected
