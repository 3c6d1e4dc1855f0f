"""A Hub with one repository of two commits, in its own process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from local.checkpoints.checkpoint import write_checkpoint
from local.hub.repository import publish

TOKEN = "hf_valid"
REPO = "acme/tiny"


@dataclass
class RunningHub:
    root: Path
    url: str
    first: str
    second: str
    sources: tuple[Path, Path]

    def api(self, token: str | bool = TOKEN) -> HfApi:
        return HfApi(endpoint=self.url, token=token)

    def fault(self, **content: Any) -> None:
        fresh = self.root / "faults.new"
        fresh.write_text(json.dumps(content))
        fresh.replace(self.root / "faults.json")  # in one step: the Hub reads it with every request

    def log(self) -> list[dict[str, Any]]:
        whole, _, _ = (self.root / "access.jsonl").read_text().rpartition("\n")  # one may be half written
        return [json.loads(line) for line in whole.splitlines()]

    def gets(self, path: str, count: int = 0, sent: int = 0) -> list[dict[str, Any]]:
        """GETs on record whose paths match somewhere, as soon as there are `count` and `sent` bytes: a client
        has a whole file before the Hub has written its line."""
        deadline = time.monotonic() + 60
        while True:
            found = [line for line in self.log() if line["method"] == "GET" and re.search(path, line["path"])]
            enough = len(found) >= count and sum(line["sent"] for line in found) >= sent
            if enough or time.monotonic() > deadline:
                return found
            time.sleep(0.01)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    base = tmp_path_factory.mktemp("hub")
    root = base / "root"
    one, two = (write_checkpoint(base / f"seed-{seed}", seed=seed) for seed in (1, 2))
    (two / "extra" / "deep").mkdir(parents=True)
    (two / "extra" / "deep" / "note.txt").write_text("deep")
    first = publish(root, REPO, one, tag="v1", title="First")
    second = publish(root, REPO, two, title="Second")
    publish(root, REPO, one, branch="feature/x")
    process = subprocess.Popen(
        [sys.executable, "-m", "local.hub", "--root", root, "--token", TOKEN],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ,
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    yield RunningHub(root, url, first, second, (one, two))
    process.terminate()
    assert process.wait(60) == 0


@pytest.fixture
def hub(running: RunningHub) -> Iterator[RunningHub]:
    """The Hub without faults, and with an access log of this test alone."""
    # It writes a file's line after the file's last byte; an answer to what is asked now comes after all the
    # lines of what was asked before.
    urllib.request.urlopen(f"{running.url}/healthz", timeout=60).close()
    (running.root / "access.jsonl").write_text("")
    yield running
    (running.root / "faults.json").unlink(missing_ok=True)
