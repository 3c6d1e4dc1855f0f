"""The command, against a real store and a registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.registry import BASIC, LocalRegistry, local_registry
from tests.support.seaweed import S3Server
from trainyard.store.blobs import put_blob
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest, publish_model, read_model
from trainyard.store.objects import Objects
from trainyard_cli import records
from trainyard_cli.main import app

COMMIT = "d" * 40


@pytest.fixture
def registry(
    store: Objects, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalRegistry]:
    """Asks for a password, which docker's configuration knows."""
    for name, value in {**s3_server.environment, "TRAINYARD_BUCKET": store.bucket}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRAINYARD_HOME", str(tmp_path / "none"))
    records.objects.cache_clear()
    with local_registry(auth="bearer") as server:
        (tmp_path / ".docker").mkdir()
        auths = {server.address: {"auth": BASIC.removeprefix("Basic ")}}
        (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
        yield server
    records.objects.cache_clear()


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["store", *words])


def test_push_and_pull_say_what_they_did(store: Objects, registry: LocalRegistry) -> None:
    bodies = {"config.json": b"{}", "model.safetensors": b"w" * 5000}
    files = tuple(FileEntry(path, len(body), put_blob(store, body)) for path, body in bodies.items())
    manifest, _ = publish_model(store, ModelManifest("org/name", COMMIT, files, "2026", "hub"))
    place = f"{registry.address}/models/name:v1"
    pushed = run("push", f"model:org/name@{COMMIT}", place)
    assert pushed.exit_code == 0, pushed.output
    assert f"{registry.address}/models/name@sha256:" in pushed.output
    assert "2 blobs sent (5002 bytes), 0 were there" in pushed.output
    store.delete(manifest.key)
    pulled = run("pull", place)
    assert pulled.exit_code == 0, pulled.output
    assert "published: 0 blobs fetched (0 bytes), 2 were there" in pulled.output
    assert read_model(store, "org/name", COMMIT) == manifest


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("push", "model:org/name@main", "127.0.0.1:1/m:v1"), "Pin the revision"),
        (("push", "bundle:f1", "127.0.0.1:1/m"), "REGISTRY/REPOSITORY:TAG"),
        (("push", "bundle:nothing", "127.0.0.1:1/m:v1"), "NotFound"),
        (("pull", "llama"), "REGISTRY/REPOSITORY:TAG"),
    ],
)
def test_what_cannot_be_done_is_told_without_a_traceback(
    registry: LocalRegistry, words: tuple[str, ...], told: str
) -> None:
    failed = run(*words)
    assert failed.exit_code == 1
    assert told in failed.output
    assert "Traceback" not in failed.output
