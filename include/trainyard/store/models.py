"""Models in S3: what a revision consists of. The manifest is written last; before it, there is no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainyard.errors import Conflict, CorruptArtifact
from trainyard.store import keys
from trainyard.store.documents import SCHEMA, decode, encode, take
from trainyard.store.manifests import FileEntry, files_from_json
from trainyard.store.objects import AlreadyExists, Objects


@dataclass(frozen=True)
class ModelManifest:
    """repo: `org/name`; revision: commit SHA; files in path order; created_at: RFC 3339; source: the Hub's
    address."""

    repo: str
    revision: str
    files: tuple[FileEntry, ...]
    created_at: str = ""
    source: str = ""

    @property
    def key(self) -> str:
        return keys.model_manifest(self.repo, self.revision)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "model",
            "repo": self.repo,
            "revision": self.revision,
            "files": [entry.to_json() for entry in self.files],
            "created_at": self.created_at,
            "source": self.source,
        }

    @staticmethod
    def from_json(document: dict[str, Any], where: str) -> ModelManifest:
        if document.get("kind") != "model":
            raise CorruptArtifact(f"{where} is a manifest of kind {document.get('kind')!r}, not of a model.")
        return ModelManifest(
            repo=take(document, "repo", str, where),
            revision=take(document, "revision", str, where),
            files=files_from_json(document, where),
            created_at=take(document, "created_at", str, where),
            source=take(document, "source", str, where),
        )


def read_model(objects: Objects, repo: str, revision: str) -> ModelManifest:
    """Raises NotFound if the revision is not mirrored, CorruptArtifact if its manifest is wrong."""
    key = keys.model_manifest(repo, revision)
    manifest = ModelManifest.from_json(decode(objects.get(key).body, key), key)
    if (manifest.repo, manifest.revision) != (repo, revision):
        raise CorruptArtifact(f"{key} is the manifest of {manifest.repo}@{manifest.revision}.")
    return manifest


def publish_model(objects: Objects, manifest: ModelManifest) -> tuple[ModelManifest, bool]:
    """Write the manifest; returns the one that stands and whether it is ours.

    Raises Conflict if another one stands that names other files: a commit's files never change.
    """
    try:
        objects.put_new(manifest.key, encode(manifest.to_json()))
    except AlreadyExists:
        standing = read_model(objects, manifest.repo, manifest.revision)
        if standing.files != manifest.files:
            raise Conflict(
                f"{manifest.key} names other files than were fetched now. Delete it if the policy changed; "
                "otherwise find out who wrote it."
            ) from None
        return standing, False
    return manifest, True
