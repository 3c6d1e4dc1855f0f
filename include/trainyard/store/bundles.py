"""Bundles: what a compilation produced. Staged files are verified, copied to blobs, and the manifest comes
last."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from trainyard.errors import Conflict, CorruptArtifact, NotFound, PermanentError
from trainyard.store import blobs, keys
from trainyard.store.documents import SCHEMA, decode, encode, take, take_optional, timestamp
from trainyard.store.manifests import FileEntry, files_from_json
from trainyard.store.objects import AlreadyExists, Objects

# Metadata that validators read whole (config.json, neuron_config.json, tokenizer).
MAX_READ = 64 << 20
PARALLEL = 8

Validate = Callable[[Mapping[str, int], Callable[[str], bytes]], list[str]]


@dataclass(frozen=True)
class BundleManifest:
    """fingerprint; files in path order; inputs: what the fingerprint was made of; engine: name of the serving
    stack; versions: tool -> version; target: instance family; created_at: RFC 3339; compile_seconds; log_key:
    S3 key of the compiler's log; has_weights: whether the bundle serves without the model's own weights."""

    fingerprint: str
    files: tuple[FileEntry, ...]
    inputs: Mapping[str, Any]
    engine: str
    versions: Mapping[str, str]
    target: str
    created_at: str
    compile_seconds: float
    log_key: str | None
    has_weights: bool

    @property
    def key(self) -> str:
        return keys.bundle_manifest(self.fingerprint)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "bundle",
            "fingerprint": self.fingerprint,
            "files": [entry.to_json() for entry in self.files],
            "inputs": dict(self.inputs),
            "engine": self.engine,
            "versions": dict(self.versions),
            "target": self.target,
            "created_at": self.created_at,
            "compile_seconds": self.compile_seconds,
            "log_key": self.log_key,
            "has_weights": self.has_weights,
        }

    @staticmethod
    def from_json(document: dict[str, Any], where: str) -> BundleManifest:
        if document.get("kind") != "bundle":
            raise CorruptArtifact(f"{where} is a manifest of kind {document.get('kind')!r}, not of a bundle.")
        versions = take(document, "versions", dict, where)
        return BundleManifest(
            fingerprint=take(document, "fingerprint", str, where),
            files=files_from_json(document, where),
            inputs=take(document, "inputs", dict, where),
            engine=take(document, "engine", str, where),
            versions={str(name): take(versions, name, str, where) for name in versions},
            target=take(document, "target", str, where),
            created_at=take(document, "created_at", str, where),
            compile_seconds=take(document, "compile_seconds", float, where),
            log_key=take_optional(document, "log_key", str, where),
            has_weights=take(document, "has_weights", bool, where),
        )


@dataclass(frozen=True)
class StagedResult:
    """What a compile job left: files relative to `<staging prefix>files/`, and how it went."""

    fingerprint: str
    attempt: str
    files: tuple[FileEntry, ...]
    seconds: float
    log_key: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "staged",
            "fingerprint": self.fingerprint,
            "attempt": self.attempt,
            "files": [entry.to_json() for entry in self.files],
            "seconds": self.seconds,
            "log_key": self.log_key,
        }

    @staticmethod
    def from_json(document: dict[str, Any], where: str) -> StagedResult:
        return StagedResult(
            fingerprint=take(document, "fingerprint", str, where),
            attempt=take(document, "attempt", str, where),
            files=files_from_json(document, where),
            seconds=take(document, "seconds", float, where),
            log_key=take_optional(document, "log_key", str, where),
        )


@dataclass(frozen=True)
class Published:
    """The bundle that stands; whether this call published it; blobs that were copied for it."""

    manifest: BundleManifest
    created: bool
    copied: int = 0


def staged_file(prefix: str, path: str) -> str:
    return f"{prefix}files/{path}"


def staged_result(prefix: str) -> str:
    """Key of the listing: written last, so a prefix without one is a compile that did not finish."""
    return f"{prefix}result.json"


def read_bundle(objects: Objects, fingerprint: str) -> BundleManifest:
    """Raises NotFound if nothing is published, CorruptArtifact if the manifest contradicts itself."""
    key = keys.bundle_manifest(fingerprint)
    manifest = BundleManifest.from_json(decode(objects.get(key).body, key), key)
    if manifest.fingerprint != fingerprint:
        raise CorruptArtifact(f"{key} is the manifest of {manifest.fingerprint}.")
    if not manifest.files:
        raise CorruptArtifact(f"{key} names no files. Delete it and compile again.")
    return manifest


def publish_bundle(
    objects: Objects,
    fingerprint: str,
    staged_prefix: str,
    *,
    inputs: Mapping[str, Any],
    engine: str,
    versions: Mapping[str, str],
    target: str,
    has_weights: bool | None = None,
    validate: Validate | None = None,
    clock: Callable[[], float] = time.time,
) -> Published:
    """Make a staged compile result the bundle of `fingerprint`; if one is published already, adopt that one.

    validate: gets {path: size} and a reader of staged files; what it returns (one text a fault) refuses the
    bundle. Raises NotFound (nothing staged), CorruptArtifact (staged bytes differ), PermanentError (invalid
    set of files), Conflict (the published bundle has other inputs).
    """
    try:
        return Published(_adopted(objects, fingerprint, inputs), created=False)
    except NotFound:
        pass
    staged = _read_staged(objects, fingerprint, staged_prefix)
    if validate is not None:
        _check_set(objects, staged, staged_prefix, validate)

    def adopt(entry: FileEntry) -> bool:
        return blobs.adopt(objects, staged_file(staged_prefix, entry.path), entry.sha256, entry.size)

    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        copied = sum(pool.map(adopt, staged.files))
    manifest = BundleManifest(
        fingerprint=fingerprint,
        files=staged.files,
        inputs=inputs,
        engine=engine,
        versions=versions,
        target=target,
        created_at=timestamp(clock()),
        compile_seconds=staged.seconds,
        log_key=staged.log_key,
        has_weights=_any_weights(staged.files) if has_weights is None else has_weights,
    )
    try:
        objects.put_new(manifest.key, encode(manifest.to_json()))
    except AlreadyExists:
        return Published(_adopted(objects, fingerprint, inputs), created=False, copied=copied)
    return Published(manifest, created=True, copied=copied)


def missing_blobs(objects: Objects, files: tuple[FileEntry, ...]) -> list[str]:
    """Paths whose blob is not there, or has another size."""
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        present = list(pool.map(lambda entry: blobs.has_blob(objects, entry.sha256, entry.size), files))
    return [entry.path for entry, there in zip(files, present, strict=True) if not there]


def _adopted(objects: Objects, fingerprint: str, inputs: Mapping[str, Any]) -> BundleManifest:
    """The published bundle, if it is whole and of the same inputs."""
    manifest = read_bundle(objects, fingerprint)
    if dict(manifest.inputs) != dict(inputs):
        raise Conflict(
            f"{manifest.key} was compiled from other inputs than this release asks for: {manifest.inputs!r}. "
            "The fingerprint misses something that differs; compare the two, and delete the wrong bundle."
        )
    missing = missing_blobs(objects, manifest.files)
    if missing:
        raise CorruptArtifact(
            f"{manifest.key} names blobs that are gone: {', '.join(missing[:5])}. Delete it, recompile."
        )
    return manifest


def _read_staged(objects: Objects, fingerprint: str, prefix: str) -> StagedResult:
    key = staged_result(prefix)
    try:
        staged = StagedResult.from_json(decode(objects.get(key).body, key), key)
    except NotFound as error:
        raise NotFound(f"{key} is missing: that compile did not finish. Compile again.") from error
    if staged.fingerprint != fingerprint:
        raise CorruptArtifact(
            f"{key} is of fingerprint {staged.fingerprint}, not {fingerprint}. Compile again."
        )
    if not staged.files:
        raise CorruptArtifact(
            f"{key} names no files. Look at the compiler's log ({staged.log_key}) and compile again."
        )
    return staged


def _check_set(objects: Objects, staged: StagedResult, prefix: str, validate: Validate) -> None:
    sizes = {entry.path: entry.size for entry in staged.files}

    def read(path: str) -> bytes:
        if path not in sizes:
            raise NotFound(f"{path} is not in the staged listing.")
        if sizes[path] > MAX_READ:
            raise PermanentError(
                f"{path} has {sizes[path]} bytes; files that are read whole have {MAX_READ} at most."
            )
        return objects.get(staged_file(prefix, path)).body

    faults = validate(sizes, read)
    if faults:
        lines = "\n".join(f"  - {fault}" for fault in faults)
        raise PermanentError(f"The compiled files of {staged.fingerprint} cannot be served:\n{lines}")


def _any_weights(files: tuple[FileEntry, ...]) -> bool:
    return any(entry.path.endswith(".safetensors") for entry in files)
