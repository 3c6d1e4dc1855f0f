"""Commands that are run to their end, or until they say that they are done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.processes import left_of, processes
from trainyard.jobs import command
from trainyard.jobs.command import run_command

# A server that has done its work, and stays: with a child of its own.
STAYS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
print("INFO Model warmup completed: 6 buckets", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "CHECK_SECONDS", 0.05)


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_a_command_that_stays_is_ended_when_it_says_that_it_is_done(tmp_path: Path) -> None:
    log = tmp_path / "log"
    finished = run_command(python(STAYS), {}, log, until="Model warmup completed")
    assert finished.code == 0
    assert finished.seconds < 300
    # It was told to end together with its parent, which was waited for.
    assert left_of(processes([int(log.read_text().split()[1])])) == []


def test_a_command_that_ends_before_it_is_done_has_failed_as_it_says(tmp_path: Path) -> None:
    finished = run_command(python("print('no'); raise SystemExit(3)"), {}, tmp_path / "log", until="warmup")
    assert finished.code == 3
    assert finished.tail == ("no",)


def test_without_such_words_only_its_end_counts(tmp_path: Path) -> None:
    finished = run_command(python("print('Model warmup completed')"), {}, tmp_path / "log")
    assert finished.code == 0
