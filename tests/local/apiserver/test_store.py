from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.apiserver.errors import ApiError
from local.apiserver.store import Store, Subscription

WHERE = ("", "things")


def make(namespace: str, name: str, value: int = 0) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}, "value": value}


WRITES = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.booleans(), st.integers(0, 3)))


@settings(max_examples=40)
@given(WRITES)
def test_the_past_can_be_read_as_it_was(writes: list[tuple[str, str, bool, int]]) -> None:
    store, snapshots = Store(), dict[int, list[tuple[str, Any]]]()
    collection = store.collection(WHERE)
    for namespace, name, put, value in writes:
        obj = collection.get(f"{namespace}/{name}")
        if put:
            store.put(WHERE, make(namespace, name, value))
        elif obj is not None:
            store.remove(WHERE, obj)
        snapshots[store.revision] = list(collection.scan(None))
    for revision, seen in snapshots.items():
        assert collection.scan_at(None, revision) == seen
        assert collection.scan_at("a", revision) == [e for e in seen if e[0].startswith("a/")]


@settings(max_examples=40)
@given(WRITES)
def test_keys_stay_in_order_and_changes_carry_what_was_before(
    writes: list[tuple[str, str, bool, int]],
) -> None:
    store = Store()
    collection = store.collection(WHERE)
    subscription, mirror = Subscription(collection), dict[str, Any]()
    for namespace, name, put, value in writes:
        obj = collection.get(f"{namespace}/{name}")
        if put:
            store.put(WHERE, make(namespace, name, value))
        elif obj is not None:
            store.remove(WHERE, obj)
    keys = [k for k, _ in collection.scan(None)]
    assert keys == sorted(keys)
    while not subscription.queue.empty():
        change = subscription.queue.get_nowait()
        assert change is not None
        assert change.previous == mirror.get(change.key)
        assert (
            change.type == {True: "ADDED", False: "MODIFIED"}[change.key not in mirror]
            or change.type == "DELETED"
        )
        if change.type == "DELETED":
            del mirror[change.key]
        else:
            mirror[change.key] = change.object
    assert mirror == dict(collection.scan(None))


def test_a_namespace_does_not_reach_into_one_whose_name_it_begins() -> None:
    store = Store()
    for namespace in ("a", "a-b", "ab", "a0"):
        store.put(WHERE, make(namespace, "x"))
    assert [k for k, _ in store.collection(WHERE).scan("a")] == ["a/x"]


def test_history_is_bounded_and_what_is_forgotten_is_gone() -> None:
    store = Store(history=3)
    first = int(store.put(WHERE, make("a", "x"))["metadata"]["resourceVersion"])
    for value in range(4):
        store.put(WHERE, make("a", "x", value))
    collection = store.collection(WHERE)
    assert len(collection.since(store.revision - 3)) == 3
    with pytest.raises(ApiError) as error:
        collection.since(first)
    assert (error.value.code, error.value.reason) == (410, "Expired")


def test_a_collection_that_was_dropped_does_not_pretend_to_know_its_past() -> None:
    store = Store()
    before = int(store.put(WHERE, make("a", "x"))["metadata"]["resourceVersion"])
    store.drop(WHERE)
    with pytest.raises(ApiError):
        store.collection(WHERE).since(before)
