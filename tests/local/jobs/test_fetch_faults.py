"""What the Hub and S3 can do to a fetch of several parts, and what it costs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.faulty_s3 import Faulty, Rule
from tests.support.hub import LocalHub
from tests.support.seaweed import S3Server
from tests.support.shards import PART, write_model
from tests.support.waiting import wait_for
from trainyard import hub_content
from trainyard.errors import CorruptArtifact, HubUnavailable, NotFound, PermanentError
from trainyard.hub import Hub
from trainyard.jobs import mirror
from trainyard.jobs.fetch import fetch
from trainyard.store import keys
from trainyard.store.models import read_model
from trainyard.store.objects import Objects

REPO = "tests/Parts"
# Five parts, and three.
SIZES = (4 * PART + 4321, 2 * PART + 1)
HEADERS = 2 * (64 << 10)
JOB = """
import json, sys
from trainyard.jobs import fetch, mirror
mirror.PART_SIZE = int(sys.argv[1])
fetch.run(json.loads(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PART_SIZE", PART)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("parts") / "model", *SIZES)


@pytest.fixture
def revision(hub: LocalHub, source: Path) -> str:
    return hub.publish(REPO, source)


@pytest.fixture
def through(faulty: Faulty, s3_server: S3Server, bucket: str) -> Objects:
    return Objects(s3_server.client(endpoint_url=faulty.endpoint, attempts=2), bucket)


def parts_sent(faulty: Faulty) -> list[str]:
    return [line for line in faulty.seen if line.startswith("PUT") and "partNumber" in line]


def reads_of_blobs(faulty: Faulty) -> list[str]:
    return [line for line in faulty.seen if line.startswith("GET") and "/blobs/" in line and "?" not in line]


def weights(hub: LocalHub, since: int) -> list[dict[str, object]]:
    return [line for line in hub.requests()[since:] if "safetensors" in line["path"]]


def check_whole(store: Objects, revision: str, source: Path) -> None:
    for entry in read_model(store, REPO, revision).files:
        body = store.get(keys.blob(entry.sha256)).body
        assert body == (source / entry.path).read_bytes()


def nothing_shows(store: Objects, revision: str) -> None:
    with pytest.raises(NotFound):
        read_model(store, REPO, revision)
    for info in store.list(keys.BLOBS):
        digest = info.key.rpartition("/")[2]
        assert hashlib.sha256(store.get(info.key).body).hexdigest() == digest


def test_each_byte_is_read_once_sent_once_and_never_read_back(
    through: Objects, faulty: Faulty, hub: LocalHub, revision: str, source: Path
) -> None:
    asked = len(hub.requests())
    _, _, sent = fetch(through, Hub(hub.endpoint), REPO, revision)
    assert sent == sum(SIZES) + (source / "config.json").stat().st_size
    lines = weights(hub, asked)
    assert sum(line["sent"] for line in lines if line["status"] == 206) == sum(SIZES) + HEADERS
    # The Hub is asked once a file where it is; the CDN gets every other request.
    assert sum("/resolve/" in line["path"] for line in lines) == len(SIZES)
    assert len(parts_sent(faulty)) == 8
    assert reads_of_blobs(faulty) == []
    check_whole(through, revision, source)


def test_a_killed_fetch_sends_at_most_one_part_a_stream_again(
    through: Objects, faulty: Faulty, s3_server: S3Server, hub: LocalHub, revision: str, source: Path
) -> None:
    streams = 2
    # Four parts arrive; then each stream is in the middle of one, whenever the kill comes.
    faulty.rules = [Rule("", match="partNumber", times=4), Rule("hang", match="partNumber", times=streams)]
    job = {"bucket": through.bucket, "repo": REPO, "revision": revision, "endpoint": hub.endpoint}
    environment = {**os.environ, **s3_server.environment, "AWS_ENDPOINT_URL_S3": faulty.endpoint}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, str(PART), json.dumps({**job, "concurrency": streams})], env=environment
    )
    wait_for(lambda: process.poll() is not None or not any(rule.times for rule in faulty.rules))
    process.send_signal(signal.SIGKILL)
    process.wait()
    nothing_shows(through, revision)
    assert len(parts_sent(faulty)) == 4 + streams
    fetch(through, Hub(hub.endpoint), REPO, revision)
    assert len(parts_sent(faulty)) == 8 + streams
    check_whole(through, revision, source)


def test_one_flipped_bit_costs_one_part_again(
    through: Objects, faulty: Faulty, hub: LocalHub, revision: str, source: Path
) -> None:
    hub.break_by({"match": "cdn-lfs.*00001-of", "method": "GET", "flip_bit": PART + 99, "count": 1})
    fetch(through, Hub(hub.endpoint), REPO, revision)
    assert 8 <= len(parts_sent(faulty)) <= 8 + 2
    check_whole(through, revision, source)


def test_a_source_that_ignores_ranges_is_read_in_one_stream(
    through: Objects, faulty: Faulty, hub: LocalHub, revision: str, source: Path
) -> None:
    hub.break_by({"match": "safetensors", "method": "GET", "ignore_range": True})
    fetch(through, Hub(hub.endpoint), REPO, revision)
    assert len(parts_sent(faulty)) == 8
    check_whole(through, revision, source)


def test_a_connection_that_breaks_goes_on_where_it_broke(
    through: Objects, hub: LocalHub, revision: str, source: Path
) -> None:
    hub.break_by({"match": "cdn-lfs.*safetensors", "method": "GET", "truncate": 3 << 20})
    fetch(through, Hub(hub.endpoint), REPO, revision)
    check_whole(through, revision, source)


def test_an_etag_that_changes_is_named_and_nothing_shows(
    through: Objects, hub: LocalHub, revision: str
) -> None:
    hub.break_by({"match": "cdn-lfs.*00001-of", "method": "GET", "moving_etag": True})
    with pytest.raises(CorruptArtifact, match="changes while it is read: its ETag was"):
        fetch(through, Hub(hub.endpoint), REPO, revision)
    nothing_shows(through, revision)


def test_another_digest_than_was_listed_is_refused_before_a_byte(
    through: Objects, hub: LocalHub, revision: str
) -> None:
    hub.break_by({"match": "resolve/.*safetensors", "method": "GET", "moving_etag": True})
    with pytest.raises(CorruptArtifact, match="never change"):
        fetch(through, Hub(hub.endpoint), REPO, revision)
    assert list(through.list(keys.BLOBS)) == []


def test_a_limit_is_waited_out_as_asked(through: Objects, hub: LocalHub, revision: str, source: Path) -> None:
    rule = {"match": "cdn-lfs.*safetensors", "method": "GET", "status": 429, "retry_after": 1, "count": 2}
    hub.break_by(rule)
    began = time.monotonic()
    fetch(through, Hub(hub.endpoint), REPO, revision)
    assert time.monotonic() - began >= 1
    check_whole(through, revision, source)


def test_a_limit_that_is_too_long_is_left_to_the_task_with_its_time(
    through: Objects, hub: LocalHub, revision: str
) -> None:
    hub.break_by({"match": "cdn-lfs", "method": "GET", "status": 429, "retry_after": 4000})
    with pytest.raises(HubUnavailable, match="limits how much") as failed:
        fetch(through, Hub(hub.endpoint), REPO, revision)
    assert failed.value.retry_after == 4000


def test_a_few_5xx_are_outlived(through: Objects, hub: LocalHub, revision: str, source: Path) -> None:
    hub.break_by({"match": "cdn-lfs.*safetensors", "method": "GET", "status": 503, "count": 3})
    fetch(through, Hub(hub.endpoint), REPO, revision)
    check_whole(through, revision, source)


def test_an_address_that_expired_is_asked_for_anew(
    through: Objects, hub: LocalHub, revision: str, source: Path
) -> None:
    hub.break_by({"match": "cdn-lfs.*safetensors", "method": "GET", "status": 403, "count": 2})
    client = Hub(hub.endpoint)
    asked = len(hub.requests())
    # The first look at a shard finds its address; what comes later finds it expired.
    hub.break_by()
    source_reader = client.content.reader(REPO, revision, shard(hub, revision).path, SIZES[0])
    buffer = memoryview(bytearray(100))
    source_reader.read_into(0, buffer, lambda: None)
    hub.break_by({"match": "cdn-lfs.*safetensors", "method": "GET", "status": 403, "count": 1})
    source_reader.read_into(0, buffer, lambda: None)
    lines = weights(hub, asked)
    assert sum("/resolve/" in line["path"] for line in lines) == 2
    assert bytes(buffer) == (source / shard(hub, revision).path).read_bytes()[:100]


def shard(hub: LocalHub, revision: str) -> hub_content.Any:
    return max(Hub(hub.endpoint).files(REPO, revision), key=lambda file: file.size)


def test_a_gated_model_without_a_token_says_what_to_do(
    through: Objects, hub: LocalHub, revision: str
) -> None:
    hub.break_by(gated=[REPO])
    with pytest.raises(PermanentError, match="licence"):
        fetch(through, Hub(hub.endpoint), REPO, revision)
    assert list(through.list(keys.BLOBS)) == []


def test_progress_is_told_in_a_document_of_its_own(
    s3_server: S3Server, bucket: str, hub: LocalHub, revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainyard.jobs.fetch import run

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    job = {
        "bucket": bucket,
        "repo": REPO,
        "revision": revision,
        "endpoint": hub.endpoint,
        "release": "t-1",
    }
    run(job)
    told = json.loads(Objects(s3_server.client(), bucket).get(keys.progress("t-1")).body)
    assert (told["done"], told["seconds_left"], told["files_done"]) == (told["total"], 0, told["files"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["at"])
