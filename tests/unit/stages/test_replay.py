"""A recorded release judged anew from its samples, in the stages and by the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.memory_objects import MemoryObjects
from tests.support.scraped import pack_rows
from tests.unit.rollout.simulated import simulate, summary_of
from tests.unit.rollout.test_live import traffic
from tests.unit.stages.test_history import release_of
from trainyard.bench.samples import Sample, pack
from trainyard.errors import NotFound, Refused
from trainyard.release import Release
from trainyard.stages.measured import prefix
from trainyard.stages.replay import Margins, replay
from trainyard_cli import judging, records

# SLOs that the made-up times keep.
KEPT = Margins(ttft_p95_seconds=9.0, itl_p95_seconds=9.0)


def record(store: MemoryObjects, release: Release, phase: str, parts: list[list[Sample]]) -> None:
    for part, samples in enumerate(parts):
        start = f"{prefix(release, phase)}{part}/"
        store.put(f"{start}samples.ndjson.gz", pack(samples))
        store.put(f"{start}summary.json", json.dumps(summary_of(samples)).encode())


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[MemoryObjects, Release]:
    """A load phase of two parts with a canary 1.12 times slower; its own judge passed it."""
    release = release_of(tmp_path)[1].model_copy(
        update={"previous": "llama-r0", "verdicts": {"load": {"outcome": "pass"}}}
    )
    store = MemoryObjects()
    parts = [simulate(seed, slow=1.12, pairs=80, tokens=4, ttft=0.6, itl=0.1)[1] for seed in (1, 2)]
    record(
        store,
        release,
        "load",
        [[replace(sample, run=run) for sample in part] for run, part in enumerate(parts)],
    )
    return store, release


def test_the_same_margins_say_the_same_and_others_may_not(recorded: tuple[MemoryObjects, Release]) -> None:
    store, release = recorded
    before = dict(store.content)
    (same,) = replay(store, release, KEPT)
    assert (same.phase, same.recorded, same.verdict.outcome, same.parts) == ("load", "pass", "pass", 2)
    (strict,) = replay(store, release, replace(KEPT, max_ratio={"itl": 1.0, "ttft": 1.0, "e2e": 1.0}))
    assert strict.verdict.outcome == "fail"
    assert strict.watch is not None
    assert strict.watch.alarm is not None
    (slo,) = replay(store, release, Margins(ttft_p95_seconds=0.01))
    assert slo.verdict.outcome == "fail"
    (more,) = replay(store, release, replace(KEPT, min_samples=1000))
    assert more.verdict.outcome == "inconclusive"
    assert store.content == before


def test_a_phase_that_lost_its_samples_is_inconclusive(recorded: tuple[MemoryObjects, Release]) -> None:
    store, release = recorded
    del store.content[f"{prefix(release, 'load')}1/samples.ndjson.gz"]
    (found,) = replay(store, release, KEPT)
    assert found.verdict.outcome == "inconclusive"
    assert "samples.ndjson.gz" in found.verdict.summary
    store.content.clear()
    (gone,) = replay(store, release, KEPT)
    assert gone.verdict.summary == "inconclusive: its samples are no longer in the bucket"
    assert replay(store, release.model_copy(update={"verdicts": {}}), Margins()) == []


def test_a_release_that_was_stopped_early_is_stopped_again_by_the_same_margins_and_by_wider_ones_too_short(
    tmp_path: Path,
) -> None:
    release = release_of(tmp_path)[1].model_copy(
        update={"previous": "llama-r0", "verdicts": {"load": {"outcome": "fail"}}}
    )
    store = MemoryObjects()
    samples = simulate(1, slow=2.5, pairs=16, tokens=4, ttft=0.1, itl=0.02)[1]
    start = f"{prefix(release, 'load')}0/"
    live = [row | {"synthetic": True} for row in traffic(1, spans=12)]
    told = {
        "stopped": {"at": 4.2, "pairs": 16, "reasons": ["itl (body)"]},
        "live": {"servers": 2, "moments": 13, "failures": 0},
    }
    store.put(f"{start}samples.ndjson.gz", pack(samples))
    store.put(f"{start}metrics.ndjson.gz", pack_rows(live))
    store.put(f"{start}summary.json", json.dumps(summary_of(samples) | told).encode())
    (same,) = replay(store, release, KEPT)
    assert (same.recorded, same.verdict.outcome) == ("fail", "fail")
    assert same.watch is not None
    assert "the load test was stopped after 16 pairs" in "".join(same.verdict.reasons)
    assert any("their own figures" in check.text for check in same.verdict.checks)
    (wide,) = replay(store, release, replace(KEPT, max_ratio=dict.fromkeys(("ttft", "itl", "e2e"), 9.0)))
    assert wide.verdict.outcome == "inconclusive"
    assert "too short to judge" in wide.verdict.summary
    store.put(f"{start}metrics.ndjson.gz", pack_rows(live)[:-30])
    (torn,) = replay(store, release, KEPT)
    assert torn.verdict.outcome == "inconclusive"
    assert "metrics.ndjson.gz cannot be read" in torn.verdict.summary


def test_samples_are_judged_without_what_the_servers_said_where_that_was_lost(
    recorded: tuple[MemoryObjects, Release],
) -> None:
    store, release = recorded
    for part in ("0", "1"):
        key = f"{prefix(release, 'load')}{part}/summary.json"
        summary = json.loads(store.get(key).body) | {"live": {"servers": 2, "moments": 9, "failures": 18}}
        store.put(key, json.dumps(summary).encode())
    (found,) = replay(store, release, KEPT)
    assert found.verdict.outcome == "pass"
    assert any("they told nothing of themselves" in check.text for check in found.verdict.checks)


def test_real_traffic_of_which_a_part_was_lost_does_not_pass_by_the_other(tmp_path: Path) -> None:
    release = release_of(tmp_path)[1].model_copy(update={"previous": "llama-r0"})
    store = MemoryObjects()
    told = {"synthetic": False, "arms": {}, "generator": {"valid": True}, "live": {"servers": 2}}
    for part in (0, 1):
        start = f"{prefix(release, 'load')}{part}/"
        store.put(f"{start}metrics.ndjson.gz", pack_rows(traffic(part + 1, spans=40)))
        store.put(f"{start}summary.json", json.dumps(told).encode())
    assert replay(store, release, KEPT)[0].verdict.outcome == "pass"
    store.delete(f"{prefix(release, 'load')}0/metrics.ndjson.gz")
    assert replay(store, release, KEPT)[0].verdict.outcome == "inconclusive"


def test_a_margin_that_is_none_is_refused(recorded: tuple[MemoryObjects, Release]) -> None:
    store, release = recorded
    with pytest.raises(Refused, match="confidence"):
        replay(store, release, Margins(alpha=1.5))
    for word in ("fast", "ttfb=1.2", "0.5", "nan", "ttft="):
        with pytest.raises(Refused, match="--max-ratio"):
            judging.ratios([word])
    assert judging.ratios(["1.1", "ttft=1.3"]) == {"ttft": 1.3, "itl": 1.1, "e2e": 1.1}
    assert judging.ratios([]) is None


def test_the_command_line_says_it_to_people_and_machines(
    recorded: tuple[MemoryObjects, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, release = recorded

    def read(model: str, name: str) -> Release:
        if (model, name) != (release.model, release.id):
            raise NotFound(f"{model}/{name}")
        return release

    monkeypatch.setattr(records, "objects", lambda: store)
    monkeypatch.setattr(records, "release", read)
    monkeypatch.setattr(records, "releases", lambda model: [release] if model == "llama" else [])

    def run(name: str, margins: Margins, **options: Any) -> tuple[int, str]:
        console = Console(record=True, width=200, file=None, quiet=False)
        with console.capture() as shown:
            code = judging.run(console, name, margins, model="llama", **options)
        return code, shown.get()

    code, text = run(release.id, KEPT)
    assert code == 0
    assert "load: pass: " in text
    code, text = run("llama", replace(KEPT, max_ratio={"itl": 1.0}))
    assert code == 1
    assert "alarm after" in text
    code, text = run(release.id, replace(KEPT, max_ratio={"itl": 1.0}), as_json=True)
    assert json.loads(text)["phases"][0]["outcome"] == "fail"
    with pytest.raises(NotFound, match="other"):
        judging.find("other", "llama")


@pytest.mark.parametrize("file", ["samples.ndjson.gz", "summary.json"])
@pytest.mark.parametrize("cut", [0, 1, 20, -30, -9])
def test_a_file_that_was_damaged_is_inconclusive_and_no_crash(
    recorded: tuple[MemoryObjects, Release], file: str, cut: int
) -> None:
    store, release = recorded
    key = f"{prefix(release, 'load')}1/{file}"
    store.put(key, store.get(key).body[:cut])
    (found,) = replay(store, release, KEPT)
    assert found.verdict.outcome == "inconclusive"
    assert f"load/1/{file}" in found.verdict.summary


def test_bytes_that_turned_in_a_file_are_found_out(recorded: tuple[MemoryObjects, Release]) -> None:
    store, release = recorded
    key = f"{prefix(release, 'load')}0/samples.ndjson.gz"
    body = store.get(key).body
    for at in range(0, len(body), len(body) // 20):
        if at not in range(4, 10):  # of gzip's header: a date, and who wrote it
            store.put(key, body[:at] + bytes([body[at] ^ 0x55]) + body[at + 1 :])
            (found,) = replay(store, release, KEPT)
            assert found.verdict.outcome == "inconclusive"
