"""Signs what is in the bucket already: when keys come, or go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from trainyard.errors import Conflict, PermanentError, Unsigned
from trainyard.store.damage import Damage, damage_of
from trainyard.store.documents import decode, encode
from trainyard.store.inventory import verify
from trainyard.store.marks import manifests
from trainyard.store.objects import ObjectInfo, Objects
from trainyard.store.signing import FIELD, Keyring, key_id, stripped


@dataclass(frozen=True)
class Signed:
    """state: `signed` by the current key already, `old` (by another trusted one), `unsigned`, `untrusted`
    (altered, or by a key that is not trusted), `damaged` (a manifest that is marked, or whose files
    are not what it says)."""

    key: str
    state: str
    done: bool = False
    why: str = ""


def resign(objects: Objects, keyring: Keyring, *, change: bool, untrusted: bool = False) -> Iterator[Signed]:
    """Every manifest and record. Manifests are signed only once all their files were read and hashed.

    untrusted: sign those, too, that bear a signature that nobody trusts any more.
    Raises PermanentError without a private key.
    """
    if keyring.private is None:
        raise PermanentError(
            "There is no key to sign with: set TRAINYARD_SIGNING_KEY_FILE. See docs/signing.md."
        )
    mine = key_id(keyring.private.public_key())
    for info in chain(manifests(objects), objects.list("releases/")):
        yield _one(objects, keyring, info, mine, change, untrusted)


def _one(
    objects: Objects, keyring: Keyring, info: ObjectInfo, mine: str, change: bool, untrusted: bool
) -> Signed:
    stored = objects.get_or_none(info.key)
    if stored is None:
        return Signed(info.key, "gone")
    document = decode(stored.body, info.key)
    said = document.get(FIELD)
    state, why = "unsigned", ""
    if said:
        try:
            keyring.check(document, info.key)
            ours = any(isinstance(each, dict) and each.get("keyid") == mine for each in said)
            state = "signed" if ours else "old"
        except Unsigned as error:
            state, why = "untrusted", str(error)
    if damage := _mark(objects, info.key, stored.body):
        # Signed anew it would be another manifest, and the mark on this one void.
        return Signed(info.key, "damaged", why=f"{damage.path}: {damage.reason}")
    if state == "signed" or not change or (state == "untrusted" and not untrusted):
        return Signed(info.key, state, why=why)
    if info.key.endswith("/manifest.json"):
        faults = verify(objects, info.key).faults
        if faults:
            return Signed(info.key, "damaged", why=f"{faults[0].path}: {faults[0].why}")
    try:
        objects.replace(info.key, encode(keyring.seal(stripped(document), info.key)), stored.etag)
    except Conflict:
        return Signed(info.key, state, why="it was changed meanwhile: sign again")
    return Signed(info.key, state, done=True)


def _mark(objects: Objects, key: str, manifest: bytes) -> Damage | None:
    """The mark on a bundle's manifest, if this is one and is marked."""
    kind, _, name = key.partition("/")
    fingerprint, _, file = name.partition("/")
    return damage_of(objects, fingerprint, manifest) if (kind, file) == ("bundles", "manifest.json") else None
