"""What a load test tells people, and what its release remembers of it."""

from __future__ import annotations

import json
import logging

import pytest

from tests.support.world import World
from tests.unit.rollout.simulated import simulate
from trainyard.bench.samples import pack
from trainyard.stages import load
from trainyard.stages.measured import prefix
from trainyard.stages.reporting import report_key, write_report


def test_the_log_has_every_figure_and_the_record_keeps_what_tokens_cost(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.promoted(0, "run-1")
    second = world.deployed(world.planned(1, "run-2"))
    summary, samples = simulate(1, pairs=60, tokens=4)
    place = f"{prefix(second, load.PHASE)}0/"
    world.ctx.objects.put(f"{place}samples.ndjson.gz", pack(samples))
    world.ctx.objects.put(f"{place}summary.json", json.dumps(summary).encode())
    with caplog.at_level(logging.INFO, "trainyard"):
        done = load.finish(world.again(), world.load(second))
    assert "canary: 60 requests, 0 failed" in done.note
    for words in (
        "goodput ",
        "tokens/s a NeuronCore, $",
        "cost of baseline and canary: 1 of 16 chips",
        "p99.9",
        "ttft baseline",
        "tpot canary",
    ):
        assert words in caplog.text
    kept = world.load(second).verdicts["load"]["summary"]
    assert kept["arms"]["canary"]["goodput"]["requests"] > 0
    assert kept["arms"]["baseline"]["economy"]["cores"] > 0
    write_report(world.again(), world.load(second))
    page = world.ctx.objects.get(report_key(second)).body.decode()
    assert "$ per million output tokens" in page
    assert "Canary over baseline" in page
