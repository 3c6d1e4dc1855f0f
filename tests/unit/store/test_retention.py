"""Which releases stay ready, whatever else is true of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.store.retention import Fact, Pointer, Policy, kept

NAMES = ["r0", "r1", "r2", "r3", "r4"]
STATES = st.sampled_from(["running", "promoted", "rolled_back", "failed", "of a newer Trainyard"])
FACTS = st.lists(STATES, min_size=5, max_size=5).flatmap(
    lambda states: st.lists(st.integers(1, 28), min_size=5, max_size=5).map(
        lambda days: [
            Fact("m", name, state, f"2026-01-{day:02}T00:00:00Z")
            for name, state, day in zip(NAMES, states, days, strict=True)
        ]
    )
)
NAME = st.none() | st.sampled_from(NAMES)
POINTERS = st.builds(Pointer, NAME, NAME, NAME, st.permutations(NAMES).map(tuple))


@settings(deadline=None)
@given(facts=FACTS, pointer=POINTERS, good=st.integers(1, 5))
def test_what_serves_runs_or_is_good_enough_is_kept_and_the_rest_only_while_it_is_young(
    facts: list[Fact], pointer: Pointer, good: int
) -> None:
    oldest = "2026-01-15T00:00:00Z"
    found = {name for _, name in kept(facts, {"m": pointer}, Policy(good=good), oldest)}
    state = {fact.release: fact.state for fact in facts}
    last = [name for name in reversed(pointer.promoted) if state[name] == "promoted"][:good]
    over = {"promoted", "rolled_back", "failed"}
    wanted = {
        *({pointer.stable, pointer.previous, pointer.holder} - {None}),
        *last,
        *(fact.release for fact in facts if fact.state not in over or fact.at >= oldest),
    }
    assert found == wanted


def test_models_do_not_count_for_each_other() -> None:
    facts = [Fact(model, f"{model}-1", "promoted", "2020-01-01T00:00:00Z") for model in ("a", "b")]
    assert len(kept(facts, {}, Policy(good=1), "2026-01-01T00:00:00Z")) == 2
