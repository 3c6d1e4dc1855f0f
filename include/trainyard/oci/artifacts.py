"""The OCI image manifest of a model or a bundle. Pure: bytes in, descriptions out.

    config       our manifest as it lies in S3, byte for byte (a signature in it stays good)
    layers       every blob that it names, packs too, under its own digest: nothing is packed anew
    artifactType what it is, for `oras discover` and for ECR's console

A layer that is one file has its path as title, so that a plain `oras pull` brings the tree of a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.errors import CorruptArtifact, PermanentError, Problem, Refused
from trainyard.oci.references import Reference
from trainyard.store.bundles import BundleManifest
from trainyard.store.documents import MAX_BYTES, decode, take
from trainyard.store.manifests import blobs_of
from trainyard.store.models import ModelManifest

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPES = {
    "model": "application/vnd.trainyard.model.v1",
    "bundle": "application/vnd.trainyard.bundle.v1",
}
CONFIG_TYPE = "application/vnd.trainyard.manifest.v1+json"
LAYER_TYPE = "application/vnd.trainyard.blob.v1"
TITLE = "org.opencontainers.image.title"
# The specification asks registries to take 4 MiB.
MANIFEST_CAP = 4 << 20
CONFIG_CAP = MAX_BYTES
# ECR: quota "Maximum layer size", 52,000 MiB, not adjustable. The number of layers is not documented; beyond
# 500 its answer is 405 "Limit on number of layers per image exceeded".
ECR_LAYER_BYTES = 52_000 << 20
ECR_LAYERS = 500


@dataclass(frozen=True, order=True)
class Blob:
    """sha256 in hex; size in bytes; path of the file that it is, if it is one whole file."""

    sha256: str
    size: int
    path: str = ""


@dataclass(frozen=True)
class Artifact:
    """document: our manifest, parsed; body: its bytes; blobs: everything that it needs, by digest, none
    empty."""

    document: ModelManifest | BundleManifest
    body: bytes
    blobs: tuple[Blob, ...]

    @property
    def kind(self) -> str:
        return "model" if isinstance(self.document, ModelManifest) else "bundle"

    @property
    def config_digest(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


def read_artifact(body: bytes, where: str) -> Artifact:
    """Parse our manifest. Raises CorruptArtifact, PermanentError (a schema of another Trainyard)."""
    raw = decode(body, where)
    document: ModelManifest | BundleManifest
    if raw.get("kind") == "model":
        document = ModelManifest.from_json(raw, where)
    else:
        document = BundleManifest.from_json(raw, where)
    if not document.files:
        raise CorruptArtifact(f"{where} names no files.")
    paths = {entry.sha256: entry.path for entry in reversed(document.files) if entry.pack is None}
    sizes = blobs_of(document)
    blobs = (Blob(digest, sizes[digest], paths.get(digest, "")) for digest in sorted(sizes) if sizes[digest])
    return Artifact(document, body, tuple(blobs))


def to_oci(artifact: Artifact) -> dict[str, Any]:
    """The image manifest. The same artifact gives the same manifest, so pushing again changes nothing."""
    document = artifact.document
    facts = {"org.trainyard.kind": artifact.kind, "org.opencontainers.image.created": document.created_at}
    if isinstance(document, ModelManifest):
        facts |= {"org.trainyard.repo": document.repo, "org.trainyard.revision": document.revision}
    else:
        facts |= {
            "org.trainyard.fingerprint": document.fingerprint,
            "org.trainyard.engine": document.engine,
            "org.trainyard.target": document.target,
        }
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPES[artifact.kind],
        "config": descriptor(CONFIG_TYPE, artifact.config_digest, len(artifact.body)),
        "layers": [
            descriptor(LAYER_TYPE, blob.sha256, blob.size)
            | ({"annotations": {TITLE: blob.path}} if blob.path else {})
            for blob in artifact.blobs
        ],
        "annotations": {name: value for name, value in facts.items() if value},
    }


def descriptor(media_type: str, sha256: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": size}


def check_fits(artifact: Artifact, reference: Reference) -> None:
    """Raises Refused for what the registry is known not to take, before a byte moves."""
    problems = []
    manifest_bytes = len(json.dumps(to_oci(artifact)))
    if manifest_bytes > MANIFEST_CAP:
        problems.append(
            Problem(
                "manifest",
                f"{manifest_bytes} bytes",
                f"registries take {MANIFEST_CAP} bytes",
                "Publish it with its small files packed, or keep it in S3",
            )
        )
    if reference.ecr_region:
        if len(artifact.blobs) > ECR_LAYERS:
            problems.append(
                Problem(
                    "layers",
                    len(artifact.blobs),
                    f"ECR takes {ECR_LAYERS} layers",
                    "Publish it with its small files packed, or keep it in S3",
                )
            )
        problems += [
            Problem(
                blob.path or blob.sha256,
                f"{blob.size} bytes",
                f"ECR takes layers of {ECR_LAYER_BYTES} bytes",
                "Use a revision with smaller shards",
            )
            for blob in artifact.blobs
            if blob.size > ECR_LAYER_BYTES
        ]
    if problems:
        raise Refused(problems)


def config_of(manifest: Mapping[str, Any], where: str) -> tuple[str, int]:
    """Digest (hex) and size of our manifest in an image manifest.

    Raises PermanentError for an image of somebody else's, CorruptArtifact for one that contradicts itself.
    """
    config = take(manifest, "config", dict, where)
    if config.get("mediaType") != CONFIG_TYPE:
        raise PermanentError(
            f"{where} is no artifact of Trainyard: its config is {config.get('mediaType')!r}, "
            f"not {CONFIG_TYPE}. Check repository and tag."
        )
    digest, size = _described(config, where)
    if size > CONFIG_CAP:
        raise CorruptArtifact(f"{where}: its config has {size} bytes; the limit is {CONFIG_CAP}.")
    return digest, size


def check_layers(manifest: Mapping[str, Any], artifact: Artifact, where: str) -> None:
    """Every blob is a layer of its size. Raises CorruptArtifact."""
    layers = take(manifest, "layers", list, where)
    there = dict(_described(layer, where) for layer in layers)
    for blob in artifact.blobs:
        if there.get(blob.sha256) != blob.size:
            raise CorruptArtifact(
                f"{where} lacks the layer sha256:{blob.sha256} of {blob.size} bytes "
                f"({blob.path or 'a pack'}). Push it again."
            )
    expected = ARTIFACT_TYPES[artifact.kind]
    if manifest.get("artifactType", expected) != expected:
        raise CorruptArtifact(f"{where} says {manifest['artifactType']!r}, and holds a {artifact.kind}.")


def _described(layer: Any, where: str) -> tuple[str, int]:
    if not isinstance(layer, dict):
        raise CorruptArtifact(f"{where}: a layer is {layer!r}, not an object.")
    digest, size = take(layer, "digest", str, where), take(layer, "size", int, where)
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef") or size < 0:
        raise CorruptArtifact(f"{where}: {digest!r} of {size} bytes is no sha256 descriptor.")
    return value, size
