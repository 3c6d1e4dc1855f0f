"""`trainyard bench` against servers that know the truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.truth_server import truth_server
from trainyard.bench.arrivals import Stage
from trainyard.bench.knee import knee, steps
from trainyard.bench.samples import Sample, unpack
from trainyard.bench.trace import read_trace
from trainyard.errors import Refused
from trainyard_cli.benching import base, parse_stages
from trainyard_cli.main import app

QUICK = ["--no-warm-up", "--output-tokens", "4", "--prompt-tokens", "8", "--max-lag", "30"]


def test_two_servers_are_measured_in_an_open_loop_and_reported(tmp_path: Path) -> None:
    with (
        truth_server(ttft=0.002, itl=0.001, faults=("", "", "", "cut")) as one,
        truth_server(ttft=0.001, itl=0.001) as other,
    ):
        words = ["bench", f"{one.url}/v1", "--baseline", other.url, "--rate", "20", "--process", "constant"]
        done = CliRunner().invoke(app, [*words, *QUICK, "--duration", "1", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "server: 20 requests, 5 failed (cut 5), 0 cut off" in done.output
    assert "baseline: 20 requests, 0 failed" in done.output
    assert "ttft_from_intended" in done.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["generator"]["achieved"] == 1.0
    assert len(unpack((tmp_path / "samples.ndjson.gz").read_bytes())) == 40
    page = (tmp_path / "report.html").read_text()
    assert "Load test of m" in page
    assert "<script" not in page
    assert "http" not in page.replace(one.url, "").replace(other.url, "")  # nothing to load from anywhere


def test_a_server_that_only_fails_is_no_success_and_json_is_for_machines(tmp_path: Path) -> None:
    with truth_server(faults=("http_5xx",)) as server:
        words = ["bench", server.url, "--concurrency", "1", "--requests", "3", "--json"]
        done = CliRunner().invoke(app, [*words, *QUICK, "--out", str(tmp_path)])
    assert done.exit_code == 1
    summary = json.loads(done.stdout)
    assert set(summary["arms"]["server"]["failures"]) == {"http_5xx"}


def test_a_server_that_does_not_answer_is_said_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "http://127.0.0.1:9", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "http://127.0.0.1:9/v1/models does not answer" in done.output
    assert CliRunner().invoke(app, ["bench", "127.0.0.1:9"]).exit_code == 1


def test_rates_are_steps_or_ramps() -> None:
    assert parse_stages("5,0-10", 3) == [
        {"seconds": 3, "rate": 5.0, "to": 5.0},
        {"seconds": 3, "rate": 0.0, "to": 10.0},
    ]
    with pytest.raises(Refused, match="is no rate"):
        parse_stages("5,", 3)
    assert base("http://a:1/v1/") == base("http://a:1") == "http://a:1"


def test_a_trace_begins_with_its_first_request(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp": 27482}\n\n{"timestamp": 27000}\n{"at": 27.5}\n')
    assert [row.at for row in read_trace(path).rows] == [0.0, 0.482, 0.5]
    path.write_text('{"at": 1}\n{"when": 2}\n')
    with pytest.raises(Refused, match=r"trace\.jsonl:2"):
        read_trace(path)


def test_the_knee_is_the_last_rate_that_is_served_in_time() -> None:
    """A server of 20 requests a second, each 50 ms: 10 and 18 a second are served, 30 queue up."""
    samples, free, due = [], 0.0, 0.0
    stages = [Stage(10, rate, rate) for rate in (10.0, 18.0, 30.0)]
    for number, stage in enumerate(stages):
        for count in range(int(stage.expected)):
            due = 10.0 * number + count / stage.rate
            free = max(free, due) + 0.05
            samples.append(Sample(arm="a", started=due, ttft=free - due, e2e=free - due, ok=True))
    found = steps(samples, stages)
    assert [step.good for step in found] == [True, True, False]
    assert [step.offered for step in found] == [10, 18, 30]
    assert found[2].served == pytest.approx(20, rel=0.05)
    top = knee(found)
    assert top is not None
    assert top.offered == 18
    assert knee(steps(samples, stages, limit=0.01)) is None
