"""What is named: by channels and running releases, by retention, and through their manifests down to blobs.

Whatever cannot be read ends the sweep: a record or manifest that nobody understands may name anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from trainyard.errors import CorruptArtifact, PermanentError
from trainyard.store.channels import Channels
from trainyard.store.compile_cache import configuration_key
from trainyard.store.documents import decode, timestamp
from trainyard.store.leases import Leases
from trainyard.store.manifests import blobs_of, files_from_json
from trainyard.store.objects import ObjectInfo, Objects
from trainyard.store.retention import Fact, Pointer, Policy, kept

PARALLEL = 8
# Documents in memory at once.
WINDOW = 64


@dataclass
class Reader:
    """Reads facts, and again only of what changed. Facts are some hundred bytes a release, records 100 KB."""

    objects: Objects
    _facts: dict[str, tuple[str, Fact]] = field(default_factory=dict)

    def facts(self) -> list[Fact]:
        """Of every record. Raises CorruptArtifact, PermanentError (a newer schema)."""
        fresh: dict[str, tuple[str, Fact]] = {}
        changed = []
        for info in self.objects.list("releases/"):
            known = self._facts.get(info.key)
            if known is not None and known[0] == info.etag:
                fresh[info.key] = known
            elif info.key.endswith(".json"):
                changed.append(info)
        for info, body in read_many(self.objects, iter(changed)):
            fresh[info.key] = (info.etag, _fact(decode(body, info.key), info.key))
        self._facts = fresh
        return [fact for _, fact in fresh.values()]

    def pointers(self) -> dict[str, Pointer]:
        """The channels, by model."""
        channels = Channels(self.objects)
        models = [info.key.removeprefix("channels/").removesuffix(".json")
                  for info in self.objects.list("channels/")]  # fmt: skip
        found = {}
        for model in models:
            channel = channels.read(model)
            lease = Leases(self.objects).last(model)
            found[model] = Pointer(
                channel.stable,
                channel.previous,
                lease.holder if lease else None,
                tuple(move.release for move in channel.history),
            )
        return found


@dataclass(frozen=True)
class Roots:
    """releases: (model, release) -> why it is kept; running: of those, release ids; manifests: keys;
    configurations: of compile caches; records: how many there are, kept or not."""

    releases: dict[tuple[str, str], str]
    running: frozenset[str]
    manifests: frozenset[str]
    configurations: frozenset[str]
    records: int


def read_roots(reader: Reader, policy: Policy, now: float) -> Roots:
    """Raises PermanentError where a stable release has no record: what it needs is not known."""
    pointers = reader.pointers()  # before the records: what becomes stable meanwhile was running
    facts = reader.facts()
    keep = kept(facts, pointers, policy, timestamp(now - policy.days * 86400))
    there = {(fact.model, fact.release) for fact in facts}
    for model, pointer in pointers.items():
        if pointer.stable and (model, pointer.stable) not in there:
            raise PermanentError(
                f"channels/{model}.json names {pointer.stable} as stable, which has no record. Nothing is "
                f"swept while that is so: restore releases/{model}/{pointer.stable}.json, or release again."
            )
    wanted = [fact for fact in facts if (fact.model, fact.release) in keep]
    return Roots(
        keep,
        frozenset(release for (_, release), why in keep.items() if why == "running"),
        frozenset(key for fact in wanted for key in fact.manifests),
        frozenset(fact.configuration for fact in wanted if fact.configuration),
        len(facts),
    )


def manifests(objects: Objects) -> Iterator[ObjectInfo]:
    """All manifests of models and bundles."""
    for prefix in ("models/", "bundles/"):
        for info in objects.list(prefix):
            if info.key.endswith("/manifest.json"):
                yield info


def named_blobs(objects: Objects, those: Iterator[ObjectInfo]) -> set[bytes]:
    """Digests (32 bytes each) of all blobs that these manifests need, packs included."""
    found: set[bytes] = set()
    for info, body in read_many(objects, those):
        document = decode(body, info.key)
        if document.get("kind") not in ("model", "bundle"):
            raise CorruptArtifact(f"{info.key} is no manifest of a model or a bundle. Restore or delete it.")
        found.update(bytes.fromhex(digest) for digest in blobs_of(files_from_json(document, info.key)))
    return found


def log_keys(objects: Objects, those: Iterator[ObjectInfo]) -> set[str]:
    """Logs that bundles name."""
    found = set()
    for info, body in read_many(objects, those):
        key = decode(body, info.key).get("log_key")
        if isinstance(key, str):
            found.add(key)
    return found


def read_many(objects: Objects, those: Iterator[ObjectInfo]) -> Iterator[tuple[ObjectInfo, bytes]]:
    """Contents, a window at a time. Objects that are gone meanwhile are left out."""
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        while window := list(islice(those, WINDOW)):
            bodies = pool.map(lambda info: objects.get_or_none(info.key), window)
            for info, stored in zip(window, bodies, strict=True):
                if stored is not None:
                    yield info, stored.body


def _fact(document: dict[str, Any], key: str) -> Fact:
    plan = document.get("plan")
    state, model, release = (document.get(name) for name in ("state", "model", "id"))
    if not isinstance(plan, dict) or not all(isinstance(text, str) for text in (state, model, release)):
        raise CorruptArtifact(f"{key} is no record of a release: it lacks plan, state, model or id.")
    if key != f"releases/{model}/{release}.json":
        raise CorruptArtifact(f"{key} is the record of {model}/{release}.")
    manifests = [plan.get(name) for name in ("model_manifest", "bundle_manifest")]
    if not all(isinstance(name, str) and name for name in manifests):
        raise CorruptArtifact(f"{key} does not say which manifests it needs.")
    inputs = plan.get("fingerprint_inputs")
    return Fact(
        str(model),
        str(release),
        str(state),
        str(document.get("updated_at") or ""),
        tuple(str(name) for name in manifests),
        configuration_key(inputs) if isinstance(inputs, dict) else "",
    )
