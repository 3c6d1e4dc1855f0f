"""The sweep in live Airflow: it says what would go, then frees it, and a release keeps what it needs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.yard import PATIENCE, Yard
from tests.support.ages import make_older
from trainyard.release import Release
from trainyard.store import inventory, keys
from trainyard.store.bundles import bundle_usable
from trainyard.store.documents import encode
from trainyard.store.manifests import FileEntry, blobs_of, files_from_json
from trainyard.store.models import ModelManifest, publish_model
from trainyard.store.objects import Objects
from trainyard_cli import records
from trainyard_cli.airflow_api import ENDED

pytestmark = pytest.mark.e2e

DAG, MODEL = "housekeeping", "kept"
DAYS = 60.0
YOUNG = b"a blob that somebody may be about to name"
YOUNG_KEY = keys.blob(hashlib.sha256(YOUNG).hexdigest())


@pytest.fixture(scope="module")
def objects(yard: Yard) -> Objects:
    yard.airflow.wait_for_dag(DAG, PATIENCE)
    return records.objects()


@pytest.fixture(scope="module")
def release(yard: Yard, objects: Objects) -> Release:
    """A promoted release; what it needs is as old as what nothing needs."""
    yard.publish(yard.stack, yard.stack.home / "scratch-kept", "kept")
    run = yard.ask(MODEL, model__revision="kept", compile__sequence_length=736)
    found = yard.follow(run)
    assert found.state == "promoted", found.outcome
    return found


def needs(objects: Objects, release: Release) -> set[str]:
    found = set()
    for manifest in (release.plan.model_manifest, release.plan.bundle_manifest):
        document = json.loads(objects.get(manifest).body)
        found |= {manifest, *(keys.blob(digest) for digest in blobs_of(files_from_json(document, manifest)))}
    return found


@pytest.fixture(scope="module")
def rubbish(objects: Objects) -> set[str]:
    """A model and its blob, a blob alone, what a compile staged, a log: nothing names any of them."""

    def put(key: str, body: bytes) -> str:
        objects.put(key, body)
        return key

    weights, alone = b"weights that nobody serves" * 1000, b"a blob that no manifest names"
    digest = hashlib.sha256(weights).hexdigest()
    found = {put(keys.blob(hashlib.sha256(body).hexdigest()), body) for body in (weights, alone)}
    entry = FileEntry("model.safetensors", len(weights), digest)
    found.add(publish_model(objects, ModelManifest("nobody/old", "a" * 40, (entry,)))[0].key)
    found.add(put(f"{keys.staging('0' * 40, 'old-attempt')}files/x", b"staged"))
    found.add(put("logs/nobody/old-release/compile.log", b"a log"))
    found.add(put(keys.progress("old-release"), encode({"schema": 1, "done": 1})))
    return found


@pytest.fixture(scope="module")
def upload(objects: Objects) -> str:
    """A multipart upload of this minute: too young for any sweep."""
    begun = objects.client.create_multipart_upload(Bucket=objects.bucket, Key="blobs/sha256/young")
    return str(begun["UploadId"])


@pytest.fixture(scope="module")
def aged(
    yard: Yard,
    objects: Objects,
    release: Release,
    rubbish: set[str],
    upload: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> set[str]:
    """Everything old; and one orphan more, which is young."""
    ports = json.loads((yard.stack.home / "ports.json").read_text())
    folder: Path = tmp_path_factory.mktemp("ages")
    make_older(
        objects,
        rubbish | needs(objects, release),
        DAYS,
        folder,
        master=ports["s3-master"],
        filer=ports["s3-filer"],
    )
    objects.put(YOUNG_KEY, YOUNG)
    return rubbish


def swept(yard: Yard, **conf: Any) -> tuple[str, dict[str, str]]:
    """Run id, and the states of the tasks of a run that was asked for by the API."""
    run = yard.airflow.trigger(DAG, None, conf).run_id
    yard.wait_for("the sweep", lambda: yard.airflow.run(DAG, run).state in ENDED)
    assert yard.airflow.run(DAG, run).state == "success", yard.airflow.log(DAG, run, "look")[-2000:]
    return run, {task["task_id"]: task["state"] for task in yard.airflow.tasks(DAG, run)}


def test_a_run_that_is_triggered_says_what_would_go_and_deletes_nothing(
    yard: Yard, objects: Objects, aged: set[str], release: Release
) -> None:
    run, states = swept(yard)
    assert states.pop("look") == "success"
    assert set(states.values()) == {"skipped"}
    told = yard.airflow.xcom(DAG, run, "look", "return_value")
    examples = {key for freed in told["freed"] for key in freed["examples"]}
    assert aged <= examples
    assert not needs(objects, release) & examples
    log = yard.airflow.log(DAG, run, "look")
    assert all(key in log for key in aged)
    assert release.id in log
    assert all(objects.head_or_none(key) is not None for key in aged)


def test_without_the_tick_it_is_freed_and_all_that_a_release_needs_stays(
    yard: Yard, objects: Objects, aged: set[str], release: Release, upload: str
) -> None:
    needed = needs(objects, release)
    run, states = swept(yard, dry_run=False)
    assert set(states.values()) == {"success"}
    assert [key for key in aged if objects.head_or_none(key) is not None] == []
    freed = {
        each["kind"]: each
        for task in ("manifests", "blobs", "staging_logs_caches")
        for each in yard.airflow.xcom(DAG, run, task, "return_value")["freed"]
    }
    assert freed["blobs"]["objects"] == 2
    assert freed["blobs"]["bytes"] > 20_000
    # Whole, byte for byte; so a rollback to it fetches and compiles nothing.
    assert [key for key in needed if objects.head_or_none(key) is None] == []
    for manifest in (release.plan.model_manifest, release.plan.bundle_manifest):
        assert inventory.verify(objects, manifest).faults == []
    assert bundle_usable(objects, release.plan.fingerprint)
    assert objects.head_or_none(YOUNG_KEY) is not None
    begun = objects.client.list_multipart_uploads(Bucket=objects.bucket)["Uploads"]
    assert upload in {each["UploadId"] for each in begun}


def test_a_second_sweep_finds_nothing_more(yard: Yard, objects: Objects, aged: set[str]) -> None:
    run, states = swept(yard, dry_run=False)
    assert set(states.values()) == {"success"}
    told = yard.airflow.xcom(DAG, run, "look", "return_value")
    assert sum(freed["objects"] for freed in told["freed"]) == 0
    assert objects.head_or_none(YOUNG_KEY) is not None
