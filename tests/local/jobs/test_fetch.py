"""Hub to S3: verified, once, resumable; and what is refused before a byte moves."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local.checkpoints.checkpoint import write_checkpoint
from local.checkpoints.shape import Shape
from tests.support.hub import LocalHub
from tests.support.seaweed import S3Server
from tests.support.waiting import wait_for
from trainyard.errors import CorruptArtifact, NotFound, PermanentError, Refused
from trainyard.hub import Hub
from trainyard.jobs.fetch import fetch
from trainyard.jobs.runtime import EXIT_PERMANENT, EXIT_STOPPED, RESULT_PREFIX
from trainyard.store import keys
from trainyard.store.models import read_model
from trainyard.store.objects import Objects

REPO = "tests/Fetched"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_checkpoint(folder, seed=2, shape=Shape())
    return folder


@pytest.fixture
def revision(hub: LocalHub, checkpoint: Path) -> str:
    return hub.publish(REPO, checkpoint)


@pytest.fixture
def client(hub: LocalHub) -> Hub:
    return Hub(hub.endpoint)


def blobs(store: Objects) -> set[str]:
    return {info.key.rpartition("/")[2] for info in store.list("blobs/")}


def test_every_file_arrives_with_its_content(
    store: Objects, client: Hub, revision: str, checkpoint: Path
) -> None:
    manifest, sent_files, sent_bytes = fetch(store, client, REPO, revision)
    assert manifest == read_model(store, REPO, revision)
    assert (sent_files, sent_bytes) == (len(manifest.files), manifest.size)
    for entry in manifest.files:
        body = (checkpoint / entry.path).read_bytes()
        assert store.get(keys.blob(entry.sha256)).body == body
    assert {"config.json", "tokenizer.json"} <= {entry.path for entry in manifest.files}


def test_the_same_revision_again_asks_the_hub_for_nothing(
    store: Objects, client: Hub, hub: LocalHub, revision: str
) -> None:
    first, _, _ = fetch(store, client, REPO, revision)
    asked = len(hub.requests())
    assert fetch(store, client, REPO, revision) == (first, 0, 0)
    assert len(hub.requests()) == asked


def test_shards_that_another_revision_brought_are_not_sent_again(
    store: Objects, client: Hub, hub: LocalHub, revision: str, checkpoint: Path, tmp_path: Path
) -> None:
    fetch(store, client, REPO, revision)
    for source in checkpoint.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "note": "second"}))
    second = hub.publish(REPO, tmp_path)
    _, sent_files, _ = fetch(store, client, REPO, second)
    assert sent_files == 1


def test_one_flipped_bit_on_the_way_is_caught_and_mended(
    store: Objects, client: Hub, hub: LocalHub, revision: str
) -> None:
    # The header is read first; the flip must hit the transfer of the weights.
    hub.break_by({"match": "cdn-lfs.*safetensors", "method": "GET", "flip_bit": 70_000, "count": 2})
    manifest, _, _ = fetch(store, client, REPO, revision)
    for entry in manifest.files:
        assert hashlib.sha256(store.get(keys.blob(entry.sha256)).body).hexdigest() == entry.sha256


def test_a_source_that_is_damaged_is_named_and_nothing_becomes_visible(
    store: Objects, client: Hub, hub: LocalHub, revision: str
) -> None:
    hub.break_by({"match": "safetensors", "method": "GET", "flip_bit": 70_000})
    with pytest.raises(CorruptArtifact, match=r"\.safetensors"):
        fetch(store, client, REPO, revision)
    with pytest.raises(NotFound):
        read_model(store, REPO, revision)
    for digest in blobs(store):
        assert hashlib.sha256(store.get(keys.blob(digest)).body).hexdigest() == digest


def test_a_small_file_outside_lfs_is_checked_by_its_git_id(
    store: Objects, client: Hub, hub: LocalHub, revision: str
) -> None:
    hub.break_by({"match": "resolve/.*/tokenizer_config.json", "method": "GET", "flip_bit": 20})
    with pytest.raises((CorruptArtifact, PermanentError)):
        fetch(store, client, REPO, revision)
    with pytest.raises(NotFound):
        read_model(store, REPO, revision)


def test_what_is_refused_moves_no_weights(
    store: Objects, client: Hub, hub: LocalHub, checkpoint: Path, tmp_path: Path
) -> None:
    for source in checkpoint.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / "modeling_evil.py").write_text("import os")
    evil = hub.publish("tests/Evil", tmp_path)
    with pytest.raises(Refused, match=r"modeling_evil\.py"):
        fetch(store, client, "tests/Evil", evil)
    (tmp_path / "modeling_evil.py").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.X"}}))
    evil = hub.publish("tests/Evil", tmp_path)
    with pytest.raises(Refused, match="auto_map"):
        fetch(store, client, "tests/Evil", evil)
    assert blobs(store) == set()


def test_a_broken_header_is_refused_before_the_weights(
    store: Objects, client: Hub, hub: LocalHub, checkpoint: Path, tmp_path: Path
) -> None:
    for source in checkpoint.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    shard = next(tmp_path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes() + b"trailing")
    broken = hub.publish("tests/Broken", tmp_path)
    with pytest.raises(CorruptArtifact, match="tensors have"):
        fetch(store, client, "tests/Broken", broken)
    assert blobs(store) == set()


def start(
    s3_server: S3Server, hub: LocalHub, bucket: str, revision: str, tmp_path: Path
) -> subprocess.Popen[str]:
    """The job as a pod runs it."""
    job = {"bucket": bucket, "repo": REPO, "revision": revision, "endpoint": hub.endpoint, "concurrency": 1}
    environment = {
        **os.environ,
        **s3_server.environment,
        "TRAINYARD_JOB": json.dumps(job),
        "TRAINYARD_TERMINATION_LOG": str(tmp_path / "termination"),
        "HF_TOKEN": "hf_canary_token_value",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "trainyard.jobs", "fetch"],
        env={**environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, EXIT_STOPPED)]
)
def test_a_killed_fetch_shows_nothing_and_is_resumed(
    s3_server: S3Server, hub: LocalHub, store: Objects, revision: str, tmp_path: Path, number: int, code: int
) -> None:
    largest = max(Hub(hub.endpoint).files(REPO, revision), key=lambda file: file.size)
    # The header's read goes through. What follows takes so long that it is under way at any later moment.
    weights = {"match": f"cdn-lfs.*{largest.path}", "method": "GET"}
    hub.break_by({**weights, "count": 1}, {**weights, "rate": max(10, largest.size // 3000)})
    asked = len(hub.requests())
    process = start(s3_server, hub, store.bucket, revision, tmp_path)
    wait_for(lambda: any("cdn-lfs" in str(line) for line in hub.requests()[asked:]))
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    with pytest.raises(NotFound):
        read_model(store, REPO, revision)
    hub.break_by()
    resumed = start(s3_server, hub, store.bucket, revision, tmp_path)
    output, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, output
    result = json.loads(output.splitlines()[-1].removeprefix(RESULT_PREFIX))
    assert result["manifest"] == read_model(store, REPO, revision).key


def test_a_failed_job_says_why_to_the_kubelet_and_hides_the_token(
    s3_server: S3Server, hub: LocalHub, bucket: str, tmp_path: Path
) -> None:
    process = start(s3_server, hub, bucket, "f" * 40, tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == EXIT_PERMANENT, output
    told = json.loads((tmp_path / "termination").read_text())
    assert told["error"] == "NotFound"
    assert "revision" in told["message"]
    assert "hf_canary_token_value" not in output + told["message"]
