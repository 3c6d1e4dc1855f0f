"""neuron-monitor and neuron-ls beside a server, and alone."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .clients import chat, post
from .conftest import PATIENCE, TRN2, Run, Served, environment, start

Json = dict[str, Any]
GROUPS = ("neuroncore_counters", "memory_used", "neuron_runtime_vcpu_usage", "execution_stats")
CONFIG = {
    "period": "200ms",
    "neuron_runtimes": [
        {
            "tag_filter": ".*",
            "metrics": [{"type": name} for name in GROUPS],
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
        process.wait(PATIENCE)


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


@pytest.fixture(scope="module")
def canary(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a process tag and hardware errors; its folder is the container's."""
    command: list[str | Path] = [
        "optimum-cli",
        "neuron",
        "serve",
        "-m",
        exported,
        "--served-model-name",
        "tiny",
    ]
    settings = {"NEURON_PROCESS_TAG": "tiny-canary", "faults": {"neuron_error": "hardware"}}
    served = start(command, tmp_path_factory.mktemp("canary"), **settings)
    yield served
    served.process.kill()
    served.process.wait(PATIENCE)


def test_a_server_s_runtime_is_reported_with_its_work(canary: Served, monitor: Monitor) -> None:
    reports = monitor(TMPDIR=str(canary.temporary))
    quiet = next(report for report in reports if report["neuron_runtime_data"])["neuron_runtime_data"][0]
    assert (quiet["pid"], quiet["neuron_runtime_tag"]) == (canary.process.pid, "tiny-canary")
    assert quiet["error"] == ""
    assert set(quiet["report"]) == set(GROUPS)
    idle = {"total_latency": None, "device_latency": None}
    assert quiet["report"]["execution_stats"]["latency_stats"] == idle
    assert sorted(quiet["report"]["neuroncore_counters"]["neuroncores_in_use"]) == ["0", "1", "2", "3"]
    assert quiet["report"]["memory_used"]["neuron_runtime_used_bytes"]["neuron_device"] > 1_000_000
    # A server that stood still for seconds is missing for a moment.
    runtimes = (runtime for report in reports for runtime in report["neuron_runtime_data"])
    stats = (runtime["report"]["execution_stats"] for runtime in runtimes)

    def busy_one() -> Json:
        """Latencies are those of half a second: a monitor that stood still for longer has missed them."""
        while True:
            post(f"{canary.url}/v1/chat/completions", chat(max_tokens=100, ignore_eos=True))
            for entry in itertools.islice(stats, 8):
                if entry["latency_stats"]["device_latency"]:
                    return entry

    busy = busy_one()
    assert busy["execution_summary"]["completed"]
    assert set(busy["latency_stats"]["device_latency"]) == {"p0", "p1", "p25", "p50", "p75", "p99", "p100"}
    assert 0.003 < busy["latency_stats"]["device_latency"]["p50"] < 0.02
    assert next(entry for entry in stats if entry["error_summary"]["hardware"])["execution_summary"]


def test_the_tag_filter_chooses_runtimes_and_the_metrics_groups(canary: Served, monitor: Monitor) -> None:
    few = [{"type": "execution_stats"}]
    container = {"TMPDIR": str(canary.temporary)}
    other = {"period": "100ms", "neuron_runtimes": [{"tag_filter": "^stable", "metrics": few}]}
    assert next(monitor(other, **container))["neuron_runtime_data"] == []
    same = {"period": "100ms", "neuron_runtimes": [{"tag_filter": "^tiny", "metrics": few}]}
    report = next(report for report in monitor(same, **container) if report["neuron_runtime_data"])
    assert list(report["neuron_runtime_data"][0]["report"]) == ["execution_stats"]
    assert report["system_data"] == {}


def test_neuron_ls_lists_devices_and_who_uses_them(canary: Served, run: Run) -> None:
    container = {"TMPDIR": str(canary.temporary), "silicon": TRN2}
    while not (listed := json.loads(run("neuron-ls", "-j", **container).stdout))[0]["neuron_processes"]:
        assert canary.process.poll() is None  # it stood still for so long that its word was stale
    assert [(entry["neuron_device"], entry["nc_count"]) for entry in listed] == [(0, 4)]
    assert [process["pid"] for process in listed[0]["neuron_processes"]] == [canary.process.pid]
    assert "trn2.48xlarge" in run("neuron-ls", **container).stdout
    assert run("neuron-ls").returncode == 1


def test_a_runtime_that_died_is_not_reported(tmp_path: Path, monitor: Monitor) -> None:
    """What a killed server leaves behind: its state file, and nobody with its pid."""
    gone = 1 << 22  # Linux gives no pid as high as this: one that was somebody's may be another one's by now
    (tmp_path / f"neuron-runtime-{gone}.json").write_text(
        json.dumps({"pid": gone, "written": time.time() + 3600, "tag": "gone", "cores": 4})
    )
    assert next(monitor())["neuron_runtime_data"] == []


def test_uncorrected_errors_grow_and_never_fall_between_runs(monitor: Monitor) -> None:
    def counted(reports: Iterator[Json]) -> Iterator[int]:
        for report in reports:
            devices = report["system_data"]["neuron_hw_counters"]["neuron_devices"]
            yield devices[0]["mem_ecc_uncorrected"]

    first = counted(monitor(faults={"ecc_uncorrected": 2}))
    seen = next(first)
    grown = next(count for count in first if count > seen)
    assert next(counted(monitor(faults={"ecc_uncorrected": 2}))) >= grown
    assert next(counted(monitor())) == 0


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
