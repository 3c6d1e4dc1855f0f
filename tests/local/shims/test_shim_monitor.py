"""neuron-monitor and neuron-ls beside a server, and alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .clients import chat, post
from .conftest import TRN2, Run, Served, environment

Json = dict[str, Any]
CONFIG = {
    "period": "200ms",
    "neuron_runtimes": [
        {
            "tag_filter": ".*",
            "metrics": [
                {"type": "neuroncore_counters"},
                {"type": "memory_used"},
                {"type": "neuron_runtime_vcpu_usage"},
                {"type": "execution_stats"},
            ],
        }
    ],
    "system_metrics": [{"type": "vcpu_usage"}, {"type": "memory_info"}, {"type": "neuron_hw_counters"}],
}
Monitor = Callable[..., Iterator[Json]]


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    """Reports of a monitor in the container of `tmp_path`; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def _monitor(config: Json = CONFIG, **settings: Any) -> Iterator[Json]:
        (tmp_path / "monitor.json").write_text(json.dumps(config))
        process = subprocess.Popen(
            ["neuron-monitor", "-c", tmp_path / "monitor.json"],
            env=environment(tmp_path, **({"silicon": TRN2} | settings)),
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        return (json.loads(line) for line in process.stdout)

    yield _monitor
    for process in started:
        process.terminate()
        process.wait(10)


def test_an_idle_container_reports_hardware_and_no_runtime(monitor: Monitor) -> None:
    report = next(monitor())
    assert report["neuron_runtime_data"] == []
    assert report["neuron_hardware_info"] == {
        "neuron_device_type": "trainium2",
        "neuron_device_version": "v4",
        "neuroncore_version": "v3",
        "neuron_device_count": 1,
        "neuron_device_memory_size": 96 * 1024**3,
        "neuroncore_per_device_count": 4,
        "logical_neuroncore_config": 2,
        "error": "",
    }
    assert set(report["system_data"]) == {"vcpu_usage", "memory_info", "neuron_hw_counters"}
    assert all(group["error"] == "" and "period" in group for group in report["system_data"].values())
    assert report["instance_info"]["instance_type"] == "trn2.48xlarge"


def test_a_container_without_devices_says_so_in_the_error(monitor: Monitor) -> None:
    assert next(monitor(silicon=None))["neuron_hardware_info"]["error"] != ""


def test_a_server_s_runtime_is_reported_with_its_work(serve: Callable[..., Served], monitor: Monitor) -> None:
    served = serve(NEURON_PROCESS_TAG="tiny-canary")
    reports = monitor()
    quiet = next(report for report in reports if report["neuron_runtime_data"])["neuron_runtime_data"][0]
    assert (quiet["pid"], quiet["neuron_runtime_tag"]) == (served.process.pid, "tiny-canary")
    assert quiet["error"] == ""
    assert set(quiet["report"]) == {metric["type"] for metric in CONFIG["neuron_runtimes"][0]["metrics"]}  # type: ignore[index]
    assert quiet["report"]["execution_stats"]["latency_stats"] == {
        "total_latency": None,
        "device_latency": None,
    }
    assert sorted(quiet["report"]["neuroncore_counters"]["neuroncores_in_use"]) == ["0", "1", "2", "3"]
    assert quiet["report"]["memory_used"]["neuron_runtime_used_bytes"]["neuron_device"] > 1_000_000
    post(f"{served.url}/v1/chat/completions", chat(max_tokens=100, ignore_eos=True))
    stats = (report["neuron_runtime_data"][0]["report"]["execution_stats"] for report in reports)
    busy = next(entry for entry in stats if entry["execution_summary"]["completed"])
    assert set(busy["latency_stats"]["device_latency"]) == {"p0", "p1", "p25", "p50", "p75", "p99", "p100"}
    assert 0.003 < busy["latency_stats"]["device_latency"]["p50"] < 0.02
    assert sum(busy["error_summary"].values()) == 0


def test_a_runtime_that_died_is_not_reported(serve: Callable[..., Served], monitor: Monitor) -> None:
    served = serve()
    served.process.kill()
    served.process.wait(10)
    assert next(monitor())["neuron_runtime_data"] == []


def test_the_tag_filter_chooses_runtimes_and_the_metrics_groups(
    serve: Callable[..., Served], monitor: Monitor
) -> None:
    serve(NEURON_PROCESS_TAG="tiny-canary")
    few = [{"type": "execution_stats"}]
    other = {"period": "100ms", "neuron_runtimes": [{"tag_filter": "^stable", "metrics": few}]}
    assert next(monitor(other))["neuron_runtime_data"] == []
    same = {"period": "100ms", "neuron_runtimes": [{"tag_filter": "^tiny", "metrics": few}]}
    report = next(monitor(same))
    assert list(report["neuron_runtime_data"][0]["report"]) == ["execution_stats"]
    assert report["system_data"] == {}


def test_the_knobs_show_in_the_report(serve: Callable[..., Served], monitor: Monitor) -> None:
    faults = {"ecc_uncorrected": 2, "neuron_error": "hardware"}
    serve(faults=faults)
    reports = monitor(faults=faults)
    counters = next(reports)["system_data"]["neuron_hw_counters"]["neuron_devices"]
    assert [(device["neuron_device_index"], device["mem_ecc_uncorrected"]) for device in counters] == [(0, 2)]
    stats = (report["neuron_runtime_data"][0]["report"]["execution_stats"] for report in reports)
    assert next(entry for entry in stats if entry["error_summary"]["hardware"])


def test_a_silent_monitor_runs_and_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "monitor.json").write_text(json.dumps(CONFIG))
    process = subprocess.Popen(
        ["neuron-monitor", "-c", tmp_path / "monitor.json"],
        env=environment(tmp_path, silicon=TRN2, faults={"monitor_silent": True}),
        stdout=subprocess.PIPE,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.8)
    process.kill()
    assert process.communicate()[0] == b""


@pytest.mark.parametrize("config", ['{"period": "soon"}', "{", '{"system_metrics": [{"type": "power"}]}'])
def test_a_wrong_configuration_is_refused(tmp_path: Path, run: Run, config: str) -> None:
    (tmp_path / "monitor.json").write_text(config)
    refused = run("neuron-monitor", "-c", tmp_path / "monitor.json", silicon=TRN2)
    assert refused.returncode == 1
    assert "could not read the configuration" in refused.stderr


def test_neuron_ls_lists_devices_and_who_uses_them(serve: Callable[..., Served], run: Run) -> None:
    served = serve()
    listed = json.loads(run("neuron-ls", "-j", silicon=TRN2).stdout)
    assert [(entry["neuron_device"], entry["nc_count"]) for entry in listed] == [(0, 4)]
    assert [process["pid"] for process in listed[0]["neuron_processes"]] == [served.process.pid]
    assert "trn2.48xlarge" in run("neuron-ls", silicon=TRN2).stdout
    assert run("neuron-ls").returncode == 1
