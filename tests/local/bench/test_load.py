"""Locust as its own process, against servers that know the truth."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.truth_server import TruthServer, truth_server
from trainyard.bench import generator, load, split
from trainyard.bench.load import run_load
from trainyard.bench.samples import unpack
from trainyard.bench.shapes import Conversation
from trainyard.bench.split import observe_split
from trainyard.bench.warmup import Bucket, ask_smoke, inspect_server, warm_bucket
from trainyard.bench.workload import Workload
from trainyard.errors import PermanentError, Refused, TransientError
from trainyard.jobs import loadtest, warmup
from trainyard.jobs.runtime import RESULT_PREFIX
from trainyard.rollout.judge import judge
from trainyard.rollout.verdict import Objectives
from trainyard.store.objects import Objects

ROOT = Path(__file__).parents[3] / "include"
OBJECTIVES = Objectives(ttft_p95_seconds=1, itl_p95_seconds=0.1)
QUICK: dict[str, Any] = {"duration_seconds": 1.2, "output_tokens": 8, "timeout_seconds": 60}


def test_a_load_test_pod_measures_both_arms_and_leaves_samples_and_summary(store: Objects) -> None:
    faults = ("", "", "", "cut", "", "http_5xx")
    with (
        truth_server(ttft=0.02, itl=0.002, faults=faults, names=("m", "m@2")) as canary,
        truth_server(ttft=0.005, itl=0.001) as baseline,
    ):
        job = {
            "bucket": store.bucket,
            "output": "releases/m/r/load/load/",
            "seed": 3,
            "model": "m",
            "arms": {"canary": [canary.url], "baseline": [baseline.url]},
            # On a busy machine too: as many as there are, however long that takes.
            "workload": {
                **QUICK,
                "duration_seconds": 60,
                "requests": 40,
                "max_loop_lag_seconds": 60,
                "max_cpu_share": 60,
            },
            "split": {"url": canary.url, "probes": 20, "canary_name": "m@2"},
        }
        pod = subprocess.run(
            [sys.executable, "-m", "trainyard.jobs", "loadtest"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TRAINYARD_JOB": json.dumps(job)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        truths = {"canary": canary.truths, "baseline": baseline.truths}
    assert pod.returncode == 0, pod.stdout + pod.stderr
    result = json.loads(pod.stdout.splitlines()[-1].removeprefix(RESULT_PREFIX))
    prefix = f"s3://{store.bucket}/"
    samples = unpack(store.get(result["samples"].removeprefix(prefix)).body)
    summary = json.loads(store.get(result["summary"].removeprefix(prefix)).body)
    for arm, seen in truths.items():
        figures = summary["arms"][arm]
        assert figures["requests"] == len(seen) == sum(sample.arm == arm for sample in samples) == 40
        # Failures of the server and failures in the record are the same, one by one.
        assert Counter(figures["failures"]) == Counter(truth.fault for truth in seen if truth.fault)
    # Every pair asked both arms the same.
    assert set(Counter(sample.pair for sample in samples).values()) == {2}
    prompts = {arm: {t.body["messages"][0]["content"] for t in seen} for arm, seen in truths.items()}
    assert prompts["canary"] == prompts["baseline"]
    assert summary["split"]["share"] == 1.0
    # The judge understands what the pod left.
    verdict = judge(summary, samples, OBJECTIVES, baseline_expected=True, expected_share=1.0)
    assert {check.outcome for check in verdict.checks if check.kind in ("split", "generator")} == {"pass"}


class StopWhen:
    """A `Watch` that ends the test once the server has come to something."""

    def __init__(self, come: Callable[[], bool]) -> None:
        self._come, self._over = come, threading.Event()

    def follow(self, files: Sequence[Path], halt: Path, began: float) -> None:
        def look() -> None:
            while not self._over.wait(0.01):
                if self._come():
                    halt.touch()
                    return

        threading.Thread(target=look, daemon=True).start()

    def end(self) -> None:
        self._over.set()


def test_what_is_in_flight_at_the_end_is_drained_or_counted_as_censored() -> None:
    with truth_server(ttft=0.001, itl=0.001, faults=("", "", "hang")) as server:

        def asked() -> Counter[str]:
            return Counter(truth.fault for truth in list(server.truths))

        samples, summary = run_load(
            model="m",
            arms={"canary": [server.url]},
            workload=Workload(**{**QUICK, "duration_seconds": 120, "drain_seconds": 0.1}),
            seed=1,
            stop=StopWhen(lambda: asked()["hang"] == 4),  # every user hangs in the end
        )
        happened = asked()
    figures = summary["arms"]["canary"]
    assert figures["censored"] == happened["hang"] == 4
    assert figures["succeeded"] == happened[""]
    assert len(samples) == sum(happened.values())


def test_an_open_loop_waits_for_the_answers_to_what_it_sent_last() -> None:
    arrivals = {"process": "constant", "rate": 20}
    workload = Workload(**{**QUICK, "duration_seconds": 0.5, "arrivals": arrivals})
    with truth_server(ttft=0.6, itl=0.001) as server:  # the first token comes when the schedule is over
        samples, summary = run_load(model="m", arms={"canary": [server.url]}, workload=workload, seed=1)
    figures = summary["arms"]["canary"]
    assert (figures["requests"], figures["succeeded"], figures["censored"]) == (10, 10, 0)
    assert all(sample.e2e is not None and sample.e2e > 0.6 for sample in samples)


def test_no_request_begins_when_the_run_is_over() -> None:
    """A user between two requests is killed at once, and may have begun the next one by then."""
    with truth_server(ttft=0.0, itl=0.0) as server:
        workload = Workload(concurrency=48, duration_seconds=0.6, output_tokens=1)
        samples, summary = run_load(model="m", arms={"canary": [server.url]}, workload=workload, seed=1)
        assert len(samples) == len(server.truths)
    assert summary["arms"]["canary"]["censored"] == 0
    assert all(sample.ok and sample.ttft for sample in samples)


def test_a_cap_on_requests_ends_the_run_early_and_addresses_take_turns() -> None:
    with truth_server(ttft=0.001, itl=0.0005) as one, truth_server(ttft=0.001, itl=0.0005) as two:
        workload = Workload(**{**QUICK, "duration_seconds": 60, "requests": 10})
        samples, summary = run_load(model="m", arms={"canary": [one.url, two.url]}, workload=workload, seed=1)
        assert (len(one.truths), len(two.truths)) == (5, 5)
    assert len(samples) == 10
    assert summary["arms"]["canary"]["failed"] == 0


def test_a_generator_that_breaks_down_is_a_transient_error_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        generator, "environment", lambda described: {**os.environ, "TRAINYARD_LOAD": "/nowhere"}
    )
    with pytest.raises(TransientError, match=r"(?s)broke down, exit code 1.*/nowhere"):
        run_load(model="m", arms={"canary": ["http://127.0.0.1:1"]}, workload=Workload(), seed=1)


def all_of(server: TruthServer, wanted: int) -> int:
    """How many requests the server has read: those of the last moment may wait for it still."""
    deadline = time.monotonic() + 60
    while len(server.truths) < wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(server.truths)


def test_an_open_loop_sends_by_its_schedule_while_the_server_hangs() -> None:
    arrivals = {"process": "poisson", "rate": 40}
    workload = Workload(**{**QUICK, "arrivals": arrivals, "processes": 2, "drain_seconds": 0.5})
    assert workload.schedule is not None
    moments = workload.schedule.schedule(5)
    with truth_server(ttft=0.001, itl=0.0005, faults=("hang",)) as server:
        samples, summary = run_load(model="m", arms={"canary": [server.url]}, workload=workload, seed=5)
        asked = all_of(server, len(samples))
    # A closed loop would have sent four, one of each user.
    assert len(samples) == asked == len(moments) == summary["arms"]["canary"]["censored"] > 20
    assert summary["generator"]["achieved"] == 1.0
    # Two processes kept one schedule, each pair once.
    assert sorted(sample.pair for sample in samples if sample.pair is not None) == list(range(len(moments)))
    intended = sorted(sample.started + sample.intended for sample in samples)
    assert [moment - intended[0] for moment in intended] == pytest.approx(
        [moment - moments[0] for moment in moments], abs=1e-5
    )
    assert all(sample.intended <= 0 for sample in samples)


def test_a_turn_that_comes_due_as_the_run_ends_is_sent_and_counted_or_neither() -> None:
    workload = Workload(
        arrivals={"process": "constant", "rate": 100},
        conversation=Conversation(turns=60, think_seconds=0.002),  # so that some are, most of the time
        duration_seconds=0.4,
        drain_seconds=0.0,
        output_tokens=1,
    )
    with truth_server(ttft=0.0, itl=0.0) as server:
        arms = {"canary": [server.url], "baseline": [server.url]}
        samples, summary = run_load(model="m", arms=arms, workload=workload, seed=5)
    assert summary["generator"]["scheduled"] == len(samples) > 40


def test_a_running_test_tells_how_it_goes_over_all_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "TELL_SECONDS", 0.3)
    told: list[str] = []
    workload = Workload(**{**QUICK, "concurrency": 2, "processes": 2, "requests": 30, "duration_seconds": 60})
    with truth_server(ttft=0.02, itl=0.002) as server:
        with load.measure(
            model="m",
            arms={"canary": [server.url]},
            workload=workload,
            seed=1,
            beat_seconds=0.1,
            say=told.append,
        ) as taken:
            total = taken.seen.arms["canary"]
            assert total.requests == len(server.truths) == 30
            assert {path.stat().st_size > 0 for path in taken.files} == {True}
    line = r"\d+ s: canary: \d+ requests, ttft p50 \d+\.\d p99 \d+\.\d ms, itl p50 .* ms, e2e p50 .* ms"
    assert re.fullmatch(line, told[-1]), told


def test_in_an_open_loop_both_arms_are_asked_the_same_at_the_same_moment() -> None:
    arrivals = {"process": "constant", "rate": 20}
    workload = Workload(**{**QUICK, "duration_seconds": 0.5, "arrivals": arrivals})
    with truth_server(ttft=0.001, itl=0.0005) as one, truth_server(ttft=0.001, itl=0.0005) as two:
        samples, _ = run_load(
            model="m", arms={"canary": [one.url], "baseline": [two.url]}, workload=workload, seed=1
        )
    moments: dict[int | None, list[float]] = {}
    for sample in samples:
        moments.setdefault(sample.pair, []).append(sample.started + sample.intended)
    assert len(samples) == 20
    # Both times of a sample are rounded by themselves.
    assert all(max(found) - min(found) < 1e-6 for found in moments.values())


def test_which_arm_of_a_pair_is_asked_first_is_left_to_chance() -> None:
    """Whoever comes second finds a server or a network that the first has warmed up."""
    workload = Workload(
        **{**QUICK, "concurrency": 1, "duration_seconds": 30, "requests": 24, "output_tokens": 2}
    )
    with truth_server(ttft=0.0, itl=0.0) as server:
        arms = {"canary": [server.url], "baseline": [server.url]}
        samples, _ = run_load(model="m", arms=arms, workload=workload, seed=1)
    first = Counter(sample.arm for sample in samples[::2])  # one after the other, pair by pair
    assert [sample.pair for sample in samples] == [pair for pair in range(24) for _ in arms]
    assert 6 <= first["canary"] <= 18


def test_a_server_that_refuses_connections_is_not_hammered() -> None:
    workload = Workload(**{**QUICK, "duration_seconds": 60, "requests": 20})
    samples, summary = run_load(model="m", arms={"canary": ["http://127.0.0.1:9"]}, workload=workload, seed=1)
    assert summary["arms"]["canary"]["failures"] == {"connect": 20}
    # Four users, each at most ten times a second: the last ones of the twenty come after 0.4 s, or later.
    assert samples[-1].started - samples[0].started > 0.3


def test_a_job_that_lacks_fields_is_refused_with_all_of_them() -> None:
    with pytest.raises(Refused, match=r"output = None.*\n.*model = None") as error:
        loadtest.run({"bucket": "b", "arms": {"baseline": ["http://127.0.0.1:1"]}})
    assert "arms.canary" in str(error.value)


def test_the_split_is_counted_answer_by_answer() -> None:
    with truth_server(names=("m", "m@1")) as server:
        seen = observe_split(server.url, canary_name="m@2", probes=23)
        assert server.connections == 3 + 10  # thirteen probes on three kept connections, ten alone
    assert (seen["answered"], seen["canary"], seen["share"]) == (23, 0, 0.0)
    assert seen["statuses"] == {"200": 23}


def test_a_gateway_that_does_not_answer_is_counted_as_failures() -> None:
    seen = observe_split("http://127.0.0.1:9", canary_name="m@2", probes=3, timeout=1)
    assert (seen["failures"], seen["share"]) == (3, None)
    assert seen["errors"] == {"ConnectionRefusedError": 3}


def test_a_gateway_that_hangs_does_not_keep_the_verdict_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()  # at a clock of its own: 50 ms a probe
    monkeypatch.setattr(split, "time", SimpleNamespace(monotonic=lambda: next(looks) * 0.05))
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        url = f"http://127.0.0.1:{hangs.getsockname()[1]}"
        seen = observe_split(url, canary_name="m@2", probes=50, timeout=0.05, most_seconds=0.18)
    assert (seen["probes"], seen["failures"], seen["wanted"]) == (3, 3, 50)
    assert seen["errors"] == {"TimeoutError": seen["probes"]}


def test_warm_up_stops_when_latency_has_settled() -> None:
    with truth_server(ttft=0.02, itl=0.001) as server:
        bucket = warm_bucket(server.url, "m", 16, rounds=300, output_tokens=4, timeout=60)
    assert bucket.settled
    assert 6 <= len(bucket.latencies) < 300


def test_a_server_that_never_answers_a_bucket_is_a_permanent_error() -> None:
    with truth_server(faults=("http_5xx",)) as server:
        with pytest.raises(PermanentError, match=r"none of 3 generations .* 500: oops"):
            warm_bucket(server.url, "m", 16, rounds=3, output_tokens=4, timeout=60)


def test_a_server_that_was_taken_away_is_asked_for_again(
    store: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pod was evicted while it warmed up: that says nothing of the model."""
    with pytest.raises(TransientError, match=r"none of 3 generations .* connect: "):
        warm_bucket("http://127.0.0.1:9", "m", 16, rounds=3, output_tokens=4, timeout=60)
    monkeypatch.setattr(warmup, "inspect_server", lambda url, model, timeout: {"url": url})
    monkeypatch.setattr(warmup, "warm_bucket", lambda *_, **__: Bucket("u", 16, (0.1,), (), True))
    job = {"bucket": store.bucket, "output": "w/", "model": "m", "prompts": ["hello"]}
    with pytest.raises(TransientError, match=r"1 of 1 smoke prompts failed.* connect: "):
        warmup.run({**job, "urls": ["http://127.0.0.1:9"]})


def test_a_server_of_another_model_is_refused() -> None:
    with truth_server(names=("other",)) as server:
        with pytest.raises(PermanentError, match="serves other, not m"):
            inspect_server(server.url, "m", timeout=60)


def test_answers_that_differ_at_temperature_zero_are_a_problem() -> None:
    with truth_server(ttft=0.001, itl=0.0002, same_answer=False) as server:
        smoke = ask_smoke(server.url, "m", "hello", output_tokens=4, timeout=60)
    assert "differ" in smoke.problem


def test_a_failed_smoke_prompt_fails_the_job_and_is_on_record(store: Objects) -> None:
    job = {
        "bucket": store.bucket, "output": "w/", "model": "m", "prompts": ["hello"], "visits": [[8, 1]],
        "max_rounds": 3, "output_tokens": 4,
    }  # fmt: skip
    with truth_server(ttft=0.001, itl=0.0002) as server:
        result = warmup.run({**job, "urls": [server.url]})
    assert result["smoke"] == 1
    assert json.loads(store.get("w/warmup.json").body)["ok"] is True
    with truth_server(ttft=0.001, itl=0.0002, faults=("", "", "", "cut", "")) as server:
        with pytest.raises(PermanentError, match=r"1 of 1 smoke prompts failed, first 'hello'.* cut"):
            warmup.run({**job, "urls": [server.url]})
    document = json.loads(store.get("w/warmup.json").body)
    assert document["ok"] is False
    assert document["smoke"][0]["problem"].startswith("cut: ")
