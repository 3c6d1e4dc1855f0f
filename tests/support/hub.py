"""The local Hub as a process, with tiny checkpoints to publish."""

from __future__ import annotations

import itertools
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_numbers = itertools.count(1)


@dataclass(frozen=True)
class LocalHub:
    endpoint: str
    root: Path

    def publish(self, repo: str, folder: Path, **options: Any) -> str:
        """Make the folder a commit of the repository; returns its SHA."""
        from local.hub.repository import publish

        return publish(self.root, repo, folder, **options)

    def break_by(self, *rules: dict[str, Any], **restrictions: list[str]) -> None:
        """Faults from now on, as `local.hub.faults` describes them; nothing mends everything."""
        # The Hub counts how often it used a rule by the rule's words: no later one is to have the same.
        own = [{**rule, "match": f"(?#{next(_numbers)}){rule.get('match', '')}"} for rule in rules]
        new = self.root / "faults.json.new"
        new.write_text(json.dumps({"rules": own, **restrictions}))
        new.replace(self.root / "faults.json")  # whole at any time: the Hub reads it with every request

    def requests(self) -> list[dict[str, Any]]:
        """What was asked for so far."""
        whole, _, _ = (self.root / "access.jsonl").read_text().rpartition("\n")  # another may be half written
        return [json.loads(line) for line in whole.splitlines()]


@pytest.fixture(scope="session")
def hub_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("hub")
    process = subprocess.Popen(
        [sys.executable, "-m", "local.hub", "--root", str(root), "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        yield LocalHub(_address(process), root)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[str]) -> str:
    """The Hub prints where it listens."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and selector.select(timeout=1) is not None:
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                return found[0]
            if process.poll() is not None:
                break
    raise RuntimeError("the local Hub did not start")


@pytest.fixture
def hub(hub_process: LocalHub) -> Iterator[LocalHub]:
    """The Hub without faults; what a test breaks is mended after it."""
    hub_process.break_by()
    yield hub_process
    hub_process.break_by()
