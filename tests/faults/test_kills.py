"""kill -9 of fetch and publish at random times: nothing partial is ever visible, and a resume finishes.

Eight processes at a time do the same and are killed one after another, while a reader looks at all manifests
and blobs. 16 kills here; TRAINYARD_KILLS=200 for all of them, TRAINYARD_FAULT_SEED for other times:

    TRAINYARD_KILLS=200 .venv/bin/python -m pytest tests/faults/test_kills.py -s
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.context import ForkServerProcess

import pytest

from tests.support.artifacts import (
    INPUTS,
    PUBLISHED,
    bundle_files,
    model_files,
    publish_on_hub,
    stage,
)
from tests.support.hub import LocalHub
from tests.support.seaweed import S3Server
from tests.support.victims import kill, start_fetch, start_publish, warm_up
from tests.support.watcher import Watcher
from trainyard.errors import NotFound
from trainyard.hub import Hub
from trainyard.jobs.fetch import fetch
from trainyard.store import keys
from trainyard.store.bundles import publish_bundle
from trainyard.store.models import read_model
from trainyard.store.objects import Objects

KILLS = int(os.environ.get("TRAINYARD_KILLS", "16"))
SEED = int(os.environ.get("TRAINYARD_FAULT_SEED", "4"))
AT_ONCE = 8
SHARDS = (8 << 20, 400_000, 300_000)
REPO = "tests/Killed"

Start = Callable[[int], ForkServerProcess]


@pytest.fixture
def watcher(store: Objects) -> Iterator[Watcher]:
    with Watcher(store) as found:
        yield found
    assert found.wrong == []
    assert found.looks > 2


def run_and_kill(start: Start, longest: float, source: random.Random) -> tuple[int, list[int]]:
    """How many were killed at work, and how the others ended."""
    began = time.monotonic()
    victims = [(start(number), source.uniform(0, longest)) for number in range(AT_ONCE)]
    killed = 0
    for process, at in sorted(victims, key=lambda victim: victim[1]):
        time.sleep(max(0.0, began + at - time.monotonic()))
        killed += kill(process)
    ended = []
    for process, _ in victims:
        process.join(60)
        if process.exitcode is not None and process.exitcode >= 0:
            ended.append(process.exitcode)
    return killed, ended


def duration(start: Start) -> float:
    """How long all of them take when nobody kills them; they end well."""
    warm_up()
    began = time.monotonic()
    processes = [start(number) for number in range(AT_ONCE)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * AT_ONCE
    took = time.monotonic() - began
    print(f"{AT_ONCE} at once take {took:.1f} s")
    return took


def whole(store: Objects, files: Mapping[str, bytes], entries: Mapping[str, str]) -> bool:
    """Are these the files, with their bytes, in S3?"""
    return set(files) == set(entries) and all(
        store.get(keys.blob(digest)).body == files[path] for path, digest in entries.items()
    )


def test_a_fetch_that_is_killed_shows_nothing_partial_and_its_resume_finishes(
    store: Objects, s3_server: S3Server, hub: LocalHub, watcher: Watcher
) -> None:
    source = random.Random(SEED)
    # A model of its own a round: nothing of it is there before.
    made = {}

    def start_in(number: int) -> Start:
        repo = f"{REPO}-{number}"
        files = model_files(1000 * SEED + number, SHARDS)
        made[number] = (repo, publish_on_hub(hub, repo, files), files)
        job = {"bucket": store.bucket, "repo": repo, "revision": made[number][1], "endpoint": hub.endpoint}
        return lambda _: start_fetch(s3_server.environment, job)

    longest = duration(start_in(0))
    killed, rounds, before = 0, 0, 0
    while killed < KILLS // 2:
        rounds += 1
        assert rounds < KILLS, "hardly any is killed at work"
        found, ended = run_and_kill(start_in(rounds), longest, source)
        killed += found
        longest = longest if found else longest / 2  # the machine may have stood still while it was measured
        # Those that nobody killed finish, or say that they met a killed one's leavings: never a defect.
        assert set(ended) <= {0, 75}
        repo, revision, files = made[rounds]
        try:
            read_model(store, repo, revision)
        except NotFound:
            before += 1
        manifest, _, _ = fetch(store, Hub(hub.endpoint), repo, revision)
        assert whole(store, files, {entry.path: entry.sha256 for entry in manifest.files})
    watcher.look()
    assert len(watcher.manifests) == rounds + 1
    print(f"{killed} fetches killed in {rounds} rounds; {before} times nothing was published by then")


def test_a_publish_that_is_killed_shows_nothing_partial_and_its_resume_finishes(
    store: Objects, s3_server: S3Server, watcher: Watcher
) -> None:
    source = random.Random(SEED + 1)

    def start_in(number: int) -> Start:
        return lambda victim: start_publish(
            s3_server.environment, store.bucket, f"f{number}", f"try{victim}", 1000 * SEED + number
        )

    longest = duration(start_in(0))
    killed, rounds = 0, 0
    while killed < KILLS - KILLS // 2:
        rounds += 1
        assert rounds < KILLS, "hardly any is killed at work"
        found, ended = run_and_kill(start_in(rounds), longest, source)
        killed += found
        longest = longest if found else longest / 2
        assert set(ended) <= {0}
        files = bundle_files(1000 * SEED + rounds, PUBLISHED)
        prefix = stage(store, f"f{rounds}", "last", files)
        published = publish_bundle(
            store, f"f{rounds}", prefix, inputs=INPUTS, engine="optimum", versions={}, target="trn2"
        )
        entries = {entry.path: entry.sha256 for entry in published.manifest.files}
        assert whole(store, files, entries)
        assert entries == {path: hashlib.sha256(body).hexdigest() for path, body in files.items()}
    watcher.look()
    assert len(watcher.manifests) == rounds + 1
    print(f"{killed} publishers killed in {rounds} rounds")
