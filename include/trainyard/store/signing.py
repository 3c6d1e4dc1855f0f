"""Signatures of manifests and records: ed25519, inside the document, over everything else in it.

"signatures": [{"keyid": "…", "sig": base64}] signs the canonical bytes of the document without that field,
and its key in the bucket, in DSSE's pre-authentication encoding. Inside the document, because a manifest is
published by one conditional write and a record is replaced by another: what is visible is signed, always.
Readers that know no keys pass over the field. `cryptography` is imported only where keys are: never in pods.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard.errors import PermanentError, Unsigned
from trainyard.store.documents import encode

FIELD = "signatures"
# One a key while keys are rotated.
MOST_SIGNATURES = 8


@dataclass(frozen=True)
class Keyring:
    """public: keys that are trusted, by id (none: nothing is refused); private: signs, if there is one."""

    public: Mapping[str, Any] = field(default_factory=dict)
    private: Any = field(default=None, repr=False)

    def seal(self, document: Mapping[str, Any], key: str) -> dict[str, Any]:
        """The document with our signature, in place of any that it had. Without a private key: as it is."""
        plain = {name: value for name, value in document.items() if name != FIELD}
        if self.private is None:
            return dict(document)
        signature = self.private.sign(payload(plain, key))
        mine = {"keyid": key_id(self.private.public_key()), "sig": base64.b64encode(signature).decode()}
        return {**plain, FIELD: [mine]}

    def check(self, document: Mapping[str, Any], key: str) -> None:
        """Raises Unsigned unless one of the trusted keys signed exactly this document under this key."""
        if not self.public:
            return
        from cryptography.exceptions import InvalidSignature

        said = document.get(FIELD)
        if not isinstance(said, list) or not said:
            raise Unsigned(f"{key} is not signed. {_REMEDY}")
        plain = {name: value for name, value in document.items() if name != FIELD}
        try:
            signed = payload(plain, key)
        except (ValueError, RecursionError):  # NaN, lone surrogates
            raise Unsigned(f"{key} holds what JSON cannot say, so nobody signed it. {_REMEDY}") from None
        tried: list[str] = []
        for each in said[:MOST_SIGNATURES]:
            name, signature = _signature(each)
            tried.append(name or "?")
            if name in self.public:
                try:
                    self.public[name].verify(signature, signed)
                    return
                except InvalidSignature:
                    raise Unsigned(
                        f"{key} was altered after key {name} had signed it (or moved here). {_REMEDY}"
                    ) from None
        raise Unsigned(
            f"{key} is signed by {', '.join(tried)}; trusted are {', '.join(sorted(self.public))}. {_REMEDY}"
        )


_REMEDY = (
    "Nothing was taken from it. If you know who wrote it, sign it (trainyard store sign); else delete it and "
    "release again: docs/signing.md."
)


def stripped(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != FIELD}


def payload(document: Mapping[str, Any], key: str) -> bytes:
    """What is signed: DSSE's PAE(type, body); the type names the place, so no document passes for another."""
    kind = f"application/vnd.trainyard+json; key={key}".encode()
    body = encode(document)
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


def key_id(public: Any) -> str:
    """First 16 digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def keyring(public_keys: str, private_key: str | bytes | None = None) -> Keyring | None:
    """public_keys: raw keys in base64, PEM texts, or files of them, with commas between; private_key: PEM, or
    the raw 32 bytes in base64. None where neither is given.

    Raises PermanentError: a key that is none, or a private key whose public one is not trusted.
    """
    public = {key_id(key): key for key in (_public(word) for word in _words(public_keys))}
    private = _private(private_key) if private_key else None
    if not public and private is None:
        return None
    if public and private is not None and key_id(private.public_key()) not in public:
        raise PermanentError(
            f"The signing key has the id {key_id(private.public_key())}, which is not among "
            f"TRAINYARD_PUBLIC_KEYS ({', '.join(sorted(public))}): what it signs would be refused. "
            "Add its public key there."
        )
    return Keyring(public, private)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _public(word: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    text = word.encode()
    try:
        if not word.startswith("-----") and ("/" in word[:1] or word.endswith(".pem")):
            text = Path(word).read_bytes().strip()
        if text.startswith(b"-----"):
            found = load_pem_public_key(text)
            if not isinstance(found, Ed25519PublicKey):
                raise ValueError("not an ed25519 key")
            return found
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (ValueError, OSError, binascii.Error, UnsupportedAlgorithm) as error:
        raise PermanentError(
            f"TRAINYARD_PUBLIC_KEYS: {word[:60]!r} is no ed25519 public key ({error}). Give 32 raw bytes in "
            "base64, or the path of a PEM file."
        ) from error


def _private(text: str | bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    raw = text.encode() if isinstance(text, str) else text
    raw = raw.replace(b"\\n", b"\n").strip()  # as connections in environment variables spell line ends
    try:
        if raw.startswith(b"-----"):
            found = load_pem_private_key(raw, password=None)
            if not isinstance(found, Ed25519PrivateKey):
                raise ValueError("not an ed25519 key")
            return found
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(raw, validate=True))
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        # Without the cause: it may quote the key.
        raise PermanentError(
            "The signing key is no ed25519 private key. Make one: openssl genpkey -algorithm ed25519"
        ) from None


def _signature(each: Any) -> tuple[str, bytes]:
    if not isinstance(each, dict):
        return "", b""
    try:
        return str(each.get("keyid")), base64.b64decode(str(each.get("sig")), validate=True)
    except (ValueError, binascii.Error):
        return str(each.get("keyid")), b""
