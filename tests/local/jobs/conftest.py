"""Jobs as pods run them: the zipapp in a bare interpreter, a real store."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.support.compiles import make, tiny
from tests.support.pod import Pod
from tests.support.seaweed import S3Server
from tests.support.shaky_store import faulty
from trainyard.jobs import zipapp
from trainyard.store.blobs import put_blob
from trainyard.store.manifests import FileEntry
from trainyard.store.models import ModelManifest, publish_model
from trainyard.store.objects import Objects

__all__ = ["faulty", "make", "model", "pod", "pyz", "tiny"]


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod has one of its own: there a compile's log has a name that only its attempt says."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zipapp") / "trainyard.pyz"
    zipapp.build(path)
    return path


@pytest.fixture
def pod(pyz: Path, s3_server: S3Server, tmp_path: Path) -> Pod:
    return Pod(pyz, s3_server, tmp_path)


@pytest.fixture
def model(store: Objects) -> ModelManifest:
    """A published model of one tiny file."""
    files = (FileEntry("config.json", 2, put_blob(store, b"{}")),)
    return publish_model(store, ModelManifest("org/name", "c" * 40, files))[0]
