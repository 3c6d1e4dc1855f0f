"""neuron-monitor's word: anything may come down the line, and only a clear one counts as health."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.neuron.health import Expected, Health, judge
from trainyard.neuron.monitor import parse_report, parse_reports


def report(
    *,
    devices: int = 2,
    ecc: dict[int, tuple[int, int]] | None = None,
    errors: dict[str, int] | None = None,
    timed_out: int = 0,
    runtimes: int = 1,
    **changes: Any,
) -> dict[str, Any]:
    """One report as SDK 2.32 prints it. ecc: (mem, sram) uncorrected by device."""
    counters = {0: (0, 0), 1: (0, 0)} if ecc is None else ecc
    runtime = {
        "pid": 7,
        "neuron_runtime_tag": "canary",
        "error": "",
        "report": {
            "neuroncore_counters": {
                "period": 1,
                "error": "",
                "neuroncores_in_use": {
                    "0": {"neuroncore_utilization": 40},
                    "1": {"neuroncore_utilization": 60},
                },
            },
            "execution_stats": {
                "error": "",
                "error_summary": {"generic": 0, "numerical": 0, "transient": 0, **(errors or {})},
                "execution_summary": {"completed": 5, "timed_out": timed_out},
                "latency_stats": {"total_latency": None},
            },
            "memory_used": {"error": "", "neuron_runtime_used_bytes": {"host": 1, "neuron_device": 1000}},
        },
    }
    document = {
        "neuron_runtime_data": [runtime] * runtimes,
        "system_data": {
            "neuron_hw_counters": {
                "period": 1,
                "error": "",
                "neuron_devices": [
                    {
                        "neuron_device_index": index,
                        "mem_ecc_corrected": 99,
                        "mem_ecc_uncorrected": mem,
                        "sram_ecc_corrected": 99,
                        "sram_ecc_uncorrected": sram,
                    }
                    for index, (mem, sram) in counters.items()
                ],
            }
        },
        "neuron_hardware_info": {
            "neuron_device_count": devices,
            "neuroncore_per_device_count": 4,
            "error": "",
        },
    }
    return {**document, **changes}


def judged(output: str, devices: int) -> Health:
    return judge(parse_reports(output, 1000.0), Expected(devices=devices))


def health(*documents: dict[str, Any], devices: int = 2) -> tuple[str, str]:
    found = judged("\n".join(json.dumps(each) for each in documents), devices)
    return found.state, "; ".join(found.reasons)


def test_two_clean_reports_are_health() -> None:
    found = judged(f"{json.dumps(report())}\n{json.dumps(report())}", 2)
    assert (found.state, found.reasons) == ("healthy", ())
    assert found.facts["devices"] == 2
    assert found.facts["utilization_percent"] == 50
    assert found.facts["device_memory_bytes"] == 1000


def test_silence_is_never_health() -> None:
    assert health()[0] == "unknown"
    assert health(report())[0] == "unknown"
    assert health(report(), report(runtimes=0))[0] == "unknown"
    assert health(report(), report(ecc={}))[0] == "unknown"
    assert health(report(), report(system_data={}))[0] == "unknown"
    assert health(report(), report(neuron_runtime_data=None))[0] == "unknown"


def test_a_device_without_counters_is_never_health() -> None:
    state, words = health(report(), report(ecc={0: (0, 0)}))
    assert state == "unknown"
    assert "of 1 device(s) only" in words
    assert health(report(ecc={0: (0, 0)}), report(ecc={0: (0, 0)}))[0] == "unknown"
    assert health(report(ecc={0: (0, 0), 1: (0, 0)}), report(ecc={0: (0, 0), 2: (0, 0)}))[0] == "unknown"


def test_old_ecc_errors_are_no_reason_but_new_ones_are() -> None:
    old = {0: (7, 2), 1: (0, 0)}
    assert health(report(ecc=old), report(ecc=old)) == ("healthy", "")
    assert health(report(ecc=old), report(ecc={0: (7, 2), 1: (0, 1)})) == (
        "sick",
        "device 1: 1 new uncorrected ECC error(s)",
    )


def test_a_counter_that_goes_back_proves_nothing() -> None:
    assert health(report(ecc={0: (7, 0), 1: (0, 0)}), report())[0] == "unknown"


def test_fewer_devices_than_were_asked_for_is_sick() -> None:
    state, words = health(report(), report(), devices=4)
    assert state == "sick"
    assert "2 Neuron devices are visible, 4 are expected" in words


@pytest.mark.parametrize("kind", ["hardware", "runtime", "numerical"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_runtime_error_in_any_report_is_sick(kind: str, place: int) -> None:
    documents = [report(), report(), report()]
    documents[place] = report(errors={kind: 3})
    assert health(*documents) == ("sick", f"3 {kind} error(s) in the Neuron runtime")


def test_an_execution_that_timed_out_is_sick() -> None:
    assert health(report(timed_out=1), report()) == ("sick", "1 execution(s) timed out")


def at(document: dict[str, Any], path: list[Any], value: Any) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(document))
    node: Any = copied
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return copied


@pytest.mark.parametrize(
    "path",
    [
        ["neuron_hardware_info", "error"],
        ["system_data", "neuron_hw_counters", "error"],
        ["neuron_runtime_data", 0, "error"],
        ["neuron_runtime_data", 0, "report", "execution_stats", "error"],
        ["neuron_runtime_data", 0, "report", "memory_used", "error"],
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_an_error_of_any_group_in_any_report_is_sick(path: list[Any], place: int) -> None:
    documents = [report(), report()]
    documents[place] = at(report(), path, "driver is gone")
    state, words = health(*documents)
    assert state == "sick"
    assert "driver is gone" in words


def test_lines_that_are_no_reports_are_skipped() -> None:
    lines = [
        "neuron-monitor 2.1",
        "{",
        '{"a": 1}',
        "[]",
        "null",
        json.dumps(report()),
        json.dumps(report())[:50],
    ]
    assert len(parse_reports("\n".join(lines))) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
PATHS = st.sampled_from(
    [
        [],
        ["neuron_hardware_info"],
        ["neuron_hardware_info", "neuron_device_count"],
        ["neuron_runtime_data"],
        ["neuron_runtime_data", 0],
        ["neuron_runtime_data", 0, "report"],
        ["neuron_runtime_data", 0, "report", "execution_stats"],
        ["neuron_runtime_data", 0, "report", "execution_stats", "error_summary"],
        ["neuron_runtime_data", 0, "report", "execution_stats", "error_summary", "hardware"],
        ["neuron_runtime_data", 0, "report", "execution_stats", "execution_summary", "timed_out"],
        ["neuron_runtime_data", 0, "report", "memory_used", "neuron_runtime_used_bytes"],
        ["neuron_runtime_data", 0, "report", "neuroncore_counters", "neuroncores_in_use"],
        ["neuron_runtime_data", 0, "report", "neuroncore_counters", "neuroncores_in_use", "0"],
        [
            *("neuron_runtime_data", 0, "report", "neuroncore_counters"),
            *("neuroncores_in_use", "0", "neuroncore_utilization"),
        ],
        ["system_data"],
        ["system_data", "neuron_hw_counters", "neuron_devices"],
        ["system_data", "neuron_hw_counters", "neuron_devices", 0],
        ["system_data", "neuron_hw_counters", "neuron_devices", 0, "neuron_device_index"],
        ["system_data", "neuron_hw_counters", "neuron_devices", 0, "mem_ecc_uncorrected"],
    ]
)
MONSTERS = st.sampled_from([10**400, float("inf"), float("nan"), -1, 1e308, True, "", {}, []])


@given(PATHS, JSON | MONSTERS)
def test_no_report_of_any_form_raises_or_turns_into_better_health(path: list[Any], value: Any) -> None:
    broken = at(report(), path, value) if path else value
    lines = [json.dumps(report()), json.dumps(broken)]
    found = judged("\n".join(lines), 2)
    assert found.state in ("healthy", "sick", "unknown")
    json.dumps(found.facts, allow_nan=False)  # facts go into the record


@given(st.text() | st.binary().map(lambda body: body.decode(errors="replace")))
def test_no_line_raises(line: str) -> None:
    parse_report(line)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"neuron_hardware_info":' * 5000, "9" * 5000, "NaN"])
def test_a_monstrous_line_is_no_report(line: str) -> None:
    assert parse_report(line) is None
