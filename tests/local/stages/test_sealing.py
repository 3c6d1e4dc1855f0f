"""With keys: what Airflow's side signs, what it refuses, and what pods are told to read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from tests.support.world import REPO, World
from trainyard.errors import CorruptArtifact, Unsigned
from trainyard.jobs.fetch import fetch as fetch_model
from trainyard.release import Release
from trainyard.stages import canary, fetch, publish
from trainyard.stages.context import Context, Skip
from trainyard.stages.sealing import checked
from trainyard.store import keys
from trainyard.store.damage import condemn
from trainyard.store.documents import decode, encode
from trainyard.store.keys import bundle_damage
from trainyard.store.signing import FIELD, Keyring, key_id
from trainyard.store.trees import read_tree
from trainyard_cli import bucket as commands
from trainyard_cli.main import app

OURS, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))


def ring(private: Any, *public: Any) -> Keyring:
    return Keyring({key_id(each.public_key()): each.public_key() for each in public}, private)


@pytest.fixture
def signed(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Every context of this world has keys, as with settings."""
    plain = Context.__init__

    def made(self: Context, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **{"keyring": ring(OURS, OURS), **kwargs})

    monkeypatch.setattr(Context, "__init__", made)
    world.ctx = world.again()
    return world


def fetched(world: World, release: Release) -> None:
    fetch_model(world.ctx.objects, world.ctx.hub, REPO, release.plan.revision)


def change(world: World, key: str, **fields: Any) -> None:
    document = decode(world.ctx.objects.get(key).body, key)
    world.ctx.objects.put(key, encode({**document, **fields}))


def test_a_whole_release_is_signed_and_its_servers_read_only_what_was_checked(signed: World) -> None:
    release = signed.planned()
    assert isinstance(fetch.pod(signed.again(), release), dict)
    fetched(signed, release)
    fetch.finish(signed.again(), release)
    signed.publish(release)
    canary.run(signed.again(), release)
    objects = signed.ctx.objects
    for key in (release.plan.model_manifest, release.plan.bundle_manifest):
        assert decode(objects.get(key).body, key)[FIELD]
    template = signed.ctx.cluster.get("Deployment", release.id, signed.namespace)["spec"]["template"]
    environment = template["spec"]["initContainers"][-1]["env"]
    job = json.loads(next(each["value"] for each in environment if each["name"] == "TRAINYARD_JOB"))
    for source in job["sources"]:
        assert source["sha256"] == checked(signed.again(), source["manifest"])
        change(signed, source["manifest"], created_at="another day")
        with pytest.raises(CorruptArtifact, match="changed since"):
            read_tree(objects, source["manifest"], sha256=source["sha256"])


@pytest.mark.parametrize("how", ["unsigned", "altered", "a stranger's"])
def test_a_bundle_that_nobody_trusted_signed_is_not_served(signed: World, how: str) -> None:
    release = signed.planned()
    signed.publish(release)
    key = release.plan.bundle_manifest
    document = decode(signed.ctx.objects.get(key).body, key)
    if how == "unsigned":
        document.pop(FIELD)
    elif how == "altered":
        document["engine"] = "other"
    else:
        document = ring(OTHER).seal(document, key)
    signed.ctx.objects.put(key, encode(document))
    for stage in (publish, canary):
        with pytest.raises(Unsigned, match="bundles/"):
            stage.run(signed.again(), release)  # type: ignore[attr-defined]


def test_a_models_manifest_that_s3_holds_is_signed_only_if_the_hub_says_the_same(signed: World) -> None:
    release = signed.planned()
    fetched(signed, release)
    key = release.plan.model_manifest
    files = decode(signed.ctx.objects.get(key).body, key)["files"]
    weights = next(file for file in files if file["path"].endswith(".safetensors"))
    other = bytes(weights["size"])
    digest = hashlib.sha256(other).hexdigest()
    signed.ctx.objects.put(keys.blob(digest), other)
    forged = [{**weights, "sha256": digest} if file is weights else file for file in files]
    fewer = [file for file in files if file is not weights]
    for wrong in (forged, fewer):
        change(signed, key, files=wrong)
        with pytest.raises(CorruptArtifact):
            fetch.pod(signed.again(), release)
    assert FIELD not in decode(signed.ctx.objects.get(key).body, key)
    change(signed, key, files=files)
    assert isinstance(fetch.pod(signed.again(), release), Skip)
    assert decode(signed.ctx.objects.get(key).body, key)[FIELD]
    change(signed, key, files=forged)
    with pytest.raises(Unsigned):
        fetch.pod(signed.again(), release)


def test_what_was_there_before_the_keys_is_signed_by_hand(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = world.planned()
    fetched(world, release)
    world.publish(release)
    key_file = tmp_path / "signing.pem"
    key_file.write_bytes(OURS.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv("TRAINYARD_SIGNING_KEY_FILE", str(key_file))
    monkeypatch.setattr(commands, "_objects", lambda: world.ctx.objects)

    def sign(*words: str) -> dict[str, tuple[str, bool]]:
        done = CliRunner().invoke(app, ["store", "sign", *words, "--json", "--home", "/nonexistent"])
        return {row["key"]: (row["state"], row["done"]) for row in json.loads(done.output)}

    wanted = {release.plan.model_manifest, release.plan.bundle_manifest, f"releases/tiny/{release.id}.json"}
    # A signature would make another manifest of it, and void the mark.
    condemn(world.ctx.objects, release.plan.fingerprint, "model.pt", "its digest is another")
    marked = {**dict.fromkeys(wanted, ("unsigned", True)), release.plan.bundle_manifest: ("damaged", False)}
    before = world.ctx.objects.get(release.plan.bundle_manifest).body
    assert sign("--yes") == marked
    assert world.ctx.objects.get(release.plan.bundle_manifest).body == before
    world.ctx.objects.delete(bundle_damage(release.plan.fingerprint))
    for key in wanted - {release.plan.bundle_manifest}:
        document = decode(world.ctx.objects.get(key).body, key)
        world.ctx.objects.put(key, encode({name: document[name] for name in document if name != FIELD}))
    assert sign() == dict.fromkeys(wanted, ("unsigned", False))
    assert sign("--yes") == dict.fromkeys(wanted, ("unsigned", True))
    assert sign("--yes") == dict.fromkeys(wanted, ("signed", False))
    ctx = world.again()
    ctx.keyring = ring(OURS, OURS)
    assert ctx.load("tiny", release.id).id == release.id
    for key in sorted(wanted)[:2]:
        checked(ctx, key)
