"""`trainyard store ls | du | verify | gc` over the real server."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.local.store.test_sweep import bundle, publish, release
from tests.support.seaweed import S3Server
from trainyard.store import inventory, keys
from trainyard.store.channels import Channels
from trainyard.store.documents import encode
from trainyard.store.manifests import FileEntry, Pack
from trainyard.store.objects import Objects
from trainyard_cli import bucket as commands
from trainyard_cli.main import app


@pytest.fixture
def store(s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Objects:
    found = Objects(s3_server.client(), bucket)
    monkeypatch.setattr(commands, "_objects", lambda: found)
    return found


def run(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["store", *words, "--home", "/nonexistent", "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.output)


def test_people_see_what_there_is(store: Objects) -> None:
    name = release(store, 1)
    Channels(store).move("m", name, 0)
    assert [row["revision"] for row in run("ls", "models")] == [f"{1:040x}"]
    assert run("ls", "bundles")[0]["files"] == 1
    assert run("ls", "releases")[0]["kept"] == "stable"
    assert run("ls", "channels")[0]["stable"] == name
    table = CliRunner().invoke(app, ["store", "ls", "channels", "--home", "/nonexistent"])
    assert name in table.output


def test_what_models_share_is_counted_once(store: Objects) -> None:
    release(store, 1, model="a")
    release(store, 2, model="b")
    bundle(store, 3)
    found = run("du")
    kinds = {row["kind"]: row for row in found["kinds"]}
    models = {row["model"]: row for row in found["models"]}
    assert models["all, counted once"]["bytes"] == kinds["blobs"]["bytes"]
    assert models["a"]["shared"] == len(b"shared") == models["b"]["shared"]
    assert models["(no release)"]["own"] == len(b"neff 3") * 50
    assert (
        sum(row["own"] for row in found["models"] if row["own"]) + len(b"shared") == kinds["blobs"]["bytes"]
    )


def test_verify_names_the_files_that_are_damaged_and_exits_1(store: Objects) -> None:
    manifest = publish(store, 1)
    bundle(store, 2)
    assert run("verify")["faults"] == []
    weights = next(entry for entry in manifest.files if entry.path == "model.safetensors")
    store.put(keys.blob(weights.sha256), b"flipped"[:1] * weights.size)
    found = run("verify", code=1)
    assert [(fault["manifest"], fault["path"]) for fault in found["faults"]] == [
        (manifest.key, "model.safetensors")
    ]
    store.delete(keys.blob(weights.sha256))
    store.put(keys.bundle_manifest("f2"), b"{")
    whys = {fault["path"]: fault["why"] for fault in run("verify", code=1)["faults"]}
    assert "missing" in whys["model.safetensors"]
    assert "no JSON" in whys["manifest.json"]
    assert run("verify", manifest.key, code=1)["manifests"] == 1


def test_verify_looks_into_packs(store: Objects) -> None:
    body = b"one" + b"two"
    pack = hashlib.sha256(body).hexdigest()
    store.put(keys.blob(pack), body)
    files = [
        FileEntry("one", 3, hashlib.sha256(b"one").hexdigest(), Pack(pack, 0)),
        FileEntry("two", 3, hashlib.sha256(b"two").hexdigest(), Pack(pack, 2)),
        FileEntry("end", 1, hashlib.sha256(b"o").hexdigest(), Pack(pack, 5)),
    ]
    key = keys.bundle_manifest("f1")
    store.put(key, encode({"schema": 1, "kind": "bundle", "files": [entry.to_json() for entry in files]}))
    assert [fault.path for fault in inventory.verify(store, key).faults] == ["two"]


def test_gc_changes_nothing_until_it_is_told_to(store: Objects) -> None:
    Channels(store).move("m", release(store, 1), 0)
    store.put("progress/x.json", b"{}")
    before = {info.key for info in store.list("")}
    assert run("gc")["dry_run"] is True
    assert {info.key for info in store.list("")} == before
    assert run("gc", "--yes")["note"].startswith("freed nothing")
    refused = CliRunner().invoke(app, ["store", "gc", "--yes", "--dry-run"])
    assert refused.exit_code == 2
