"""Publishing a compile result: verified, atomic, once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping

import pytest

from trainyard.errors import Conflict, CorruptArtifact, NotFound, PermanentError
from trainyard.store import keys
from trainyard.store.bundles import (
    Published,
    Validate,
    bundle_usable,
    publish_bundle,
    read_bundle,
)
from trainyard.store.documents import encode
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest, publish_model, read_model
from trainyard.store.objects import Objects
from trainyard.store.staging import StagedResult, staged_file, staged_result

CONTENT = {
    "config.json": b"{}",
    "model.pt": b"neff" * 1000,
    "checkpoint/weights/tp0.safetensors": b"w" * 5000,
}
INPUTS = {"tp": 4, "engine": "optimum"}


def stage(store: Objects, attempt: str = "try1", content: Mapping[str, bytes] = CONTENT) -> str:
    prefix = keys.staging("f1", attempt)
    entries = []
    for path, body in content.items():
        store.put(staged_file(prefix, path), body)
        entries.append(FileEntry(path, len(body), hashlib.sha256(body).hexdigest()))
    result = StagedResult("f1", attempt, tuple(entries), 12.5, "logs/compile")
    store.put(staged_result(prefix), encode(result.to_json()))
    return prefix


def publish(
    store: Objects, prefix: str, inputs: Mapping[str, object] = INPUTS, validate: Validate | None = None
) -> Published:
    return publish_bundle(
        store,
        "f1",
        prefix,
        inputs=inputs,
        engine="optimum",
        versions={"neuronx-cc": "2"},
        target="trn2",
        validate=validate,
    )


def test_a_published_bundle_names_every_file_by_its_content(store: Objects) -> None:
    published = publish(store, stage(store))
    assert published.created
    manifest = read_bundle(store, "f1")
    assert manifest == published.manifest
    assert manifest.has_weights
    assert manifest.compile_seconds == 12.5
    for entry in manifest.files:
        assert store.get(keys.blob(entry.sha256)).body == CONTENT[entry.path]


def test_publishing_again_adopts_what_is_there(store: Objects) -> None:
    first = publish(store, stage(store))
    again = publish(store, stage(store, "try2", {"config.json": b"another"}))
    assert (again.created, again.manifest) == (False, first.manifest)


def test_of_twenty_publishers_exactly_one_wins_and_the_others_adopt(store: Objects) -> None:
    prefixes = [stage(store, f"try{number}", {"config.json": str(number).encode()}) for number in range(20)]
    results: list[Published] = []
    together = threading.Barrier(20)

    def run(prefix: str) -> None:
        together.wait()
        results.append(publish(store, prefix))

    threads = [threading.Thread(target=run, args=(prefix,)) for prefix in prefixes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.created for result in results) == 1
    assert len(results) == 20
    assert {result.manifest.files for result in results} == {read_bundle(store, "f1").files}


@pytest.mark.parametrize("damage", [b"{]", b"{} "])
def test_a_staged_file_that_differs_from_its_listing_is_never_published(
    store: Objects, damage: bytes
) -> None:
    prefix = stage(store)
    store.put(staged_file(prefix, "config.json"), damage)
    with pytest.raises(CorruptArtifact, match=r"config\.json"):
        publish(store, prefix)
    with pytest.raises(NotFound):
        read_bundle(store, "f1")


def test_a_compile_that_did_not_finish_has_nothing_to_publish(store: Objects) -> None:
    prefix = stage(store)
    store.delete(staged_result(prefix))
    with pytest.raises(NotFound, match="did not finish"):
        publish(store, prefix)


def test_a_set_of_files_that_the_engine_cannot_load_is_refused(store: Objects) -> None:
    def validate(files: Mapping[str, int], read: Callable[[str], bytes]) -> list[str]:
        assert read("config.json") == b"{}"
        return [] if "neuron_config.json" in files else ["neuron_config.json is missing"]

    with pytest.raises(PermanentError, match=r"neuron_config\.json is missing"):
        publish(store, stage(store), validate=validate)


def test_the_same_fingerprint_of_other_inputs_is_a_conflict(store: Objects) -> None:
    publish(store, stage(store))
    with pytest.raises(Conflict, match="other inputs"):
        publish(store, stage(store, "try2"), inputs={"tp": 8})


def test_a_bundle_whose_blobs_are_gone_is_replaced_not_adopted(store: Objects) -> None:
    manifest = publish(store, stage(store)).manifest
    store.delete(keys.blob(manifest.files[0].sha256))
    assert not bundle_usable(store, "f1")
    assert publish(store, stage(store, "try2")).created
    assert bundle_usable(store, "f1")


def test_a_manifest_under_another_name_is_not_believed(store: Objects) -> None:
    publish(store, stage(store))
    store.put(keys.bundle_manifest("f2"), store.get(keys.bundle_manifest("f1")).body)
    with pytest.raises(CorruptArtifact):
        read_bundle(store, "f2")


def test_a_model_is_published_once_and_another_content_of_its_commit_is_a_conflict(store: Objects) -> None:
    files = (FileEntry("config.json", 2, hashlib.sha256(b"{}").hexdigest()),)
    manifest = ModelManifest("org/name", "a" * 40, files)
    assert publish_model(store, manifest) == (manifest, True)
    assert publish_model(store, ModelManifest("org/name", "a" * 40, files, "later")) == (manifest, False)
    assert read_model(store, "org/name", "a" * 40) == manifest
    with pytest.raises(Conflict):
        publish_model(store, ModelManifest("org/name", "a" * 40, ()))
