"""The record of releases in S3. Records are opaque here: JSON objects with `schema` and, once written,
`lease_token`."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from trainyard.errors import Conflict, LeaseLost, NotFound
from trainyard.store import keys
from trainyard.store.documents import check_schema, decode, encode
from trainyard.store.objects import Objects
from trainyard.store.signing import Keyring, stripped
from trainyard.store.tokens import current_token

UPDATE_ATTEMPTS = 12
# The token of the last write, and the oldest that may still write.
_TOKENS = ("lease_token", "fence_token")
Change = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Versioned:
    """A record and the ETag of the version that was read or written."""

    document: dict[str, Any]
    etag: str


class Ledger:
    """keyring: signs what is written, and refuses what none of its public keys signed. Documents that are
    read come without their signature."""

    def __init__(self, objects: Objects, keyring: Keyring | None = None) -> None:
        self.objects, self.keyring = objects, keyring

    def read(self, model: str, release: str) -> Versioned:
        """Raises NotFound, Unsigned."""
        key = keys.release(model, release)
        stored = self.objects.get(key)
        return self._opened(key, stored.body, stored.etag)

    def _opened(self, key: str, body: bytes, etag: str) -> Versioned:
        document = decode(body, key)
        if self.keyring is not None:
            self.keyring.check(document, key)
        return Versioned(stripped(document), etag)

    def _sealed(self, key: str, document: Mapping[str, Any]) -> bytes:
        return encode(self.keyring.seal(document, key) if self.keyring is not None else document)

    def create(self, model: str, release: str, document: Mapping[str, Any]) -> Versioned:
        """Raises AlreadyExists (a Conflict) if the release has a record."""
        key = keys.release(model, release)
        check_schema(document, key)
        return Versioned(dict(document), self.objects.put_new(key, self._sealed(key, document)))

    def update(
        self,
        model: str,
        release: str,
        change: Change,
        token: int | None = None,
        known: Versioned | None = None,
    ) -> Versioned:
        """Replace the record by `change(record)`, by compare-and-swap; `change` may be called several times.

        token: of the caller's lease. Refused with LeaseLost when the record or the model's lease has a newer
        one. None is for what needs no lease (notes, housekeeping). Raises NotFound; Conflict when others win
        every time.
        known: the version that the caller saw last, which spares reading it again; if others have written
        since, the swap finds that out, and the record is read.
        """
        return self._swap(model, release, change, token, known=known)

    def _swap(
        self,
        model: str,
        release: str,
        change: Change,
        token: int | None,
        fence: int | None = None,
        known: Versioned | None = None,
    ) -> Versioned:
        key = keys.release(model, release)
        for attempt in range(UPDATE_ATTEMPTS):
            current = known or self.read(model, release)
            self._check_token(model, release, current.document, token)
            changed = change(copy.deepcopy(current.document))
            check_schema(changed, key)
            # Whatever `change` made of them: tokens are ours to keep.
            kept = {name: current.document[name] for name in _TOKENS if name in current.document}
            changed = {**changed, **kept, **({"lease_token": token} if token is not None else {})}
            if fence is not None:
                changed["fence_token"] = max(fence, current.document.get("fence_token") or 0)
            if changed == current.document and known is None:
                return current
            known = None
            try:
                return Versioned(changed, self.objects.replace(key, self._sealed(key, changed), current.etag))
            except Conflict:
                time.sleep(random.uniform(0, 0.02) * 2 ** min(attempt, 6))
        raise Conflict(
            f"{key} was changed by others {UPDATE_ATTEMPTS} times in a row. Look who writes it, and retry."
        )

    def fence(self, model: str, release: str, token: int) -> None:
        """Make every holder of an older token fail from now on. No record there is fine.

        The record's own `lease_token` stays: who reads it there must not come by the new holder's token.
        """
        try:
            self._swap(model, release, lambda document: document, None, fence=token)
        except NotFound:
            pass

    def list(self, model: str) -> list[Versioned]:
        """All records of a model, by key order. Records deleted meanwhile are left out."""
        listed = [info.key for info in self.objects.list(keys.releases(model)) if info.key.endswith(".json")]
        with ThreadPoolExecutor(max_workers=8) as pool:
            stored = list(pool.map(self.objects.get_or_none, listed))
        return [
            self._opened(key, found.body, found.etag)
            for key, found in zip(listed, stored, strict=True)
            if found is not None
        ]

    def _check_token(self, model: str, release: str, document: dict[str, Any], token: int | None) -> None:
        if token is None:
            return
        newest = max(current_token(self.objects, model), *(document.get(name) or 0 for name in _TOKENS))
        if newest > token:
            raise LeaseLost(
                f"Release {release} of {model}: this run holds lease token {token}, but token {newest} was "
                "given out "
                "since. Another run took over; this one may change nothing. Start a new run if it is still "
                "wanted."
            )
