"""What `trainyard bench` leaves: goodput, cost and the knee, on the page, as JSON and as text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.truth_server import truth_server
from trainyard.errors import Refused
from trainyard_cli.bench_report import hardware
from trainyard_cli.main import app

QUICK = ["--no-warm-up", "--output-tokens", "4", "--prompt-tokens", "8", "--max-lag", "30"]


def test_a_sweep_says_its_knee_its_goodput_and_what_tokens_cost(tmp_path: Path) -> None:
    page, folder = tmp_path / "shown" / "out.html", tmp_path / "all"
    limits = ["--ttft-limit", "5", "--itl-limit", "5", "--e2e-limit", "0.000001"]
    cost = ["--instance-type", "trn2.48xlarge", "--cores", "8"]
    with truth_server(ttft=0.001, itl=0.0005) as server:
        words = ["bench", server.url, "--rate", "10,20", "--process", "constant", "--duration", "0.5"]
        words += [*QUICK, *limits, *cost, "--out", str(folder), "--report", str(page)]
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "server: 20/s offered" in done.output
    assert "server: knee " in done.output  # where: in half a second and on a busy machine, chance
    assert "goodput 0.00 requests/s, 0.0% of the requests" in done.output  # nobody answers in a microsecond
    assert "tokens/s a NeuronCore, $" in done.output
    assert "cost of server: 2 of 16 chips of a trn2.48xlarge, $35.76 an hour (capacity-block" in done.output
    figures = json.loads((folder / "summary.json").read_text())["arms"]["server"]
    per_core = figures["economy"]["output_tokens_per_second_per_core"]
    assert per_core == pytest.approx(figures["output_tokens_per_second"] / 8, abs=0.001)
    shown = page.read_text()
    assert re.search(
        r"server: 15 of 15 requests succeeded, p95 of the first token [\d.]+ m?s, 0\.0 % met", shown
    )
    assert "Sweep to the knee" in shown
    assert "$ per million output tokens" in shown
    assert not (folder / "report.html").exists()
    phase = json.loads((folder / "report.json").read_text())["phases"][0]
    assert [step["offered"] for step in phase["summary"]["sweep"]["server"]["steps"]] == [10.0, 20.0]


def test_without_a_word_about_the_hardware_there_is_no_cost(tmp_path: Path) -> None:
    with truth_server(ttft=0.001, itl=0.0005) as server:
        words = ["bench", server.url, "--concurrency", "1", "--requests", "9", *QUICK]
        done = CliRunner().invoke(app, [*words, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "$" not in done.output
    assert "NeuronCore" not in (tmp_path / "report.html").read_text()
    assert "goodput" not in json.loads((tmp_path / "summary.json").read_text())["arms"]["server"]


def test_what_is_known_of_the_hardware_is_used() -> None:
    assert hardware(None, None, None) is None
    whole = hardware("inf2.xlarge", None, None)
    assert whole is not None
    assert (whole.cores, whole.dollars_per_hour) == (2, 0.7582)
    given = hardware(None, 4, 3.0)
    assert given is not None
    assert (given.cores, given.dollars_per_hour, given.price) == (4, 3.0, "$3.00 an hour, as given")
    with pytest.raises(Refused, match=r"(?s)--cores.*--price-per-hour"):
        hardware(None, 0, float("nan"))
    with pytest.raises(Refused, match="trn9"):
        hardware("trn9.big", None, None)
