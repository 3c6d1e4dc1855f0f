"""What runs beside a load test: the servers' own figures on record, and an early end for a slow canary."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.truth_server import TruthServer, truth_server
from trainyard.bench.load import run_load
from trainyard.bench.samples import Sample, pack, unpack
from trainyard.bench.scrape import EVERY, Scraper, period, unpack_rows
from trainyard.bench.stop import EarlyStop
from trainyard.bench.workload import Workload
from trainyard.jobs import loadtest, loadwatch
from trainyard.rollout.judge import judge
from trainyard.rollout.live import live_of
from trainyard.rollout.verdict import COMPARED, Objectives, Verdict
from trainyard.store.objects import Objects

OBJECTIVES = Objectives(ttft_p95_seconds=5, itl_p95_seconds=1, max_ratio=dict.fromkeys(COMPARED, 1.5))
# Two equal servers, on a machine that may stand still for seconds while it asks one of them.
WIDE = Objectives(ttft_p95_seconds=60, itl_p95_seconds=60, max_ratio=dict.fromkeys(COMPARED, 1000.0))
LOAD: dict[str, Any] = {
    "output_tokens": 8,
    "timeout_seconds": 60,
}


def job_of(store: Objects, canary: TruthServer, baseline: TruthServer, **changes: Any) -> dict[str, Any]:
    servers = {"canary": [canary.url], "baseline": [baseline.url]}
    return {
        "bucket": store.bucket,
        "output": "m/0/",
        "seed": 1,
        "model": "m",
        "arms": servers,
        "servers": servers,
        "watch": {"objectives": OBJECTIVES.to_dict(), "earlier": []},
        **changes,
    }


def left(store: Objects, prefix: str = "m/0/") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    summary = json.loads(store.get(f"{prefix}summary.json").body)
    return summary, list(unpack_rows(store.get(f"{prefix}metrics.ndjson.gz").body))


def verdict_of(store: Objects, objectives: Objectives = OBJECTIVES) -> Verdict:
    summary, rows = left(store)
    samples = unpack(store.get("m/0/samples.ndjson.gz").body) if summary["arms"] else ()
    return judge(summary, samples, objectives, baseline_expected=True, live=live_of(rows))


def test_a_canary_that_is_much_slower_ends_the_load_test_early_and_fails_it(store: Objects) -> None:
    # So much that it still is where a busy machine adds a tenth of a second to every answer.
    with truth_server(ttft=0.2, itl=0.03) as canary, truth_server(ttft=0.02, itl=0.003) as baseline:
        workload = {**LOAD, "duration_seconds": 60}
        loadtest.run(job_of(store, canary, baseline, workload=workload))
        asked = len(canary.truths)
    summary, _ = left(store)
    stopped = summary["stopped"]
    assert stopped["pairs"] >= stopped["alarm"] >= 10
    assert stopped["reasons"]
    # A user needs half a second for a pair: all four of them, some 500 in a minute.
    assert summary["arms"]["canary"]["requests"] == asked < 250
    assert summary["generator"]["valid"], summary["generator"]["reasons"]
    strict = replace(OBJECTIVES, min_samples=100_000)
    samples = unpack(store.get("m/0/samples.ndjson.gz").body)
    verdict = judge(summary, samples, strict, baseline_expected=True)
    assert verdict.outcome == "fail"
    assert "the load test was stopped after" in "".join(verdict.reasons)


def test_an_equal_canary_is_asked_to_the_end_and_both_servers_figures_are_on_record(
    store: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loadwatch, "period", lambda seconds: 0.1)
    with truth_server(ttft=0.03, itl=0.004) as canary, truth_server(ttft=0.03, itl=0.004) as baseline:
        workload = {**LOAD, "duration_seconds": 60, "requests": 110}  # three seconds at least
        watch = {"objectives": WIDE.to_dict(), "earlier": []}
        loadtest.run(job_of(store, canary, baseline, workload=workload, watch=watch))
        asked = {"canary": len(canary.truths), "baseline": len(baseline.truths)}
    summary, rows = left(store)
    assert summary["stopped"] is None
    assert summary["watched"]["looks"] >= 1
    assert summary["live"]["failures"] == 0
    assert len(rows) == 2 * summary["live"]["moments"] > 20
    assert [row["synthetic"] for row in rows] == [False, False] + [True] * (len(rows) - 2)
    # The first scrape was before the first request and the last one after the last.
    for arm, spans in (("canary", live_of(rows).canary), ("baseline", live_of(rows).baseline)):
        assert sum(span.finished["length"] for span in spans) == asked[arm]
    verdict = verdict_of(store, WIDE)
    assert verdict.outcome == "pass", verdict.reasons
    assert any("nothing against the canary" in check.text for check in verdict.checks)


def test_a_watch_goes_on_where_the_last_part_of_the_phase_ended(store: Objects) -> None:
    samples = [
        Sample(
            arm=arm, pair=pair, started=pair / 10, ttft=seconds, e2e=seconds + 1, status=200, ok=True,
            chunk_times=(seconds, seconds + 1), chunk_tokens=(1, 9),
        )
        for pair in range(40)
        for arm, seconds in (("canary", 0.9 + pair % 3 / 10), ("baseline", 0.2 + pair % 4 / 10))
    ]  # fmt: skip
    store.put("m/0/samples.ndjson.gz", pack(samples))
    job = {"arms": {"canary": ["x"], "baseline": ["y"]}}
    watch = {"objectives": OBJECTIVES.to_dict(), "earlier": []}
    assert loadwatch._watch_samples({**job, "watch": watch}, store)([]) is None
    told = loadwatch._watch_samples({**job, "watch": {**watch, "earlier": ["m/0/", "m/lost/"]}}, store)([])
    assert told is not None
    (reason,) = told["reasons"]
    assert reason.startswith("ttft p50 1.00 s is 3.33 x the baseline's 300 ms; allowed ")


def test_an_open_loop_that_was_stopped_is_no_invalid_one() -> None:
    def look(samples: Sequence[Sample]) -> dict[str, Any] | None:
        seen.extend(samples)
        return {"reasons": ["enough"]} if len(seen) > 10 else None

    seen: list[Sample] = []
    arrivals = {"process": "constant", "rate": 30}
    workload = Workload(**LOAD, duration_seconds=120, arrivals=arrivals, processes=2)
    stop = EarlyStop(look, every=0.1)
    with truth_server(ttft=0.01, itl=0.001) as server:
        samples, summary = run_load(
            model="m", arms={"canary": [server.url]}, workload=workload, seed=1, stop=stop
        )
        assert len(samples) == len(server.truths) < 30 * 60
    assert stop.found is not None
    assert stop.found["reasons"] == ["enough"]
    assert summary["generator"]["achieved"] == 1.0
    assert summary["generator"]["valid"], summary["generator"]["reasons"]
    assert not [sample for sample in samples if not sample.ok]


def test_an_open_loop_that_was_stopped_does_not_wait_for_its_next_request() -> None:
    def look(samples: Sequence[Sample]) -> dict[str, Any] | None:
        seen.extend(samples)
        return {"reasons": ["enough"]} if len(seen) == 3 else None

    seen: list[Sample] = []
    workload = Workload(**LOAD, arrivals={"offsets": [0.0, 0.1, 0.2, 50.0]})
    stop = EarlyStop(look, every=0.1)
    with truth_server(ttft=0.01, itl=0.001) as server:
        samples, summary = run_load(
            model="m", arms={"canary": [server.url]}, workload=workload, seed=1, stop=stop
        )
    assert (len(samples), summary["generator"]["achieved"]) == (3, 1.0)
    assert summary["generator"]["seconds"] < 50


def test_a_look_that_breaks_down_leaves_the_test_alone(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.write_text('{"arm": "canary", "started": 1.0}\n{"arm": "can')
    seen: list[Sample] = []
    again = threading.Event()

    def look(samples: Sequence[Sample]) -> None:
        seen.extend(samples)
        if again.is_set():
            raise RuntimeError("a defect")
        again.set()

    stop = EarlyStop(look, every=0.01)
    stop.follow([rows, tmp_path / "another-machine's"], tmp_path / "halt", time.monotonic())
    assert again.wait(60)
    assert stop._thread is not None
    stop._thread.join(60)
    stop.end()
    assert (stop.found, (tmp_path / "halt").exists()) == (None, False)
    assert [sample.arm for sample in seen] == ["canary"]  # the torn line is not there yet


@pytest.mark.parametrize(("ago", "least", "most"), [(1000, 1000, 1100), (-100, 0, 0)])
def test_an_alarm_tells_its_time_from_when_requests_began(
    tmp_path: Path, ago: float, least: float, most: float
) -> None:
    """Several pods agree on a beginning that is seconds ahead; an extension may know enough before it."""
    stop = EarlyStop(lambda samples: {"reasons": ["enough"]}, every=0.01)
    stop.follow([], tmp_path / "halt", time.monotonic() - ago)
    assert stop._thread is not None
    stop._thread.join(60)
    assert stop.found is not None
    assert least <= stop.found["at"] <= most


@contextmanager
def users(*servers: TruthServer) -> Iterator[None]:
    """Real traffic: some that ask each server in turn, not streamed."""
    over = threading.Event()

    def ask() -> None:
        body = json.dumps({"model": "m", "prompt": "hi", "max_tokens": 4}).encode()
        while not over.is_set():
            for server in servers:
                urllib.request.urlopen(f"{server.url}/v1/completions", body, timeout=60).read()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("slow", [1.0, 3.0])
def test_a_step_without_a_load_of_ours_is_judged_by_real_traffic_and_ended_by_its_alarm(
    store: Objects, monkeypatch: pytest.MonkeyPatch, slow: float
) -> None:
    alarm = threading.Event()

    class Enough(Scraper):
        """Ends the step of equal servers with enough spans to judge it by, however long they took."""

        def scrape(self, *, synthetic: bool) -> None:
            super().scrape(synthetic=synthetic)
            if slow == 1.0 and self.moments == 22:
                alarm.set()

    monkeypatch.setattr(loadwatch, "period", lambda seconds: 0.15)
    monkeypatch.setattr(loadwatch, "Scraper", Enough)
    monkeypatch.setattr(loadwatch, "threading", SimpleNamespace(Event=lambda: alarm))
    with (
        truth_server(ttft=0.03 * slow, itl=0.004 * slow) as canary,
        truth_server(ttft=0.03, itl=0.004) as baseline,
    ):
        with users(canary, baseline):
            watch = {"objectives": (WIDE if slow == 1.0 else OBJECTIVES).to_dict(), "earlier": []}
            job = job_of(store, canary, baseline, observe_seconds=120, workload=LOAD, watch=watch)
            result = loadtest.run(job)
    summary, rows = left(store)
    assert result["arms"] == summary["arms"] == {}
    assert not any(row["synthetic"] for row in rows)
    verdict = verdict_of(store, WIDE if slow == 1.0 else OBJECTIVES)
    if slow == 1.0:
        assert summary["stopped"] is None
        assert summary["seconds"] >= 3.0
        assert verdict.outcome == "pass", verdict.reasons
        assert {check.metric for check in verdict.checks} == {"errors", "ttft", "itl", "e2e"}
    else:
        assert {"ttft (mean)", "itl (mean)", "e2e (mean)"} & set(summary["stopped"]["reasons"])
        assert summary["seconds"] < 120
        assert verdict.outcome == "fail"


def test_a_step_without_a_load_of_ours_takes_the_time_that_it_was_given(store: Objects) -> None:
    with truth_server() as canary, truth_server() as baseline:
        loadtest.run(job_of(store, canary, baseline, observe_seconds=0.5, workload=LOAD, watch=None))
    summary, rows = left(store)
    assert summary["seconds"] >= 0.5
    assert summary["stopped"] is None
    assert rows[-1]["at"] >= 0.5


def test_a_server_that_does_not_answer_leaves_a_gap_and_no_figures(tmp_path: Path) -> None:
    with truth_server() as server, (tmp_path / "rows").open("wb") as file:
        servers = {"canary": [server.url], "baseline": ["http://127.0.0.1:9"]}
        scraper = Scraper(servers, file, every=60, synthetic=True)
        scraper.start()
        told = scraper.stop()
    rows = list(unpack_rows((tmp_path / "rows").read_bytes()))
    assert told == {"servers": 2, "moments": 2, "failures": 2}
    assert ["error" in row for row in rows] == [False, True] * 2
    assert "vllm:e2e_request_latency_seconds_sum" in rows[0]["text"]
    assert "vllm:num_requests_running" not in rows[0]["text"]  # nobody reads it
    assert live_of(rows).canary == []


def test_a_phase_has_some_thirty_scrapes_and_a_day_no_more_than_a_thousand() -> None:
    assert period(1) == EVERY[0]
    assert period(60) == 2
    assert period(300) == period(3000) == EVERY[1]
    assert 86_400 / period(86_400) == pytest.approx(1000)
