"""A reader who looks at the store all the time, and notes whatever a reader must never see."""

from __future__ import annotations

import hashlib
import threading
from types import TracebackType

from trainyard.errors import TrainyardError
from trainyard.store import keys
from trainyard.store.bundles import BundleManifest
from trainyard.store.documents import decode
from trainyard.store.manifests import blobs_of
from trainyard.store.models import ModelManifest
from trainyard.store.objects import ObjectInfo, Objects

PAUSE = 0.05


class Watcher:
    """wrong: what was seen; looks: how often; manifests: keys that
    were there at the last look."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.wrong: list[str] = []
        self.looks = 0
        self.manifests: set[str] = set()
        self._sound: set[tuple[str, str]] = set()
        self._named: dict[tuple[str, str], dict[str, int]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(60)
        if error is None:
            self.look()

    def look(self) -> None:
        """Everything once. Manifests first, then blobs: what a manifest names has to be there before it.

        What was verified under an ETag is not read again.
        """
        wanted = {}
        for prefix in ("models/", "bundles/"):
            for info in self.objects.list(prefix):
                if info.key.endswith("/manifest.json"):
                    wanted[info.key] = self._wanted(info)
        blobs = {info.key: info for info in self.objects.list("blobs/")}
        for info in blobs.values():
            self._check_blob(info)
        for key, sizes in wanted.items():
            for digest, size in sizes.items():
                found = blobs.get(keys.blob(digest))
                if found is None or found.size != size:
                    self.wrong.append(f"{key} names {digest} of {size} bytes: {found}")
        self.manifests = set(wanted)
        self.looks += 1

    def _run(self) -> None:
        while not self._ended.wait(PAUSE):
            try:
                self.look()
            except Exception as error:
                self.wrong.append(f"the reader itself failed: {type(error).__name__}: {error}")
                return

    def _wanted(self, info: ObjectInfo) -> dict[str, int]:
        """Blobs that a manifest names, with their sizes."""
        known = self._named.get((info.key, info.etag))
        if known is not None:
            return known
        try:
            document = decode(self.objects.get(info.key).body, info.key)
            kind = ModelManifest if info.key.startswith("models/") else BundleManifest
            named = blobs_of(kind.from_json(document, info.key))  # type: ignore[attr-defined]
        except TrainyardError as error:
            self.wrong.append(f"{info.key} cannot be read: {error}")
            return {}
        if not named:
            self.wrong.append(f"{info.key} names nothing")
        self._named[info.key, info.etag] = named
        return named

    def _check_blob(self, info: ObjectInfo) -> None:
        if (info.key, info.etag) in self._sound:
            return
        stored = self.objects.get_or_none(info.key)
        if stored is None:
            return  # set aside since it was listed
        if hashlib.sha256(stored.body).hexdigest() != info.key.rpartition("/")[2]:
            self.wrong.append(f"{info.key} holds other bytes than its name says ({len(stored.body)} bytes)")
        self._sound.add((info.key, stored.etag))
