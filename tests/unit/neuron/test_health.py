"""The judgement that is the same for every source: conditions, headroom, windows, CloudWatch's totals."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.errors import Refused
from trainyard.neuron.health import Expected, Health, judge
from trainyard.neuron.insights import parse_results, queries
from trainyard.neuron.readings import EXPORTER, INSIGHTS, MONITOR, Reading
from trainyard.neuron.window import Window

WELL = Reading(
    source=MONITOR,
    at=0.0,
    devices=2,
    runtimes=1,
    ecc={0: 0, 1: 0},
    utilization_percent=50.0,
    memory_bytes=60,
    memory_total_bytes=100,
)


def at(seconds: float, **changes: Any) -> Reading:
    return replace(WELL, at=seconds, **changes)


def health(*readings: Reading, conditions: Any = (), **expected: Any) -> tuple[str, str]:
    found = judge(readings, Expected(**{"devices": 2, **expected}), conditions)
    return found.state, "; ".join(found.reasons)


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        (
            {"type": "NeuronHealth", "status": "True", "reason": "NeuronHasError_HBM_UNCORRECTABLE_ERROR"},
            "sick",
        ),
        ({"type": "NeuronHealth", "status": "False", "reason": "NeuronHasError_DMA_ERROR"}, "sick"),
        ({"type": "NeuronHealth", "status": "False", "reason": "NeuronHasNoError"}, "healthy"),
        ({"type": "NeuronHealth", "status": "True", "reason": "NeuronHasNoError"}, "healthy"),
        ({"type": "AcceleratedHardwareReady", "status": "False", "reason": "NeuronDMAError"}, "sick"),
        (
            {
                "type": "AcceleratedHardwareReady",
                "status": "True",
                "reason": "NeuronAcceleratedHardwareIsReady",
            },
            "healthy",
        ),
        ({"type": "Ready", "status": "False", "reason": "KubeletNotReady"}, "healthy"),
    ],
)
def test_node_agents_condemn_by_their_reason_whatever_their_status_means(condition: Any, state: str) -> None:
    assert health(at(0), at(1), conditions=[condition])[0] == state


def test_a_condemned_node_is_sick_although_its_monitor_is_silent() -> None:
    condition = {"type": "NeuronHealth", "status": "True", "reason": "NeuronHasError_DMA_ERROR"}
    assert health(conditions=[condition]) == ("sick", "node condition NeuronHealth: NeuronHasError_DMA_ERROR")
    assert health()[0] == "unknown"


def test_the_least_memory_that_was_free_counts() -> None:
    assert health(at(0), at(1), least_free_memory=0.4)[0] == "healthy"
    assert health(at(0, memory_bytes=95), at(1), least_free_memory=0.4)[0] == "sick"


def test_a_node_that_serves_nothing_may_be_healthy_where_that_is_said() -> None:
    idle = at(0, runtimes=0), at(1, runtimes=0)
    assert health(*idle)[0] == "unknown"
    assert health(*idle, runtime=False)[0] == "healthy"


def test_readings_count_in_the_order_of_their_time() -> None:
    assert health(at(1, ecc={0: 1, 1: 0}), at(0))[0] == "sick"


@given(st.lists(st.sampled_from(["complaint", "ecc", "error", "time", "devices"]), min_size=1, max_size=3))
def test_more_that_is_wrong_never_makes_it_better(wrongs: list[str]) -> None:
    changes: dict[str, Any] = {}
    for wrong in wrongs:
        changes |= {
            "complaint": {"complaints": ("driver is gone",)},
            "ecc": {"ecc": {0: 1, 1: 0}},
            "error": {"errors": {"hardware": 1}},
            "time": {"timed_out": 1},
            "devices": {"devices": 1},
        }[wrong]
    assert health(at(0), at(1, **changes))[0] == "sick"


def test_a_window_has_to_be_watched_to_its_end() -> None:
    window = Window(Expected(devices=2), 30.0)
    window.add([at(0), at(1)])
    assert window.health().reasons == ("well so far, watched for 1 of 30 s",)
    window.add([at(31)])
    assert window.health().state == "healthy"
    window.add([at(32, errors={"hardware": 1})])
    assert window.health().state == "sick"


def test_a_long_wait_keeps_only_what_is_of_its_window() -> None:
    window = Window(Expected(devices=2), 30.0)
    for second in range(0, 10_000, 10):
        window.add([at(float(second))])
    assert window.health().facts["reports"] < 30


def test_an_old_growth_of_an_inexact_count_is_forgotten_and_a_new_one_is_not() -> None:
    window = Window(Expected(devices=2), 0.0)
    for second, count in ((0, 0), (10, 1), (500, 1), (510, 1)):
        window.add([at(float(second), source=EXPORTER, ecc={0: count, 1: 0})])
    assert window.health().state == "healthy"
    window.add([at(520.0, source=EXPORTER, ecc={0: 2, 1: 0})])
    assert window.health().state == "unknown"


def moments(*minutes: int) -> list[datetime]:
    return [datetime(2030, 1, 1, 12, minute, tzinfo=UTC) for minute in minutes]


def answer(**changes: Any) -> list[dict[str, Any]]:
    """MetricDataResults of a node with two devices, over two minutes."""
    values = {"errors": [0.0, 0.0], "memory": [1e9, 1e9], "used": [40.0, 60.0]} | changes.pop("values", {})
    ecc = {"device0": [0.0, 0.0], "device1": [0.0, 0.0]} | changes
    return [
        *(
            {"Id": key, "Label": key, "Timestamps": moments(0, 1), "Values": each}
            for key, each in values.items()
        ),
        *(
            {"Id": "ecc", "Label": key, "Timestamps": moments(0, 1), "Values": each}
            for key, each in ecc.items()
        ),
    ]


def insights(results: list[dict[str, Any]], **expected: Any) -> Health:
    return judge(parse_results(results), Expected(**{"devices": 2, **expected}))


def test_container_insights_can_clear_a_node() -> None:
    found = insights(answer())
    assert (found.state, found.reasons) == ("healthy", ())
    assert found.facts["source"] == INSIGHTS.name
    assert (found.facts["devices"], found.facts["utilization_percent"], found.facts["seconds"]) == (
        2,
        50.0,
        60.0,
    )


def test_container_insights_raises_doubts_and_never_condemns() -> None:
    found = insights(answer(device1=[0.0, 2.0]))
    assert found.state == "unknown"
    assert "device 1: CloudWatch Container Insights counts 2 ECC event(s)" in found.reasons[0]
    found = insights(answer(values={"errors": [1.0, 0.0]}))
    assert found.reasons == (
        "1 execution error(s) of a kind that CloudWatch Container Insights does not tell",
    )
    assert found.facts["errors"]["untold"] == 1


def test_what_container_insights_leaves_out_is_not_well() -> None:
    whole = answer()
    for missing in ("used", "ecc"):
        assert insights([each for each in whole if each["Id"] != missing]).state == "unknown", missing
    assert insights([]).state == "unknown"
    assert insights(answer(), devices=4).state == "unknown"


def test_a_node_is_asked_for_by_a_search_that_names_it_and_nothing_else() -> None:
    asked = queries("prod", "ip-10-0-1-2.us-east-2.compute.internal")
    assert [each["Id"] for each in asked] == ["ecc", "errors", "memory", "used"]
    assert asked[0]["Expression"] == (
        "SEARCH('{ContainerInsights,ClusterName,InstanceId,NodeName,NeuronDevice} "
        'MetricName="node_neurondevice_hw_ecc_events_total" ClusterName="prod" '
        "NodeName=\"ip-10-0-1-2.us-east-2.compute.internal\"', 'Sum', 60)"
    )
    for name in ('x" OR NodeName="y', "a b", ""):
        with pytest.raises(Refused):
            queries("prod", name)


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "Id": st.sampled_from(["ecc", "errors", "used", "other"]),
                "Label": st.text(max_size=8),
                "Timestamps": st.lists(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), max_size=3),
                "Values": st.lists(st.floats() | st.integers() | st.none(), max_size=3),
            },
        ),
        max_size=4,
    )
)
def test_no_answer_of_cloudwatch_raises(results: list[dict[str, Any]]) -> None:
    assert insights(results).state in ("healthy", "unknown")
