"""Signatures: what is signed is taken, anything else is refused, and keys can be changed."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.memory_objects import MemoryObjects
from trainyard.errors import PermanentError, Unsigned
from trainyard.store.documents import decode, encode
from trainyard.store.leases import Leases
from trainyard.store.ledger import Ledger
from trainyard.store.signing import FIELD, Keyring, key_id, keyring, payload

OLD, NEW = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
KEY = "bundles/f1/manifest.json"


def ring(private: Any, *public: Any) -> Keyring:
    return Keyring({key_id(each.public_key()): each.public_key() for each in public}, private)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=80)
@given(
    document=st.dictionaries(st.text(min_size=1), JSON, max_size=4).map(lambda made: {**made, "schema": 1}),
    name=st.text(min_size=1).filter(lambda text: text != FIELD),
    value=JSON,
)
def test_what_was_signed_is_taken_and_any_change_is_refused(
    document: dict[str, Any], name: str, value: Any
) -> None:
    document.pop(FIELD, None)
    trusted = ring(OLD, OLD)
    sealed = decode(encode(trusted.seal(document, KEY)), KEY)  # as it comes back from S3
    trusted.check(sealed, KEY)
    changed = {**sealed, name: value}
    if encode(changed) != encode(sealed):
        with pytest.raises(Unsigned, match="altered"):
            trusted.check(changed, KEY)
    with pytest.raises(Unsigned, match="moved here"):
        trusted.check(sealed, "bundles/f2/manifest.json")


@settings(deadline=None, max_examples=60)
@given(said=JSON)
def test_no_signature_that_is_none_is_taken_and_none_crashes_a_reader(said: Any) -> None:
    with pytest.raises(Unsigned):
        ring(None, OLD).check({"schema": 1, FIELD: said}, KEY)


@pytest.mark.parametrize("value", [float("nan"), "\ud800"])
def test_what_json_cannot_say_is_refused_not_a_crash(value: object) -> None:
    sealed = ring(OLD).seal({"schema": 1}, KEY)
    with pytest.raises(Unsigned, match="cannot say"):
        ring(None, OLD).check({**sealed, "x": value}, KEY)


def test_keys_are_rotated_without_a_moment_in_which_anything_is_refused() -> None:
    before, both, after = ring(OLD, OLD), ring(NEW, OLD, NEW), ring(NEW, NEW)
    old = before.seal({"schema": 1}, KEY)
    both.check(old, KEY)
    with pytest.raises(Unsigned, match="trusted are"):
        after.check(old, KEY)
    new = both.seal(old, KEY)
    both.check(new, KEY)
    after.check(new, KEY)
    with pytest.raises(Unsigned):
        before.check(new, KEY)


def test_a_stranger_cannot_use_a_trusted_keys_name() -> None:
    forged = ring(NEW).seal({"schema": 1}, KEY)
    forged[FIELD][0]["keyid"] = key_id(OLD.public_key())
    with pytest.raises(Unsigned, match="altered"):
        ring(None, OLD).check(forged, KEY)


def test_without_public_keys_nothing_is_refused() -> None:
    ring(OLD).check({"schema": 1}, KEY)
    assert Keyring().seal({"schema": 1}, KEY) == {"schema": 1}


def test_the_bytes_that_are_signed_are_those_of_dsse() -> None:
    kind = b"application/vnd.trainyard+json; key=k"
    assert payload({"b": 1, "a": "é"}, "k") == (
        b"DSSEv1 %d %s 17 " % (len(kind), kind) + '{"a":"é","b":1}\n'.encode()
    )


def test_keys_are_read_as_people_have_them(tmp_path: Any) -> None:
    pem = OLD.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    raw = base64.b64encode(NEW.public_key().public_bytes_raw()).decode()
    file = tmp_path / "trusted.pem"
    file.write_bytes(OLD.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    found = keyring(f"{file}, {raw}", pem.decode().replace("\n", "\\n"))
    assert found is not None
    assert set(found.public) == {key_id(OLD.public_key()), key_id(NEW.public_key())}
    assert keyring("", None) is None
    for public, private, words in (
        ("nonsense", None, "no ed25519 public key"),
        ("", "-----BEGIN nonsense", "openssl genpkey"),
        (raw, pem, "not among TRAINYARD_PUBLIC_KEYS"),
    ):
        with pytest.raises(PermanentError, match=words) as caught:
            keyring(public, private)
        assert "BEGIN nonsense" not in str(caught.value)
    assert base64.b64encode(OLD.private_bytes_raw()).decode() not in repr(found)


def test_records_are_signed_with_every_change_also_when_a_lease_changes_hands() -> None:
    objects, now, trusted = MemoryObjects(), [0.0], ring(OLD, OLD)
    ledger = Ledger(objects, trusted)
    leases = Leases(objects, lambda: now[0], ledger=ledger)
    for name in ("a", "b"):
        ledger.create("m", name, {"schema": 1, "state": "running"})
    first = leases.acquire("m", "a", 10)
    ledger.update("m", "a", lambda record: {**record, "state": "x"}, first.token)
    now[0] = 20.0
    leases.acquire("m", "b", 10)
    found = ledger.read("m", "a").document
    assert (found["state"], found["fence_token"]) == ("x", 2)
    assert FIELD not in found
    assert [item.document["state"] for item in ledger.list("m")] == ["x", "running"]
    assert FIELD not in Ledger(objects).read("m", "a").document

    stored = decode(objects.get("releases/m/a.json").body, "x")
    objects.put("releases/m/a.json", encode({**stored, "state": "promoted"}))
    for attempt in (lambda: ledger.read("m", "a"), lambda: ledger.list("m")):
        with pytest.raises(Unsigned, match=r"releases/m/a.json was altered"):
            attempt()
    # Neither does another release's good record pass for this one.
    objects.put("releases/m/a.json", objects.get("releases/m/b.json").body)
    with pytest.raises(Unsigned):
        ledger.update("m", "a", lambda record: record)
