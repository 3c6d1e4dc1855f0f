"""Releases of models that are not on the Hub: planned, fetched, followed, signed, and rolled back to."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rich.console import Console
from typer.testing import CliRunner

from local.checkpoints.checkpoint import write_checkpoint
from tests.support.models import write_entry
from tests.support.world import REPO, World
from trainyard import catalogue
from trainyard.errors import Conflict, CorruptArtifact, Refused, Unsigned
from trainyard.hub import Hub
from trainyard.jobs.fetch import fetch as fetch_model
from trainyard.jobs.fetch import fetch_from
from trainyard.release import Plan, Release
from trainyard.sources import open_source, parse
from trainyard.spec import Request
from trainyard.stages import fetch, plan, refresh
from trainyard.stages.context import Skip
from trainyard.store import keys
from trainyard.store.documents import decode, encode
from trainyard.store.signing import FIELD, Keyring, key_id
from trainyard_cli import adding, records
from trainyard_cli.main import app
from trainyard_cli.plan_question import Options
from trainyard_cli.planning import run as plan_command

NAME = "tests/ours"
KEY = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
RING = Keyring({key_id(KEY.public_key()): KEY.public_key()}, KEY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(write_checkpoint(tmp_path / "checkpoint", seed=7))


def upload(world: World, folder: Path) -> str:
    objects = world.ctx.objects
    for path in folder.iterdir():
        objects.put(f"ours/model/{path.name}", path.read_bytes())
    return f"s3://{objects.bucket}/ours/model"


def follow(world: World, source: str, **model: Any) -> None:
    world.document["model"] = {"repo": NAME, "source": source, **model}
    write_entry(world.folder, world.document)


def planned(world: World, run: str = "run-1", **request: Any) -> Release:
    found = plan.run(world.again(), Request(release="tiny", **request), run).release
    assert found is not None
    return found


def only_planned(world: World, **request: Any) -> Plan:
    spec = catalogue.resolve(world.folder, Request(release="tiny", **request))
    return plan.make_plan(world.again(), spec)


def run_pod(world: World, release: Release) -> dict[str, Any]:
    """What the fetch stage's pod would do, by the job that it is given."""
    pod = fetch.pod(world.again(), release)
    assert not isinstance(pod, Skip)
    environment = pod["spec"]["containers"][0]["env"]
    job: dict[str, Any] = json.loads(
        next(each["value"] for each in environment if each["name"] == "TRAINYARD_JOB")
    )
    source = open_source(parse(job["source"]), world.ctx.objects, Hub("http://127.0.0.1:9"))
    fetch_from(world.ctx.objects, source, job["repo"], job["revision"])
    return job


def test_a_prefix_is_planned_as_the_same_files_on_the_hub_are_and_fetched(world: World, folder: Path) -> None:
    world.ctx.make_hub = lambda: pytest.fail("the Hub was asked")
    follow(world, upload(world, folder))
    release = planned(world)
    found = release.plan
    assert len(found.revision) == 40
    assert found.model_manifest == keys.model_manifest(NAME, found.revision)
    shards = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert 0 < found.weight_bytes <= shards
    job = run_pod(world, release)
    assert (job["repo"], job["revision"]) == (NAME, found.revision)
    assert "digests verified" in fetch.finish(world.again(), release).note
    assert isinstance(fetch.pod(world.again(), release), Skip)


def test_what_the_hub_would_be_refused_for_a_prefix_is_refused_for(world: World, folder: Path) -> None:
    (folder / "modeling_evil.py").write_text("import os")
    follow(world, upload(world, folder))
    with pytest.raises(Refused, match=r"modeling_evil\.py"):
        planned(world)
    assert world.seen().keys() >= {"ours/model/config.json"}
    assert not list(world.ctx.objects.list("releases/"))


def test_a_changed_prefix_is_a_new_revision_and_the_old_one_is_still_there_to_go_back_to(
    world: World, folder: Path, tmp_path: Path
) -> None:
    follow(world, upload(world, folder))
    first = refresh.run(world.again(), "tiny")
    assert not isinstance(first, Skip)
    assert refresh.run(world.again(), "tiny") == first
    release = planned(world, revision=first.conf["revision"])
    assert isinstance(refresh.run(world.again(), "tiny"), Skip)
    run_pod(world, release)
    upload(world, Path(write_checkpoint(tmp_path / "newer", seed=8)))
    newer = refresh.run(world.again(), "tiny")
    assert not isinstance(newer, Skip)
    assert newer.conf["revision"] != release.plan.revision
    # From S3, since the prefix holds another by now; and to the same bundle.
    again = only_planned(world, revision=release.plan.revision)
    assert again.fingerprint == release.plan.fingerprint
    with pytest.raises(Conflict, match="changed since"):
        only_planned(world, revision="b" * 40)


def test_a_commit_of_the_hub_that_is_in_s3_is_not_taken_for_what_a_prefix_holds(
    world: World, folder: Path
) -> None:
    commit = world.revisions[0]
    fetch_model(world.ctx.objects, world.ctx.hub, REPO, commit)
    world.document["model"] = {"repo": REPO, "source": upload(world, folder), "revision": commit}
    write_entry(world.folder, world.document)
    with pytest.raises(Conflict, match="has revision"):
        only_planned(world)


def test_a_shard_that_is_gone_from_s3_is_fetched_again(world: World, folder: Path) -> None:
    follow(world, upload(world, folder))
    release = planned(world)
    run_pod(world, release)
    manifest = decode(world.ctx.objects.get(release.plan.model_manifest).body, "")
    shard = next(file for file in manifest["files"] if file["path"].endswith(".safetensors"))
    world.ctx.objects.delete(keys.blob(shard["sha256"]))
    run_pod(world, release)
    assert world.ctx.objects.head(keys.blob(shard["sha256"])).size == shard["size"]
    assert isinstance(fetch.pod(world.again(), release), Skip)


def add(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`trainyard store add`; returns the revision that it prints."""
    monkeypatch.setattr(records, "objects", lambda: world.ctx.objects)
    words = ["store", "add", f"file://{folder}", NAME, "--home", "/nonexistent"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.output.rpartition("revision: ")[2].split()[0]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Typer's runner catches what is printed at call time."""
    monkeypatch.setattr(adding, "_say", print)


@pytest.mark.usefixtures("said")
def test_a_folder_is_released_once_it_was_brought_to_s3_from_where_it_lies(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(world, f"file://{folder}")
    with pytest.raises(Refused, match="trainyard store add") as caught:
        planned(world)
    assert caught.value.problems[0].field == "model.source"
    with pytest.raises(Refused, match="trainyard store add"):
        planned(world, revision="c" * 40)
    revision = add(world, folder, monkeypatch)
    release = planned(world, revision=revision)
    assert isinstance(fetch.pod(world.again(), release), Skip)
    assert release.plan.weight_bytes > 0


def signing(world: World) -> Any:
    ctx = world.again()
    ctx.keyring = RING
    return ctx


def test_a_mirrored_prefix_is_signed_only_if_it_is_what_the_prefix_holds(world: World, folder: Path) -> None:
    follow(world, upload(world, folder))
    release = planned(world)
    run_pod(world, release)
    key = release.plan.model_manifest
    document = decode(world.ctx.objects.get(key).body, key)
    weights = next(file for file in document["files"] if file["path"].endswith(".safetensors"))
    forged = [{**file, "sha256": "0" * 64} if file is weights else file for file in document["files"]]
    world.ctx.objects.put(key, encode({**document, "files": forged}))
    with pytest.raises(CorruptArtifact, match=r"\.safetensors is not what"):
        fetch.finish(signing(world), release)
    world.ctx.objects.put(key, encode(document))
    fetch.finish(signing(world), release)
    assert decode(world.ctx.objects.get(key).body, key)[FIELD]
    # Written over since then: nothing is left to compare an unsigned one with.
    world.ctx.objects.put(key, encode(document))
    world.ctx.objects.put("ours/model/config.json", b"{}")
    with pytest.raises(Unsigned):
        fetch.finish(signing(world), release)


@pytest.mark.usefixtures("said")
def test_a_folder_is_signed_by_whoever_brings_it(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key_file = tmp_path / "signing.pem"
    key_file.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    revision = add(world, folder, monkeypatch)
    follow(world, f"file://{folder}", revision=revision)
    release = planned(world)
    with pytest.raises(Unsigned):
        fetch.pod(signing(world), release)
    monkeypatch.setenv("TRAINYARD_SIGNING_KEY_FILE", str(key_file))
    assert add(world, folder, monkeypatch) == revision
    assert isinstance(fetch.pod(signing(world), release), Skip)


def test_the_plan_command_reads_a_folder_without_a_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRAINYARD_HUB_ENDPOINT", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    model = {"repo": NAME, "source": f"file://{folder}"}
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps({"name": "tiny", "model": model, "hardware": {"tensor_parallel": 2}}))
    console = Console(file=io.StringIO())
    code = plan_command(str(path), Options(), console, as_json=True)
    assert isinstance(console.file, io.StringIO)
    found = json.loads(console.file.getvalue())
    assert (code, len(found["revision"])) == (0, 40)
    assert found["model"]["weight_bytes"] > 0
