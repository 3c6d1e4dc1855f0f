"""What the peers leave is read as moments of first tokens, and held to what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.model import NotMeasured
from benchmarks.suites.peers import _errors
from benchmarks.tools import TOOLS, Load
from benchmarks.truth import Truth
from trainyard.bench.stamps import offset

LEFT = {
    "vllm": ("vllm.json", {"start_times": [5.0, 6.0], "ttfts": [0.5, 0.25]}),
    "guidellm": (
        "guidellm.json",
        {
            "benchmarks": [
                {"requests": {"successful": [{"info": {"timings": {"first_token_iteration": 0.0}}}] * 2}}
            ]
        },
    ),
    "aiperf": (
        "aiperf/profile_export.jsonl",
        {"metadata": {"request_start_ns": 0}, "metrics": {"time_to_first_token": {"value": 1500.0}}},
    ),
}


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.program)
def test_first_tokens_are_read_from_what_each_tool_leaves(tool, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    name, document = LEFT[tool.program]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps(document) + "\n")
    ahead = offset() / 1e9
    expected = {"vllm": [5.5, 6.25], "guidellm": [-ahead] * 2, "aiperf": [1.5 - ahead]}[tool.program]
    assert tool.read(tmp_path) == pytest.approx(expected, abs=0.01)
    words = tool.command(Load("http://127.0.0.1:1", 3, 2, 8), tmp_path, tmp_path)
    assert any("http://127.0.0.1:1" in word for word in words)


def test_a_tool_that_is_not_there_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAINYARD_PEERS", str(tmp_path))
    with pytest.raises(NotMeasured, match=r"no vllm in TRAINYARD_PEERS"):
        TOOLS[0].find()


def test_an_error_is_the_distance_to_the_nearest_writes_in_order() -> None:
    truths = [Truth(0.0, [(0.1, 1), (0.2, 1)]), Truth(0.05, [(0.15, 1)]), Truth(9.0)]
    bias, p99 = _errors([0.153, 0.101], truths)
    assert bias == pytest.approx(0.02)
    assert p99 == pytest.approx(0.003)
    with pytest.raises(NotMeasured, match="3 first tokens were reported, 2 were written"):
        _errors([0.1, 0.1, 0.1], truths)
