"""Pure parts of scheduling and rolling: quantities, requests, refusals, counts."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.client.kinds import Obj
from local.client.objects import parse_duration, with_condition
from local.client.placement import node_refusal, pod_requests, refusal_message, selects, tolerates
from local.client.quantity import format_quantity, parse_quantity
from local.controllers.rollout import Set, bounds, grow, shrink, template_hash


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"),
        ("2Ti", str(2 * 2**40)),
        ("1e3", "1000"),
        ("1.5G", "1500000000"),
        ("0", "0"),
        ("100u", "0.0001"),
    ],
)
def test_quantities_are_read_exactly(text: str, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "1 Gi", "Gi", "1KB", "0x10", "--1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        parse_quantity(text)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**50))
def test_bytes_survive_writing_and_reading(value: int) -> None:
    assert parse_quantity(format_quantity("memory", Decimal(value))) == value


def test_durations_are_go_s() -> None:
    assert parse_duration("1h30m") == 5400
    assert parse_duration("Never") is None
    with pytest.raises(ValueError, match="30s"):
        parse_duration("soon")


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    old = [{"type": "Ready", "status": "True", "reason": "A", "lastTransitionTime": "2020-01-01T00:00:00Z"}]
    same = with_condition(old, {"type": "Ready", "status": "True", "reason": "B"})
    other = with_condition(old, {"type": "Ready", "status": "False", "reason": "B"})
    assert same[0]["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    assert other[0]["lastTransitionTime"] > "2020"


def container(**requests: str) -> Obj:
    return {"resources": {"requests": requests}}


def test_init_containers_count_by_their_peak_and_sidecars_always() -> None:
    spec = {
        "containers": [container(cpu="1"), container(cpu="2")],
        "initContainers": [
            container(cpu="4"),
            {**container(cpu="500m"), "restartPolicy": "Always"},
            container(cpu="5"),
        ],
    }
    assert pod_requests({"spec": spec})["cpu"] == Decimal("5.5")
    del spec["initContainers"][2]
    assert pod_requests({"spec": spec})["cpu"] == Decimal(4)


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"value": "v"}, False),
    ],
)
def test_tolerations_cover_taints_as_in_kubernetes(toleration: Obj, covers: bool) -> None:
    assert tolerates([toleration], {"key": "k", "value": "v", "effect": "NoSchedule"}) is covers


def test_affinity_terms_are_alternatives_and_an_empty_one_selects_nothing() -> None:
    def pod(*terms: Obj) -> Obj:
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
        return {"spec": {"affinity": {"nodeAffinity": required}}}

    gold = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["gold"]}]}
    fast = {"matchExpressions": [{"key": "speed", "operator": "Gt", "values": ["5"]}]}
    assert selects(pod(gold, fast), {"speed": "6"})
    assert not selects(pod(gold, fast), {"speed": "5"})
    assert not selects(pod({}), {})


def test_refusals_are_worded_as_the_scheduler_words_them() -> None:
    def node(name: str, labels: dict[str, str] | None = None, taints: list[Obj] | None = None) -> Obj:
        return {
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {"taints": taints or []},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
        }

    pod = {"spec": {"containers": [container(cpu="3")], "nodeSelector": {"a": "b"}}}
    right = {"a": "b"}
    nodes = [
        (node("one"), {}),
        (node("two", right, [{"key": "t", "value": "v", "effect": "NoSchedule"}]), {}),
        (node("three", right), {"cpu": Decimal(2)}),
    ]
    refusals = {each["metadata"]["name"]: node_refusal(pod, each, used) for each, used in nodes}
    assert refusal_message({name: each for name, each in refusals.items() if each}) == (
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint(s). preemption: 0/3 nodes are available: "
        "1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
    )
    assert node_refusal(pod, node("four", right), {}) is None
    assert refusal_message({}) == "no nodes available to schedule pods"


def test_the_template_hash_ignores_its_own_label_and_nothing_else() -> None:
    template: Obj = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "x"}]}}
    marked = {**template, "metadata": {"labels": {"app": "a", "pod-template-hash": "z"}}}
    assert template_hash(template) == template_hash(marked)
    assert template_hash(template) != template_hash({**template, "spec": {}})
    assert template_hash(template) != template_hash(template, collisions=1)


counts = st.integers(0, 12)


@settings(deadline=None, max_examples=60)
@given(
    wanted=st.integers(1, 10),
    surge=st.integers(0, 4),
    unavailable=st.integers(0, 4),
    new=st.tuples(counts, counts),
    olds=st.lists(st.tuples(counts, counts), max_size=3),
)
def test_a_rolling_update_never_exceeds_the_surge_nor_gives_up_what_must_stay(
    wanted: int, surge: int, unavailable: int, new: tuple[int, int], olds: list[tuple[int, int]]
) -> None:
    if surge == unavailable == 0:
        unavailable = 1
    first = Set("new", new[0], min(new))
    others = [Set(str(index), each[0], min(each)) for index, each in enumerate(olds)]
    total = first.replicas + sum(each.replicas for each in others)
    grown = grow(wanted, surge, first, others)
    assert grown - first.replicas + total <= max(total, wanted + surge) or first.replicas > wanted
    after = shrink(wanted, unavailable, first, others)
    before = first.available + sum(each.available for each in others)
    # Unavailable pods go first, so what is lost of the available ones is what exceeds the minimum.
    left = first.available + sum(min(each.available, after[each.name]) for each in others)
    assert left >= min(before, wanted - unavailable)
    assert all(0 <= after[each.name] <= each.replicas for each in others)


@settings(deadline=None, max_examples=60)
@given(wanted=st.integers(1, 8), surge=st.integers(0, 3), unavailable=st.integers(0, 3))
def test_a_rolling_update_of_healthy_pods_ends(wanted: int, surge: int, unavailable: int) -> None:
    if surge == unavailable == 0:
        unavailable = 1
    new, old = Set("new", 0, 0), Set("old", wanted, wanted)
    for _ in range(100):
        new = Set("new", grow(wanted, surge, new, [old]), 0)
        new = Set("new", new.replicas, new.replicas)
        old_count = shrink(wanted, min(unavailable, wanted), new, [old])["old"]
        old = Set("old", old_count, old_count)
        if (new.replicas, old.replicas) == (wanted, 0):
            return
    raise AssertionError((new, old))


def test_percentages_round_surge_up_and_unavailable_down() -> None:
    rolling = {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    assert bounds({"replicas": 3, "strategy": rolling}) == (1, 0)
    assert bounds({"replicas": 1, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}) == (
        0,
        1,
    )
