"""A release whose load is an open loop of conversations, from its spec to its verdict; and its warm-up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.seaweed import S3Server
from tests.support.truth_server import truth_server
from tests.support.world import World
from trainyard.jobs import loadtest
from trainyard.stages import load, warmup
from trainyard.stages.context import Skip

LOAD: dict[str, Any] = {
    "duration_seconds": 2,
    "prompt_tokens": 6,
    "output_tokens": 3,
    "max_lag_seconds": 60,
    "arrivals": {"process": "constant", "rate": 10},
    "workload": {"shape": "lognormal", "prompt": {"median": 8, "sigma": 0.5, "max": 20}},
    "prefix": {"groups": 2, "tokens": 10},
    "conversation": {"turns": 2},
}


@pytest.fixture
def in_pods(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)


def job_of(pod: Any) -> dict[str, Any]:
    assert not isinstance(pod, Skip)
    variables = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
    found: dict[str, Any] = json.loads(variables["TRAINYARD_JOB"])
    return found


@pytest.mark.usefixtures("in_pods")
def test_an_open_loop_goes_from_the_spec_to_the_verdict(world: World) -> None:
    first = world.promoted(0, "run-1")
    world.catalogue(
        rollout={
            "load": LOAD,
            "extensions": 0,  # on a busy machine a part may be invalid, and another would be measured
            "objectives": {"min_samples": 20, "max_ratio": 10, "ttft_p95_seconds": 60},
            "steps": [],
        }
    )
    second = world.deployed(world.planned(1, "run-2"))
    world.endpoints(first, "127.64.0.1")
    world.endpoints(second, "127.64.0.2")
    job = job_of(load.pod(world.again(), world.load(second)))
    with truth_server(ttft=0.005, itl=0.001) as canary, truth_server(ttft=0.005, itl=0.001) as baseline:
        urls = {"canary": [canary.url], "baseline": [baseline.url]}
        name = {"model": "m"}  # as the truth servers call it
        loadtest.run({**job, **name, "arms": urls, "servers": urls})
        asked = [len(server.truths) for server in (canary, baseline)]
    done = load.finish(world.again(), world.load(second))
    verdict = world.load(second).verdicts["load"]
    # Twenty conversations of two turns; some had no time for their second: those of the last moment, and
    # those in which the machine stood still.
    assert asked[0] == asked[1] == verdict["summary"]["arms"]["canary"]["requests"]
    assert 20 < asked[0] <= 40
    assert f"canary: {asked[0]} requests, 0 failed" in done.note
    assert verdict["summary"]["generator"]["achieved"] == 1.0
    assert verdict["summary"]["workload"]["conversation"] == {"turns": 2, "think_seconds": 0.0}


def test_a_warm_up_visits_every_bucket_of_every_server(world: World) -> None:
    release = world.deployed(world.planned())
    world.endpoints(release, "127.64.0.1", "127.64.0.2")
    job = job_of(warmup.pod(world.again(), world.load(release)))
    assert job["urls"] == ["http://127.64.0.1:8000", "http://127.64.0.2:8000"]
    compiled = release.spec.compile
    lengths = [tokens for tokens, together in job["visits"] if together == 1]
    buckets = [128 * 2**power for power in range(12) if 128 * 2**power <= compiled.sequence_length]
    assert all(any(size // 2 < tokens <= size for tokens in lengths) for size in buckets[1:])
    assert max(lengths) < compiled.sequence_length
    assert max(together for _, together in job["visits"]) == compiled.batch_size
    assert job["images"] is None
