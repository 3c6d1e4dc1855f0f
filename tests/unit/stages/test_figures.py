"""What stages add to the figures of a load test, and what they leave for people."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.memory_objects import MemoryObjects
from tests.unit.rollout.simulated import simulate
from tests.unit.stages.test_history import release_of
from tests.unit.stages.test_replay import record
from trainyard.errors import NotFound
from trainyard.release import Release
from trainyard.stages.figures import hardware_of, limits_of, with_economy
from trainyard.stages.measured import gather, prefix
from trainyard.stages.replay import Margins, replay
from trainyard.stages.reporting import make_report, report_key, write_report


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return release_of(tmp_path)[1]


def changed(release: Release, **hardware: Any) -> Release:
    spec = release.spec
    spec = spec.model_copy(update={"hardware": spec.hardware.model_copy(update=hardware)})
    return release.model_copy(update={"spec": spec})


def context(**fields: Any) -> Any:
    return SimpleNamespace(log=logging.getLogger("test"), **fields)


def test_goodput_is_counted_under_the_objectives_of_the_spec(release: Release) -> None:
    wanted = release.spec.rollout.objectives
    assert limits_of(release).to_dict() == {"ttft": wanted.ttft_p95_seconds, "itl": wanted.itl_p95_seconds}
    store = MemoryObjects()
    record(store, release, "load", [simulate(1, pairs=30, tokens=4)[1]])
    found = gather(store, release, "load").summary["arms"]["canary"]["goodput"]
    assert (found["limits"], found["requests"]) == (limits_of(release).to_dict(), 30)


def test_each_arm_pays_for_its_own_releases_chips(release: Release) -> None:
    canary = changed(release, instance_type="trn2.48xlarge", tensor_parallel=8)
    canary = canary.model_copy(update={"previous": "llama-r0"})
    old = changed(release, instance_type="inf2.xlarge", tensor_parallel=2)
    old = old.model_copy(update={"plan": old.plan.model_copy(update={"lnc": 1})})
    arms = {arm: {"output_tokens_per_second": 100.0} for arm in ("canary", "baseline")}
    found = with_economy(context(load=lambda model, name: old), canary, arms)
    assert found["canary"]["economy"]["cores"] == 8 * canary.spec.serving.replicas
    assert found["baseline"]["economy"]["instance_type"] == "inf2.xlarge"
    assert found["baseline"]["economy"]["dollars_per_million_output_tokens"] == round(
        0.7582 / 3600 / 100 * 1e6, 4
    )
    assert "economy" not in arms["canary"]


def test_a_baseline_whose_record_is_gone_has_figures_without_a_price(release: Release) -> None:
    def gone(model: str, name: str) -> Release:
        raise NotFound(name)

    canary = release.model_copy(update={"previous": "llama-r0"})
    arms: dict[str, Any] = {"canary": {}, "baseline": {}}
    found = with_economy(context(load=gone), canary, arms)
    assert "economy" in found["canary"]
    assert "economy" not in found["baseline"]
    assert hardware_of(changed(release, instance_type="p5.48xlarge")) is None


def test_the_report_is_written_as_a_page_and_as_json(release: Release) -> None:
    store = MemoryObjects()
    _, samples = simulate(1, pairs=30, tokens=4)
    record(store, release, "load", [samples])
    summary = gather(store, release, "load").summary
    verdict = {"outcome": "pass", "checks": [], "summary_text": "pass", "summary": summary}
    measured = release.model_copy(update={"verdicts": {"load": verdict}})
    ctx = context(objects=store)
    assert len(make_report(ctx, measured).phases[0].samples) == 60
    write_report(ctx, measured)
    assert store.get(report_key(measured)).body.startswith(b"<!doctype html>")
    document = json.loads(store.get(report_key(measured, "json")).body)
    assert document["phases"][0]["summary"]["arms"]["canary"]["requests"] == 30


def test_a_report_draws_the_parts_that_its_figures_count(release: Release) -> None:
    store = MemoryObjects()
    record(store, release, "load", [simulate(seed, pairs=30, tokens=4)[1] for seed in (1, 2, 3)])
    start = prefix(release, "load")
    slow = json.loads(store.get(f"{start}0/summary.json").body)
    slow["generator"] = {"valid": False, "reasons": ["it used 99% of a core; allowed 90%"]}
    store.put(f"{start}0/summary.json", json.dumps(slow).encode())
    store.delete(f"{start}2/summary.json")  # its pod was lost before it was through
    verdict = {"outcome": "pass", "checks": [], "summary_text": "pass"}
    measured = release.model_copy(update={"verdicts": {"load": verdict}})
    ctx = context(objects=store)

    def drawn() -> list[float]:
        return [sample.started for sample in make_report(ctx, measured).phases[0].samples]

    assert len(drawn()) == len(gather(store, release, "load").samples) == 60
    # None is valid: what is shown then is what the summary is of.
    store.put(f"{start}1/summary.json", json.dumps(slow).encode())
    assert len(drawn()) == 60
    store.put(f"{start}1/summary.json", b"{")
    assert drawn() == []


def test_a_summary_of_the_first_version_is_judged_again(release: Release) -> None:
    """Its arms had counts, output tokens a second and latencies, and nothing else."""
    store = MemoryObjects()
    record(store, release, "load", [simulate(1, pairs=60, tokens=4)[1]])
    key = f"{prefix(release, 'load')}0/summary.json"
    old = json.loads(store.get(key).body) | {"schema": "trainyard.load/1"}
    for own in old["arms"].values():
        for added in ("input_tokens_per_second", "lengths", "goodput"):
            own.pop(added, None)
    store.put(key, json.dumps(old).encode())
    (found,) = replay(store, release, Margins(ttft_p95_seconds=9.0, itl_p95_seconds=9.0))
    assert found.parts == 1
    assert found.verdict.outcome in ("pass", "inconclusive")
    assert {check.outcome for check in found.verdict.checks if check.kind == "slo"} == {"pass"}
