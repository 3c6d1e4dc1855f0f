"""The materialise job, in the zipapp and in process."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.faulty_s3 import Rule, faulty_s3
from tests.support.pod import Pod
from tests.support.seaweed import S3Server
from tests.support.waiting import wait_for
from trainyard.errors import PermanentError
from trainyard.jobs import materialise
from trainyard.jobs.runtime import EXIT_STOPPED, EXIT_TRANSIENT, RESULT_PREFIX
from trainyard.store.blobs import put_blob
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest, publish_model
from trainyard.store.objects import Objects


def test_materialise_brings_the_files_and_the_zipapp(
    pod: Pod, model: ModelManifest, store: Objects, tmp_path: Path
) -> None:
    into, shared = tmp_path / "models", tmp_path / "trainyard"
    wanted = {
        "bucket": store.bucket,
        "sources": [{"manifest": model.key, "into": str(into)}],
        "install": str(shared),
    }
    code, output = pod.run("materialise", wanted)
    assert code == 0, output
    assert (into / "config.json").read_bytes() == b"{}"
    assert (shared / "trainyard.pyz").read_bytes() == pod.pyz.read_bytes()
    code, output = pod.run("materialise", wanted)
    result = json.loads(output.splitlines()[-1].removeprefix(RESULT_PREFIX))
    assert (result["sources"][0]["fetched"], result["sources"][0]["kept"]) == (0, 1)


def test_stopping_the_pod_does_not_wait_for_a_store_that_hangs(
    pod: Pod, model: ModelManifest, store: Objects, s3_server: S3Server, tmp_path: Path
) -> None:
    with faulty_s3(s3_server.endpoint) as faulty:
        faulty.rules = [Rule("hang", method="GET", match="blobs/", times=99)]
        pod.environment["AWS_ENDPOINT_URL_S3"] = faulty.endpoint
        sources = [{"manifest": model.key, "into": str(tmp_path / "models")}]
        process = pod.start("materialise", {"bucket": store.bucket, "sources": sources})
        wait_for(lambda: any("blobs/" in line for line in faulty.seen))
        process.send_signal(signal.SIGTERM)
        # Kubernetes gives 30 s before it kills; the store says nothing for as long as the proxy is there.
        output, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_STOPPED, output
    assert not (tmp_path / "models" / "config.json").exists()


def test_two_sources_that_disagree_about_a_file_are_refused(
    model: ModelManifest, store: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialise, "open_store", lambda _: store)
    other = ModelManifest("org/other", "d" * 40, (FileEntry("config.json", 3, put_blob(store, b"{ }")),))
    publish_model(store, other)
    sources = [{"manifest": key, "into": str(tmp_path / "same")} for key in (model.key, other.key)]
    with pytest.raises(PermanentError, match=r"config\.json"):
        materialise.run({"bucket": store.bucket, "sources": sources})


def test_a_store_that_is_away_is_worth_another_try(pod: Pod, model: ModelManifest) -> None:
    pod.environment.update(AWS_ENDPOINT_URL_S3="http://127.0.0.1:1", AWS_MAX_ATTEMPTS="1")
    code, output = pod.run("materialise", {"bucket": "b", "sources": [{"manifest": "m", "into": "x"}]})
    assert code == EXIT_TRANSIENT, output
    assert pod.told()["error"] == "StoreUnavailable"
