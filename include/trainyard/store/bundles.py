"""Bundles: what a compilation produced. Staged files are verified, copied to blobs, and the manifest comes
last."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from trainyard.errors import Conflict, CorruptArtifact, NotFound, PermanentError
from trainyard.store import blobs, keys
from trainyard.store.announcements import Announcement
from trainyard.store.damage import damage_of, digest_of
from trainyard.store.documents import SCHEMA, decode, encode, take, take_optional, timestamp
from trainyard.store.manifests import FileEntry, blobs_of, files_from_json
from trainyard.store.objects import Objects, Stored
from trainyard.store.signing import Keyring
from trainyard.store.staging import StagedObject, StagedResult, read_result

# Metadata that validators read whole (config.json, neuron_config.json, tokenizer).
MAX_READ = 64 << 20
PARALLEL = 8
log = logging.getLogger(__name__)

Validate = Callable[[Mapping[str, int], Callable[[str], bytes]], list[str]]


@dataclass(frozen=True)
class BundleManifest:
    """fingerprint; files in path order; inputs: what the fingerprint was made of; engine: name of the serving
    stack; versions: tool -> version; target: instance family; created_at: RFC 3339; compile_seconds; log_key:
    S3 key of the compiler's log; has_weights: whether the bundle serves without the model's own weights;
    replaces: SHA-256 of the damaged manifest that stood in its place."""

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
    replaces: str | None = None

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
            **({"replaces": self.replaces} if self.replaces else {}),
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
            replaces=take_optional(document, "replaces", str, where),
        )


@dataclass(frozen=True)
class Published:
    """The bundle that stands; whether this call published it; blobs that were copied for it."""

    manifest: BundleManifest
    created: bool
    copied: int = 0


def read_bundle(objects: Objects, fingerprint: str) -> BundleManifest:
    """Raises NotFound if nothing is published, CorruptArtifact if the manifest contradicts itself."""
    return _parsed(objects.get(keys.bundle_manifest(fingerprint)).body, fingerprint)


def bundle_usable(objects: Objects, fingerprint: str) -> bool:
    """Is there a bundle that may be served: published, not marked as damaged, all its blobs there?

    Where this says no, a release compiles, and `publish_bundle` puts the new one in the old one's place.
    Raises PermanentError (a manifest of a newer schema), StoreUnavailable.
    """
    standing = _standing(objects, fingerprint)
    return standing is not None and standing.manifest is not None


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
    keyring: Keyring | None = None,
) -> Published:
    """Make a staged compile result the bundle of `fingerprint`; if a sound one is published already, adopt
    that one. One that is marked as damaged, or lacks blobs, is replaced; its manifest goes to quarantine/.

    validate: gets {path: size} and a reader of staged files; what it returns (one text a fault) refuses the
    bundle. keyring: signs the manifest, and refuses to adopt one that no trusted key signed (Unsigned).
    Raises NotFound (nothing staged), CorruptArtifact (staged bytes differ), PermanentError (invalid
    set of files), Conflict (the published bundle has other inputs).
    """
    # No sweep takes away what this publisher finds in S3 and does not copy again.
    announcement = Announcement(objects, f"publish {fingerprint}", clock=clock)
    announcement.protect([keys.bundle_manifest(fingerprint)])
    standing = _standing(objects, fingerprint)
    if standing is not None and standing.manifest is not None:
        if keyring is not None:
            keyring.check(decode(standing.stored.body, fingerprint), keys.bundle_manifest(fingerprint))
        return Published(_same_inputs(standing.manifest, inputs), created=False)
    staged = read_result(objects, fingerprint, staged_prefix)
    if validate is not None:
        _check_set(objects, staged, staged_prefix, validate)

    announcement.protect_blobs(each.sha256 for each in staged.held())

    def adopt(each: StagedObject) -> bool:
        return blobs.adopt(objects, staged_prefix + each.name, each.sha256, each.size, each.etag)

    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        copied = sum(pool.map(adopt, staged.held()))
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
        replaces=None if standing is None else digest_of(standing.stored.body),
    )
    document = manifest.to_json()
    body = encode(keyring.seal(document, manifest.key) if keyring is not None else document)
    try:
        if standing is None:
            objects.put_new(manifest.key, body)
        else:
            _replace(objects, manifest, standing, body)
    except Conflict:
        return Published(_adopted(objects, fingerprint, inputs, keyring), created=False, copied=copied)
    return Published(manifest, created=True, copied=copied)


def missing_blobs(objects: Objects, files: tuple[FileEntry, ...]) -> list[str]:
    """Paths whose blob is not there, or has another size."""
    wanted = blobs_of(files)
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        present = pool.map(lambda digest: blobs.has_blob(objects, digest, wanted[digest]), wanted)
        missing = {digest for digest, there in zip(wanted, present, strict=True) if not there}
    return [entry.path for entry in files if entry.blob in missing]


@dataclass(frozen=True)
class _Standing:
    """What lies under a fingerprint. manifest: None if it may not be used; fault: why."""

    stored: Stored
    manifest: BundleManifest | None
    fault: str = ""


def _standing(objects: Objects, fingerprint: str) -> _Standing | None:
    """None: nothing is published."""
    stored = objects.get_or_none(keys.bundle_manifest(fingerprint))
    if stored is None:
        return None
    try:
        manifest = _parsed(stored.body, fingerprint)
    except CorruptArtifact as error:
        return _Standing(stored, None, str(error))
    if damage := damage_of(objects, fingerprint, stored.body):
        return _Standing(stored, None, f"{damage.path or manifest.key} is damaged: {damage.reason}")
    if missing := missing_blobs(objects, manifest.files):
        return _Standing(stored, None, f"it names blobs that are gone: {', '.join(missing[:5])}")
    return _Standing(stored, manifest)


def _parsed(body: bytes, fingerprint: str) -> BundleManifest:
    key = keys.bundle_manifest(fingerprint)
    manifest = BundleManifest.from_json(decode(body, key), key)
    if manifest.fingerprint != fingerprint:
        raise CorruptArtifact(f"{key} is the manifest of {manifest.fingerprint}.")
    if not manifest.files:
        raise CorruptArtifact(f"{key} names no files. Delete it and compile again.")
    return manifest


def _replace(objects: Objects, manifest: BundleManifest, standing: _Standing, body: bytes) -> None:
    """Of several who find the same damage exactly one replaces it. Raises Conflict for the others."""
    log.warning("%s is replaced: %s", manifest.key, standing.fault)
    aside = keys.quarantined_manifest(manifest.fingerprint, digest_of(standing.stored.body))
    objects.put(aside, standing.stored.body)
    objects.replace(manifest.key, body, standing.stored.etag)


def _same_inputs(manifest: BundleManifest, inputs: Mapping[str, Any]) -> BundleManifest:
    if dict(manifest.inputs) != dict(inputs):
        raise Conflict(
            f"{manifest.key} was compiled from other inputs than this release asks for: {manifest.inputs!r}. "
            "The fingerprint misses something that differs; compare the two, and delete the wrong bundle."
        )
    return manifest


def _adopted(
    objects: Objects, fingerprint: str, inputs: Mapping[str, Any], keyring: Keyring | None
) -> BundleManifest:
    """The bundle that another publisher put there first."""
    standing = _standing(objects, fingerprint)
    if standing is None or standing.manifest is None:
        fault = "it was deleted" if standing is None else standing.fault
        raise CorruptArtifact(
            f"{keys.bundle_manifest(fingerprint)} of another publisher cannot be used: {fault}. "
            "Release again."
        )
    if keyring is not None:
        keyring.check(decode(standing.stored.body, fingerprint), keys.bundle_manifest(fingerprint))
    return _same_inputs(standing.manifest, inputs)


def _check_set(objects: Objects, staged: StagedResult, prefix: str, validate: Validate) -> None:
    entries = {entry.path: entry for entry in staged.files}
    places = {each.sha256: prefix + each.name for each in staged.held()}

    def read(path: str) -> bytes:
        entry = entries.get(path)
        if entry is None:
            raise NotFound(f"{path} is not in the staged listing.")
        if entry.size > MAX_READ:
            raise PermanentError(
                f"{path} has {entry.size} bytes; files that are read whole have {MAX_READ} at most."
            )
        start = entry.pack.offset if entry.pack else 0
        content = objects.get_range(places[entry.blob], start, entry.size)
        if digest_of(content) != entry.sha256:
            raise CorruptArtifact(f"{path} as staged differs from its listing. Compile again.")
        return content

    faults = validate({path: entry.size for path, entry in entries.items()}, read)
    if faults:
        lines = "\n".join(f"  - {fault}" for fault in faults)
        raise PermanentError(f"The compiled files of {staged.fingerprint} cannot be served:\n{lines}")


def _any_weights(files: tuple[FileEntry, ...]) -> bool:
    return any(entry.path.endswith(".safetensors") for entry in files)
