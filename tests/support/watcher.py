"""A reader who looks at the store all the time, and notes whatever a reader must never see."""

from __future__ import annotations

import hashlib
import threading
from types import TracebackType

from trainyard.store import keys
from trainyard.store.bundles import BundleManifest
from trainyard.store.documents import decode
from trainyard.store.manifests import blobs_of
from trainyard.store.models import ModelManifest
from trainyard.store.objects import Objects

PAUSE = 0.02


class Watcher:
    """wrong: what was seen; looks: how often; manifests: keys that were seen and found whole."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.wrong: list[str] = []
        self.looks = 0
        self.manifests: set[str] = set()
        self._sound: set[tuple[str, str]] = set()
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
        """Everything once. What was verified under an ETag is not read again, only looked up."""
        for prefix in ("models/", "bundles/"):
            for info in self.objects.list(prefix):
                if info.key.endswith("/manifest.json"):
                    self._manifest(info.key)
        for info in self.objects.list("blobs/"):
            self._blob(info.key)
        self.looks += 1

    def _run(self) -> None:
        while not self._ended.wait(PAUSE):
            try:
                self.look()
            except Exception as error:
                self.wrong.append(f"the reader itself failed: {type(error).__name__}: {error}")
                return

    def _manifest(self, key: str) -> None:
        try:
            document = decode(self.objects.get(key).body, key)
            kind = ModelManifest if key.startswith("models/") else BundleManifest
            wanted = blobs_of(kind.from_json(document, key))  # type: ignore[attr-defined]
        except Exception as error:
            self.wrong.append(f"{key} cannot be read: {error}")
            return
        if not wanted:
            self.wrong.append(f"{key} names nothing")
        for digest, size in wanted.items():
            found = self.objects.head_or_none(keys.blob(digest))
            if found is None or found.size != size:
                self.wrong.append(f"{key} names {digest}, which is {found and found.size} bytes, not {size}")
            else:
                self._blob(found.key)
        self.manifests.add(key)

    def _blob(self, key: str) -> None:
        found = self.objects.head_or_none(key)
        if found is None or (key, found.etag) in self._sound:
            return
        stored = self.objects.get(key)
        if hashlib.sha256(stored.body).hexdigest() != key.rpartition("/")[2]:
            self.wrong.append(f"{key} holds other bytes than its name says ({len(stored.body)} bytes)")
        self._sound.add((key, stored.etag))
