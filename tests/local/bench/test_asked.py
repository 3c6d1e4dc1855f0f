"""What servers are really asked: conversations, traces and pictures, on the wire."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.truth_server import Truth, truth_server
from trainyard.bench.load import run_load
from trainyard.bench.samples import Sample, unpack
from trainyard.bench.shapes import Conversation
from trainyard.bench.workload import Workload
from trainyard.errors import Refused
from trainyard.jobs import loadtest, warmup
from trainyard.load_spec import Load
from trainyard.rollout.judge import judge
from trainyard.rollout.verdict import Objectives
from trainyard.stages.workloads import workload_of
from trainyard.store.objects import Objects
from trainyard_cli.main import app

QUICK: dict[str, Any] = {"prompt_tokens": 6, "output_tokens": 4, "timeout_seconds": 60}


def said(truths: Sequence[Truth], role: str) -> list[tuple[str, ...]]:
    """The messages of one role, request by request."""
    return [
        tuple(message["content"] for message in truth.body["messages"] if message["role"] == role)
        for truth in truths
    ]


def pairs_of(samples: Sequence[Sample]) -> dict[int, list[Sample]]:
    pairs: dict[int, list[Sample]] = {}
    for sample in samples:
        assert sample.pair is not None
        pairs.setdefault(sample.pair, []).append(sample)
    return pairs


def test_each_arm_of_a_conversation_hears_its_own_answers_and_the_same_questions() -> None:
    workload = Workload(
        **QUICK, concurrency=2, requests=12, conversation=Conversation(turns=3, think_seconds=0.01)
    )
    with (
        truth_server(ttft=0.002, itl=0.001, text="one ") as canary,
        truth_server(ttft=0.001, itl=0.001, text="two ") as baseline,
    ):
        samples, _ = run_load(
            model="m", arms={"canary": [canary.url], "baseline": [baseline.url]}, workload=workload, seed=1
        )
    assert all(sample.ok for sample in samples)
    for server, text in ((canary, "one " * 4), (baseline, "two " * 4)):
        heard = Counter(said(server.truths, "assistant"))
        assert heard == {(): 4, (text,): 4, (text, text): 4}
    asked = [sorted(said(server.truths, "user")) for server in (canary, baseline)]
    assert asked[0] == asked[1]
    # What came first in a conversation comes first in all its requests.
    longest = [questions for questions in asked[0] if len(questions) == 3]
    assert len(longest) == 4
    assert all(questions[:2] in asked[0] and questions[:1] in asked[0] for questions in longest)
    pairs = pairs_of(samples)
    assert sorted(pairs) == list(range(12))
    for number, both in pairs.items():
        assert {sample.arm for sample in both} == {"canary", "baseline"}
        assert {(sample.user, sample.turn) for sample in both} == {divmod(number, 3)}
    turns = sorted((sample for sample in samples if sample.arm == "canary"), key=lambda one: one.pair or 0)
    prompts = [sample.prompt_tokens or 0 for sample in turns]
    assert all(first < second < third for first, second, third in zip(*[iter(prompts)] * 3, strict=True))


def test_an_open_loop_begins_conversations_on_schedule_and_ends_those_that_fail() -> None:
    workload = Workload(
        **QUICK,
        duration_seconds=1.5,
        arrivals={"process": "constant", "rate": 6},
        max_loop_lag_seconds=30,
        max_cpu_share=30,
        conversation=Conversation(turns=2, think_seconds=0.02),
    )
    with (
        truth_server(ttft=0.002, itl=0.001, faults=("", "", "http_5xx")) as canary,
        truth_server(ttft=0.001, itl=0.001) as baseline,
    ):
        samples, summary = run_load(
            model="m", arms={"canary": [canary.url], "baseline": [baseline.url]}, workload=workload, seed=1
        )
    assert summary["generator"]["valid"], summary["generator"]["reasons"]
    assert summary["generator"]["achieved"] == 1.0
    pairs = pairs_of(samples)
    begun = {number for number in pairs if number % 2 == 0}
    assert begun == {2 * number for number in range(9)}
    for number, both in pairs.items():
        assert {sample.arm for sample in both} == {"canary", "baseline"}
        first = pairs[number - number % 2]
        if number % 2:
            # Asked on only where both had answered, and due when the slower of them had.
            assert all(sample.ok for sample in first)
            answered = max(sample.started + (sample.e2e or 0) for sample in first)
            assert all(sample.started + sample.intended >= answered - 1e-6 for sample in both)
    assert any(not sample.ok for number in begun for sample in pairs[number])
    assert len(pairs) < 18


def picture(truth: Truth) -> bytes:
    """The one of the only message."""
    (message,) = truth.body["messages"]
    shown, text = message["content"]
    assert text["type"] == "text"
    kind, data = shown["image_url"]["url"].split(",")
    assert kind == "data:image/png;base64"
    return base64.b64decode(data)


def test_a_trace_in_s3_is_replayed_by_the_job_with_pictures_and_judged(store: Objects) -> None:
    rows = [
        {"timestamp": 40 * number, "input_length": 520 + number, "output_length": 2 + number % 3,
         "hash_ids": [7, number]}
        for number in range(30)
    ]  # fmt: skip
    store.put("traces/a.jsonl", "\n".join(json.dumps(row) for row in rows).encode())
    load = Load(
        arrivals={"process": "trace", "speed": 2},
        workload={"shape": "trace", "trace": f"s3://{store.bucket}/traces/a.jsonl"},
        images={"width": 40, "height": 20},
        max_lag_seconds=30,
    )
    with truth_server(ttft=0.002, itl=0.001) as canary, truth_server(ttft=0.002, itl=0.001) as baseline:
        job = {
            "bucket": store.bucket, "output": "measurements/m/r/load/0/", "phase": "load", "seed": 1,
            "model": "m", "arms": {"canary": [canary.url], "baseline": [baseline.url]},
            "workload": {**workload_of(load, 0.45), "max_cpu_share": 30},
        }  # fmt: skip
        result = loadtest.run(job)
    prefix = f"s3://{store.bucket}/"
    samples = unpack(store.get(result["samples"].removeprefix(prefix)).body)
    summary = json.loads(store.get(result["summary"].removeprefix(prefix)).body)
    assert summary["workload"]["trace"] == load.workload.trace
    moments = sorted(sample.started + sample.intended for sample in samples if sample.arm == "canary")
    assert [moment - moments[0] for moment in moments] == pytest.approx(
        [0.02 * number for number in range(23)], abs=1e-5
    )
    for server in (canary, baseline):
        # Requests of one moment may overtake each other: what each was tells its row.
        texts = {truth.body["messages"][0]["content"][1]["text"]: truth for truth in server.truths}
        rows_seen = {len(text.split()) - 520: truth for text, truth in texts.items()}
        assert sorted(rows_seen) == list(range(23))
        assert all(truth.body["max_tokens"] == 2 + row % 3 for row, truth in rows_seen.items())
        assert len({" ".join(text.split()[:512]) for text in texts}) == 1
        assert len({picture(truth) for truth in server.truths}) == 23
    verdict = judge(
        summary,
        samples,
        Objectives(ttft_p95_seconds=1, itl_p95_seconds=0.5, min_samples=20),
        baseline_expected=True,
    )
    assert {check.outcome for check in verdict.checks if check.kind == "generator"} == {"pass"}
    with pytest.raises(Refused, match=r"traces/none\.jsonl.*is not there"):
        loadtest.run({**job, "workload": {**workload_of(load, 1), "trace": "traces/none.jsonl"}})


def test_a_warm_up_visits_buckets_and_batches_of_every_server_with_pictures_too(store: Objects) -> None:
    with truth_server(ttft=0.001, itl=0.0002) as one, truth_server(ttft=0.001, itl=0.0002) as two:
        result = warmup.run(
            {
                "bucket": store.bucket, "output": "w/", "model": "m", "urls": [one.url, two.url],
                "prompts": ["hi"], "visits": [[3, 1], [9, 1], [3, 2]], "images": {"width": 16, "height": 16},
                "max_rounds": 2, "warm_tokens": 2, "output_tokens": 3,
            }
        )  # fmt: skip
    assert (result["smoke"], result["failures"]) == (2, 0)
    for server in (one, two):
        contents = [truth.body["messages"][0]["content"] for truth in server.truths]
        plain = Counter(len(content.split()) for content in contents if isinstance(content, str))
        assert plain == {3: 2 + 2 * 2, 9: 2, 1: 2}
        assert sum(isinstance(content, list) for content in contents) == 2
    rows = json.loads(store.get("w/warmup.json").body)["buckets"]
    assert Counter((row["prompt_tokens"], row["together"]) for row in rows) == {
        (3, 1): 4,
        (9, 1): 2,
        (3, 2): 2,
    }


def test_the_command_line_talks_to_a_server_and_keeps_the_warm_up_out(tmp_path: Path) -> None:
    with truth_server(ttft=0.001, itl=0.0005) as server:
        words = (
            "--turns 2 --requests 8 --concurrency 2 --prompt-tokens 20 --prompt-sigma 0.5 --prefix-groups 2 "
            "--prefix-tokens 30 --output-tokens 3 --max-lag 30"
        )
        done = CliRunner().invoke(app, ["bench", server.url, *words.split(), "--out", str(tmp_path)])
        asked = len(server.truths)
    assert "server: 8 requests, 0 failed" in done.output
    assert f"warm-up of {server.url}: 3 buckets, " in done.output
    samples = unpack((tmp_path / "samples.ndjson.gz").read_bytes())
    assert len(samples) == 8 < asked
    page = (tmp_path / "report.html").read_text()
    assert "log-normal (median 20, sigma 0.5, 1 to 160)" in page
    assert "2 of 30 tokens" in page
    assert "2 turns" in page
