"""Models and bundles through a registry: pushed once, pulled whole, nothing wrong let in."""

from __future__ import annotations

import hashlib
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import oras.client
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.registry import BASIC, Fault, LocalRegistry, local_registry
from trainyard.errors import (
    Conflict,
    CorruptArtifact,
    NotFound,
    PermanentError,
    Refused,
    RegistryUnavailable,
    Unsigned,
)
from trainyard.oci.moving import pull, push
from trainyard.oci.references import Reference, Subject, parse_reference
from trainyard.oci.registry import Opener, Registry
from trainyard.store import keys
from trainyard.store.blobs import put_blob
from trainyard.store.bundles import BundleManifest, missing_blobs, read_bundle
from trainyard.store.documents import decode, encode
from trainyard.store.manifests import FileEntry, Pack
from trainyard.store.models import ModelManifest, publish_model, read_model
from trainyard.store.objects import Objects
from trainyard.store.signing import Keyring, key_id

RANDOM = random.Random(1)
COMMIT = "c" * 40
MODEL = Subject("model", repo="org/name", revision=COMMIT)
BUNDLE = Subject("bundle", fingerprint="f1")
FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "model-00001-of-00002.safetensors": RANDOM.randbytes(3 << 20),
    "model-00002-of-00002.safetensors": RANDOM.randbytes(1 << 20),
    "empty.txt": b"",
}


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    with local_registry() as server:
        yield server


@pytest.fixture
def empty_store(store: Objects) -> Callable[[], None]:
    """Forget everything that lies in the bucket: what is pulled then came from the registry."""

    def empty() -> None:
        for info in list(store.list("")):
            store.delete(info.key)

    return empty


def publish(store: Objects, files: Mapping[str, bytes] = FILES) -> ModelManifest:
    entries = tuple(sorted(FileEntry(path, len(body), put_blob(store, body)) for path, body in files.items()))
    return publish_model(store, ModelManifest("org/name", COMMIT, entries, "2026-01-01T00:00:00Z", "hub"))[0]


def publish_bundle(store: Objects) -> BundleManifest:
    pack = Pack(put_blob(store, b"{}[]"), 2)
    entries = (
        FileEntry("config.json", 2, hashlib.sha256(b"{}").hexdigest(), replace(pack, offset=0)),
        FileEntry("list.json", 2, hashlib.sha256(b"[]").hexdigest(), pack),
        FileEntry("model.neff", 9, put_blob(store, b"neff bytes"[:9])),
    )
    inputs, versions = {"tp": 4}, {"neuronx-cc": "2"}
    bundle = BundleManifest("f1", entries, inputs, "optimum", versions, "trn2", "2026", 2.5, None, False)
    store.put_new(bundle.key, encode(bundle.to_json()))
    return bundle


def reference(registry: LocalRegistry, name: str = "team/models:v1") -> Reference:
    return parse_reference(f"{registry.address}/{name}")


def client(
    registry: LocalRegistry, authorization: str | None = None, name: str = "team/models:v1"
) -> Registry:
    return Registry(reference(registry, name), authorization=authorization, pause=lambda seconds: None)


def move_there(store: Objects, registry: LocalRegistry, subject: Subject = MODEL) -> None:
    push(store, subject, reference(registry), registry=client(registry))


def test_a_model_goes_to_a_registry_and_comes_back_the_same(
    store: Objects, registry: LocalRegistry, empty_store: Callable[[], None]
) -> None:
    manifest = publish(store)
    before = store.get(manifest.key).body
    pushed = push(store, MODEL, reference(registry))
    assert (pushed.sent, pushed.present) == (3, 0)
    empty_store()
    pulled = pull(store, reference(registry))
    assert (pulled.subject, pulled.sent, pulled.created) == (f"model:org/name@{COMMIT}", 3, True)
    assert store.get(manifest.key).body == before
    assert read_model(store, "org/name", COMMIT) == manifest
    for entry in manifest.files:
        assert store.get(keys.blob(entry.sha256)).body == FILES[entry.path]


def test_a_bundle_goes_to_a_registry_and_comes_back_the_same(
    store: Objects, registry: LocalRegistry, empty_store: Callable[[], None]
) -> None:
    bundle = publish_bundle(store)
    pushed = push(store, BUNDLE, reference(registry))
    assert pushed.sent == 2  # a pack is one layer
    empty_store()
    by_digest = f"{registry.address}/team/models@{pushed.digest}"
    assert pull(store, parse_reference(by_digest)).subject == "bundle:f1"
    assert read_bundle(store, "f1") == bundle
    assert missing_blobs(store, bundle.files) == []


def test_layers_are_the_blobs_themselves_and_a_plain_oras_pull_brings_the_tree(
    store: Objects, registry: LocalRegistry, tmp_path: Path
) -> None:
    manifest = publish(store)
    move_there(store, registry)
    document = json.loads(registry.manifests["team/models", "v1"])
    assert {layer["digest"] for layer in document["layers"]} == {
        f"sha256:{entry.sha256}" for entry in manifest.files if entry.size
    }
    plain = oras.client.OrasClient(insecure=True)
    plain.pull(str(reference(registry)), outdir=str(tmp_path))
    for path, body in FILES.items():
        assert not body or (tmp_path / path).read_bytes() == body


def test_what_either_side_has_is_not_sent_again(store: Objects, registry: LocalRegistry) -> None:
    publish(store)
    move_there(store, registry)
    received = registry.received
    again = push(
        store, MODEL, reference(registry, "team/models:v2"), registry=client(registry, name="team/models:v2")
    )
    assert (again.sent, again.bytes, again.present) == (0, 0, 3)
    assert registry.received - received < 4096  # the manifest
    pulled = pull(store, reference(registry), registry=client(registry))
    assert (pulled.sent, pulled.present, pulled.created) == (0, 3, False)


def test_a_blob_is_one_put_because_ecr_loses_the_second_patch(
    store: Objects, registry: LocalRegistry
) -> None:
    publish(store)
    move_there(store, registry)
    assert registry.sent("PATCH") == []


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_credentials_of_docker_log_in(
    store: Objects, auth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    with local_registry(auth=auth, redirects=True) as registry:
        config = tmp_path / ".docker" / "config.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"auths": {registry.address: {"auth": BASIC.removeprefix("Basic ")}}}))
        monkeypatch.setenv("HOME", str(tmp_path))
        push(store, MODEL, reference(registry), registry=client(registry))
        pull(store, reference(registry), registry=client(registry))
        monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
        with pytest.raises(PermanentError, match="Log in"):
            pull(store, reference(registry), registry=client(registry))


def test_who_is_known_beforehand_says_so_before_the_body(store: Objects) -> None:
    publish(store)
    with local_registry(auth="basic") as registry:
        push(store, MODEL, reference(registry), registry=client(registry, BASIC))
        # One request a blob: none was sent in vain, to be told that a name is wanted.
        assert len(registry.sent("PUT")) == 3 + 1 + 1


def test_downloads_that_are_sent_on_get_no_authorization(
    store: Objects, empty_store: Callable[[], None]
) -> None:
    manifest = publish(store)
    with local_registry(auth="basic", redirects=True) as registry:
        push(store, MODEL, reference(registry), registry=client(registry, BASIC))
        empty_store()
        pull(store, reference(registry), registry=client(registry, BASIC))
    assert read_model(store, "org/name", COMMIT) == manifest


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", "PUT", "uploads", 2, 503),
        Fault("status", "POST", "uploads", 1, 429, "0"),
        Fault("status", "HEAD", "blobs", 2, 500),
        Fault("reset", "PUT", "uploads", 1),
        Fault("reset", "PUT", "manifests", 1),
    ],
)
def test_a_push_survives_what_passes_by_itself(store: Objects, registry: LocalRegistry, fault: Fault) -> None:
    publish(store)
    registry.faults.append(fault)
    move_there(store, registry)
    assert fault.times == 0
    assert ("team/models", "v1") in registry.manifests


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("kind", ["cut", "reset", "status", "flip"])
def test_a_pull_survives_what_passes_by_itself(
    store: Objects, registry: LocalRegistry, empty_store: Callable[[], None], kind: str, ranges: bool
) -> None:
    manifest = publish(store)
    move_there(store, registry)
    empty_store()
    registry.ranges = ranges
    largest = max(manifest.files, key=lambda entry: entry.size)
    registry.faults.append(Fault(kind, "GET", largest.sha256, 1))
    pull(store, reference(registry), registry=client(registry))
    for entry in manifest.files:
        assert hashlib.sha256(store.get(keys.blob(entry.sha256)).body).hexdigest() == entry.sha256


def test_a_registry_that_never_answers_is_a_transient_error(store: Objects, registry: LocalRegistry) -> None:
    publish(store)
    registry.faults.append(Fault("status", "HEAD", "", 1000, 503))
    with pytest.raises(RegistryUnavailable):
        move_there(store, registry)
    assert registry.manifests == {}


def test_a_layer_that_is_damaged_in_the_registry_is_named_and_nothing_is_published(
    store: Objects, registry: LocalRegistry, empty_store: Callable[[], None]
) -> None:
    manifest = publish(store)
    move_there(store, registry)
    empty_store()
    entry = next(entry for entry in manifest.files if entry.size)
    place = ("team/models", f"sha256:{entry.sha256}")
    registry.blobs[place] = b"X" + registry.blobs[place][1:]
    with pytest.raises(CorruptArtifact, match=entry.path):
        pull(store, reference(registry), registry=client(registry))
    with pytest.raises(NotFound):
        read_model(store, "org/name", COMMIT)
    assert store.head_or_none(keys.blob(entry.sha256)) is None


def test_a_blob_that_is_damaged_in_s3_is_named_and_not_tagged(
    store: Objects, registry: LocalRegistry
) -> None:
    manifest = publish(store)
    entry = next(entry for entry in manifest.files if entry.size > 1 << 20)
    store.put(keys.blob(entry.sha256), b"X" * entry.size)
    with pytest.raises(CorruptArtifact, match=entry.path):
        move_there(store, registry)
    assert registry.manifests == {}


def test_a_manifest_that_differs_from_its_digest_is_refused(store: Objects, registry: LocalRegistry) -> None:
    publish(store)
    move_there(store, registry)
    registry.faults.append(Fault("flip", "GET", "manifests", 1))
    with pytest.raises(CorruptArtifact, match="digest"):
        pull(store, reference(registry), registry=client(registry))


def test_an_image_of_somebody_else_is_no_artifact(store: Objects, registry: LocalRegistry) -> None:
    config = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": "sha256:" + "a" * 64,
        "size": 2,
    }
    image = {"schemaVersion": 2, "mediaType": "x", "config": config, "layers": []}
    registry.manifests["team/models", "v1"] = json.dumps(image).encode()
    with pytest.raises(PermanentError, match="no artifact of Trainyard"):
        pull(store, reference(registry), registry=client(registry))


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"config.json": b"{}", "model.safetensors": b"w" * 300, "pytorch_model.bin": b"p"}, "pickles"),
        ({"config.json": b'{"auto_map": {"AutoModel": "x.X"}}', "model.safetensors": b"w" * 300}, "auto_map"),
    ],
)
def test_a_model_with_code_is_refused_as_it_would_be_from_the_hub(
    store: Objects,
    registry: LocalRegistry,
    empty_store: Callable[[], None],
    files: dict[str, bytes],
    word: str,
) -> None:
    publish(store, files)
    move_there(store, registry)
    empty_store()
    with pytest.raises(Refused, match=word):
        pull(store, reference(registry), registry=client(registry))
    with pytest.raises(NotFound):
        read_model(store, "org/name", COMMIT)


def test_an_artifact_that_contradicts_what_stands_is_a_conflict(
    store: Objects, registry: LocalRegistry, empty_store: Callable[[], None]
) -> None:
    publish(store)
    move_there(store, registry)
    empty_store()
    publish(store, {**FILES, "config.json": b"{}"})
    with pytest.raises(Conflict, match="other files"):
        pull(store, reference(registry), registry=client(registry))


def test_a_signature_travels_and_what_nobody_trusted_signed_is_not_moved(
    store: Objects, registry: LocalRegistry, empty_store: Callable[[], None]
) -> None:
    private = Ed25519PrivateKey.generate()
    signer, other = (
        Keyring({key_id(key.public_key()): key.public_key()}, key)
        for key in (private, Ed25519PrivateKey.generate())
    )
    manifest = publish(store)
    with pytest.raises(Unsigned, match="not signed"):
        push(store, MODEL, reference(registry), registry=client(registry), keyring=signer)
    assert registry.manifests == {}
    stored = store.get(manifest.key)
    store.replace(manifest.key, encode(signer.seal(decode(stored.body, "m"), manifest.key)), stored.etag)
    push(store, MODEL, reference(registry), registry=client(registry), keyring=signer)
    empty_store()
    with pytest.raises(Unsigned):
        pull(store, reference(registry), registry=client(registry), keyring=other)
    assert list(store.list("")) == []
    pull(store, reference(registry), registry=client(registry), keyring=signer)
    signer.check(decode(store.get(manifest.key).body, "m"), manifest.key)


def test_an_immutable_tag_stays(store: Objects, empty_store: Callable[[], None]) -> None:
    publish(store)
    with local_registry(immutable=True) as registry:
        move_there(store, registry)
        move_there(store, registry)  # the same again is no change
        empty_store()
        publish(store, {**FILES, "config.json": b"{}"})
        with pytest.raises(Conflict, match="tag"):
            move_there(store, registry)


def test_what_is_not_there_is_said_so(store: Objects, registry: LocalRegistry) -> None:
    with pytest.raises(NotFound):
        push(store, MODEL, reference(registry), registry=client(registry))
    with pytest.raises(NotFound, match="Check registry"):
        pull(store, reference(registry), registry=client(registry))


def test_a_layer_is_never_whole_in_memory(store: Objects, registry: LocalRegistry) -> None:
    """The registry, which keeps it in this process, is left out."""
    size = 96 << 20
    publish(store, {"config.json": b"{}", "model.safetensors": bytes(size)})
    counting = client(registry)
    sent: list[int] = []

    def count(sha256: str, size: int, content: Opener) -> None:
        sent.extend(map(len, content()))

    counting.put_blob = count  # type: ignore[method-assign]
    counting.put_manifest = lambda manifest: ""  # type: ignore[method-assign]
    tracemalloc.start()
    push(store, MODEL, reference(registry), registry=counting)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sent) > size
    assert peak < 64 << 20
