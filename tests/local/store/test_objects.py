"""The seam to S3 against a real server, and what it does when that server misbehaves."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from tests.support.faulty_s3 import Faulty, Rule
from tests.support.memory_objects import MemoryObjects
from tests.support.seaweed import S3Server
from trainyard.errors import Conflict, NotFound, PermanentError, StoreUnavailable
from trainyard.store import objects as objects_module
from trainyard.store.objects import AlreadyExists, Objects


@pytest.fixture(params=["seaweed", "memory"])
def either(request: pytest.FixtureRequest, s3_server: S3Server, bucket: str) -> Objects:
    """The real store and the tests' stand-in: both must keep the same promises."""
    return Objects(s3_server.client(), bucket) if request.param == "seaweed" else MemoryObjects()


@pytest.fixture
def shaky(faulty: Faulty, s3_server: S3Server, bucket: str) -> Objects:
    return Objects(s3_server.client(endpoint_url=faulty.endpoint, attempts=3), bucket)


def test_what_was_put_is_read_back(either: Objects) -> None:
    etag = either.put("a/b", b"one")
    assert either.get("a/b").body == b"one"
    assert either.get("a/b").etag == etag == either.head("a/b").etag
    assert either.head("a/b").size == 3
    assert either.get_or_none("nothing") is None
    with pytest.raises(NotFound):
        either.head("nothing")


def test_only_the_first_of_two_creators_creates(either: Objects) -> None:
    either.put_new("k", b"first")
    with pytest.raises(AlreadyExists):
        either.put_new("k", b"second")
    assert either.get("k").body == b"first"


def test_a_second_writer_gets_a_conflict(either: Objects) -> None:
    etag = either.put("k", b"0")
    newer = either.replace("k", b"1", etag)
    with pytest.raises(Conflict):
        either.replace("k", b"2", etag)
    either.replace("k", b"3", newer)
    assert either.get("k").body == b"3"


def test_replacing_what_was_deleted_is_a_conflict(either: Objects) -> None:
    etag = either.put("k", b"0")
    either.delete("k")
    either.delete("k")
    with pytest.raises(Conflict):
        either.replace("k", b"1", etag)


def test_listing_is_in_key_order_and_within_the_prefix(either: Objects) -> None:
    for key in ("p/b", "p/a", "q/c"):
        either.put(key, b"x")
    assert [info.key for info in either.list("p/")] == ["p/a", "p/b"]


def test_of_twenty_simultaneous_writers_exactly_one_replaces(s3_server: S3Server, store: Objects) -> None:
    etag = store.put("k", b"0")
    won: list[int] = []
    together = threading.Barrier(20)

    def write(number: int) -> None:
        mine = Objects(store.client, store.bucket)
        together.wait()
        try:
            mine.replace("k", str(number).encode(), etag)
        except Conflict:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(number).encode() for number in won] == [store.get("k").body]


def test_a_copy_is_of_the_version_that_was_looked_at(store: Objects) -> None:
    etag = store.put("from", b"one")
    store.copy("from", "to", etag)
    assert store.get("to").body == b"one"
    store.put("from", b"two")
    with pytest.raises(Conflict):
        store.copy("from", "to", etag)


def test_what_is_too_large_for_one_copy_is_copied_by_parts(
    store: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "COPY_LIMIT", 1 << 20)
    monkeypatch.setattr(objects_module, "COPY_PART", 5 << 20)
    content = bytes(range(256)) * (11 << 12)
    etag = store.put("from", content)
    store.copy("from", "to", etag)
    assert store.get("to").body == content
    with pytest.raises(Conflict):
        store.copy("from", "other", '"another-version"')
    assert not store.client.list_multipart_uploads(Bucket=store.bucket).get("Uploads")


def test_a_missing_bucket_is_said_and_not_taken_for_a_missing_object(s3_server: S3Server) -> None:
    nowhere = Objects(s3_server.client(), "no-such-bucket")
    with pytest.raises(PermanentError, match="TRAINYARD_BUCKET"):
        nowhere.get_or_none("k")


def test_a_wrong_key_is_refused_with_a_remedy(s3_server: S3Server, bucket: str) -> None:
    wrong = Objects(s3_server.client(secret_access_key="wrong"), bucket)
    with pytest.raises(PermanentError, match="secret key"):
        wrong.get("k")


def test_a_server_that_recovers_is_waited_for(faulty: Faulty, shaky: Objects) -> None:
    faulty.rules = [Rule("status", times=2), Rule("reset", method="GET", times=1)]
    shaky.put("k", b"x")
    assert shaky.get("k").body == b"x"


def test_a_server_that_stays_broken_is_unavailable_not_a_crash(faulty: Faulty, shaky: Objects) -> None:
    for kind in ("status", "reset"):
        faulty.rules = [Rule(kind, times=99)]
        with pytest.raises(StoreUnavailable):
            shaky.put("k", b"x")


def test_nobody_there_is_unavailable(s3_server: S3Server) -> None:
    gone = Objects(s3_server.client(endpoint_url="http://127.0.0.1:1", attempts=1), "b")
    with pytest.raises(StoreUnavailable):
        gone.get("k")


def test_a_lost_reply_of_a_conditional_write_is_recognised_as_ours(faulty: Faulty, shaky: Objects) -> None:
    faulty.rules = [Rule("lost", times=1)]
    etag = shaky.put_new("k", b"mine")
    faulty.rules = [Rule("lost", times=1)]
    shaky.replace("k", b"mine too", etag)
    assert shaky.get("k").body == b"mine too"


def test_a_lost_reply_does_not_hide_that_somebody_else_was_first(faulty: Faulty, shaky: Objects) -> None:
    shaky.put("k", b"theirs")
    faulty.rules = [Rule("reset", times=1)]
    with pytest.raises(AlreadyExists):
        shaky.put_new("k", b"mine")


def test_a_reply_that_is_cut_is_read_again(faulty: Faulty, shaky: Objects) -> None:
    shaky.put("k", b"x" * 100_000)
    faulty.rules = [Rule("cut", method="GET", times=2)]
    assert shaky.get("k").body == b"x" * 100_000
    faulty.rules = [Rule("cut", method="GET", times=1)]
    assert shaky.get_range("k", 10, 50_000) == b"x" * 50_000


def test_bytes_damaged_on_their_way_to_s3_are_refused_by_it(s3_server: S3Server, bucket: str) -> None:
    store = Objects(s3_server.client(attempts=2), bucket)

    def flip(request: Any, **_: object) -> None:
        request.body = io.BytesIO(b"jello")

    # After the checksum was computed, before it is sent: as a bad network card would.
    store.client.meta.events.register("before-send.s3.PutObject", flip)
    with pytest.raises((StoreUnavailable, PermanentError)):
        store.put("k", b"hello")
    assert store.get_or_none("k") is None
