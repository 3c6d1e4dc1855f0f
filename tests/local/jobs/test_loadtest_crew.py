"""Load tests that several pods carry: real jobs, each a process, that meet in a real S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.faulty_s3 import Rule, faulty_s3
from tests.support.seaweed import S3Server
from tests.support.truth_server import truth_server
from tests.support.waiting import wait_for
from trainyard.bench.samples import unpack
from trainyard.jobs.runtime import EXIT_PERMANENT, EXIT_TRANSIENT, RESULT_PREFIX
from trainyard.store.objects import Objects

ROOT = Path(__file__).parents[3] / "include"
OUTPUT = "measurements/m/r/load/0/"
# A machine that stands still for seconds is no lost worker, and no clock that is wrong.
SOON = {"silence_seconds": 15, "beat_seconds": 0.3, "go_seconds": 8, "ready_seconds": 120}
QUICK: dict[str, Any] = {"output_tokens": 6, "timeout_seconds": 60, "max_loop_lag_seconds": 60}

Pods = list[subprocess.Popen[str]]


@pytest.fixture
def pods() -> Iterator[Pods]:
    running: Pods = []
    yield running
    for pod in running:
        with suppress(ProcessLookupError):
            os.killpg(pod.pid, signal.SIGKILL)
        pod.communicate()


def start(
    pods: Pods, s3: S3Server, job: dict[str, Any], of: int, tmp_path: Path, only: int | None = None
) -> None:
    for index in range(of) if only is None else [only]:
        told = {**job, "crew": {"index": index, "of": of, "attempt": "0a", **SOON}}
        environment = {
            **os.environ,
            **s3.environment,
            "PYTHONPATH": str(ROOT),
            "TRAINYARD_JOB": json.dumps(told),
            "TRAINYARD_TERMINATION_LOG": str(tmp_path / f"termination-{index}"),
        }
        argv = [sys.executable, "-m", "trainyard.jobs", "loadtest"]
        pods.append(
            subprocess.Popen(
                argv,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )


def job_of(bucket: str, arms: dict[str, list[str]], workload: dict[str, Any]) -> dict[str, Any]:
    return {
        "bucket": bucket,
        "output": OUTPUT,
        "seed": 5,
        "model": "m",
        "arms": arms,
        "workload": {**QUICK, **workload},
    }


def ended(pod: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = pod.communicate(timeout=240)
    return pod.returncode, output


def test_two_pods_leave_one_summary_with_every_pair_once(
    s3_server: S3Server, bucket: str, pods: Pods, tmp_path: Path
) -> None:
    with truth_server(ttft=0.01, itl=0.001) as canary, truth_server(ttft=0.01, itl=0.001) as baseline:
        job = job_of(
            bucket,
            {"canary": [canary.url], "baseline": [baseline.url]},
            {"concurrency": 3, "requests": 60, "duration_seconds": 60},
        )
        start(pods, s3_server, job, 2, tmp_path)
        results = [ended(pod) for pod in pods]
        asked = {"canary": len(canary.truths), "baseline": len(baseline.truths)}
    assert [code for code, _ in results] == [0, 0], "\n".join(output for _, output in results)
    told = json.loads(results[0][1].splitlines()[-1].removeprefix(RESULT_PREFIX))
    store = Objects(s3_server.client(), bucket)
    # What they told each other is gone.
    kept = {info.key.removeprefix(OUTPUT) for info in store.list(OUTPUT)}
    assert kept == {"samples.ndjson.gz", "summary.json"}
    samples = unpack(store.get(f"{OUTPUT}samples.ndjson.gz").body)
    summary = json.loads(store.get(f"{OUTPUT}summary.json").body)
    assert {arm: figures["requests"] for arm, figures in summary["arms"].items()} == asked
    assert told["arms"]["canary"]["requests"] == asked["canary"]
    assert summary["workers"] == 2
    assert Counter(sample.pair for sample in samples) == dict.fromkeys(range(60), 2)
    assert [sample.started for sample in samples] == sorted(sample.started for sample in samples)
    assert {sample.user for sample in samples} == {0, 1, 2}  # both took part


def test_a_bucket_that_hangs_stumbles_and_loses_answers_costs_nothing(
    s3_server: S3Server, bucket: str, pods: Pods, tmp_path: Path
) -> None:
    with truth_server(ttft=0.01, itl=0.001) as server, faulty_s3(s3_server.endpoint) as faulty:
        job = job_of(
            bucket,
            {"canary": [server.url]},
            {"arrivals": {"process": "constant", "rate": 40}, "duration_seconds": 3},
        )
        faulty.rules += [
            Rule("lost", "PUT", r"go\.json"),
            Rule("hang", "PUT", r"beat-1"),  # one connection that says no more; the next one is well
            Rule("status", "GET", r"list-type", times=8),  # more than a client repeats
            Rule("status", "PUT", r"done-1", times=8),
            Rule("hang", "GET", r"rows/"),
        ]
        start(pods, S3Server(faulty.endpoint), job, 2, tmp_path)
        results = [ended(pod) for pod in pods]
        asked = len(server.truths)
    assert [code for code, _ in results] == [0, 0], "\n".join(output for _, output in results)
    assert not any(rule.times for rule in faulty.rules)
    store = Objects(s3_server.client(), bucket)
    summary = json.loads(store.get(f"{OUTPUT}summary.json").body)
    assert summary["arms"]["canary"]["requests"] == asked == 120


def test_a_pod_that_is_killed_in_the_middle_fails_the_whole_test_and_leaves_no_summary(
    s3_server: S3Server, bucket: str, pods: Pods, tmp_path: Path
) -> None:
    store = Objects(s3_server.client(), bucket)
    with truth_server(ttft=0.01, itl=0.001) as server:
        job = job_of(
            bucket,
            {"canary": [server.url]},
            {"arrivals": {"process": "constant", "rate": 20}, "duration_seconds": 180},
        )
        start(pods, s3_server, job, 2, tmp_path)
        wait_for(lambda: list(store.list(f"{OUTPUT}rows/0a/1/")))
        os.killpg(pods[1].pid, signal.SIGKILL)  # as a container goes: all its processes at once
        code, output = ended(pods[0])
    assert code == EXIT_TRANSIENT, output
    assert json.loads((tmp_path / "termination-0").read_text()) == {
        "error": "TransientError",
        "message": "worker 1 of the load test said nothing for 15 s; what was measured is not judged",
    }
    kept = {info.key.removeprefix(OUTPUT) for info in store.list(OUTPUT)}
    assert "summary.json" not in kept
    assert {"crew/0a/failed-0.json", "rows/0a/1/000001.ndjson.gz"} < kept  # to look at; the others heard


def test_a_pod_that_cannot_even_begin_is_not_waited_for(
    s3_server: S3Server, bucket: str, pods: Pods, tmp_path: Path
) -> None:
    Objects(s3_server.client(), bucket).put("traces/friday.jsonl", b'{"at": 0}\n{"at": 1}\n')
    for index, trace in enumerate(("friday", "gone")):
        replayed = {"arrivals": {"process": "trace"}, "trace": f"traces/{trace}.jsonl"}
        own = job_of(bucket, {"canary": ["http://127.0.0.1:9"]}, replayed)
        start(pods, s3_server, own, 2, tmp_path, only=index)
    results = [ended(pod) for pod in pods]
    assert [code for code, _ in results] == [EXIT_TRANSIENT, EXIT_PERMANENT], results
    assert "worker 1 of the load test gave up: " in results[0][1]
    assert "traces/gone.jsonl" in results[0][1]
