"""Uploads that outlive their process."""

from __future__ import annotations

import hashlib
import random

import pytest

from tests.support.faulty_s3 import Rule, faulty_s3
from tests.support.seaweed import S3Server
from tests.support.shards import PART
from trainyard.errors import CorruptArtifact, NotFound
from trainyard.store import keys, uploads
from trainyard.store.objects import Objects
from trainyard.store.uploads import Upload, abort_stale, open_upload

RANDOM = random.Random(1)
CONTENT = RANDOM.randbytes(2 * PART + 999)
PARTS = [CONTENT[start : start + PART] for start in range(0, len(CONTENT), PART)]
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def begin(store: Objects) -> Upload:
    return open_upload(store, DIGEST, len(CONTENT), PART)


def pending(store: Objects) -> list[object]:
    return list(store.client.list_multipart_uploads(Bucket=store.bucket).get("Uploads", []))


def test_parts_in_any_order_become_a_blob_whose_checksum_s3_has_compared(store: Objects) -> None:
    upload = begin(store)
    for number in (3, 1, 2):
        assert upload.send(number, PARTS[number - 1])
        assert store.head_or_none(keys.blob(DIGEST)) is None
    upload.complete()
    assert store.get(keys.blob(DIGEST)).body == CONTENT
    head = store.client.head_object(Bucket=store.bucket, Key=keys.blob(DIGEST), ChecksumMode="ENABLED")
    assert head["ChecksumType"] == "FULL_OBJECT"
    assert head[upload.checksum.field] == upload.checksum.text(upload.checksum.of(CONTENT))
    assert store.head_or_none(keys.upload(DIGEST)) is None


def test_what_s3_holds_is_not_sent_again(store: Objects) -> None:
    begin(store).send(2, PARTS[1])
    again = begin(store)
    assert [again.send(number, part) for number, part in enumerate(PARTS, 1)] == [True, False, True]
    again.complete()
    assert store.get(keys.blob(DIGEST)).body == CONTENT


def test_a_part_that_differs_is_sent_again(store: Objects) -> None:
    begin(store).send(1, PARTS[0][:-1] + b"?")
    again = begin(store)
    assert all(again.send(number, part) for number, part in enumerate(PARTS, 1))
    again.complete()
    assert store.get(keys.blob(DIGEST)).body == CONTENT


def test_another_hand_in_the_upload_changes_nothing_that_shows(store: Objects) -> None:
    ours, theirs = begin(store), begin(store)
    assert ours.upload == theirs.upload
    for number, part in enumerate(PARTS, 1):
        ours.send(number, part)
    theirs.send(2, bytes(PART))
    try:
        ours.complete()
    except CorruptArtifact:  # AWS keeps the last part of a number, SeaweedFS finds the one that is meant
        assert store.head_or_none(keys.blob(DIGEST)) is None
    else:
        assert store.get(keys.blob(DIGEST)).body == CONTENT


def test_s3_refuses_a_whole_that_is_not_what_was_meant(store: Objects) -> None:
    upload = begin(store)
    for number, part in enumerate(PARTS, 1):
        upload.send(number, part)
    entry, value, size = upload._good[2]
    upload._good[2] = (entry, value ^ 1, size)
    with pytest.raises(CorruptArtifact, match="begins anew"):
        upload.complete()
    assert store.head_or_none(keys.blob(DIGEST)) is None
    assert pending(store) == []


def test_two_writers_of_the_same_bytes_end_with_one_blob(store: Objects) -> None:
    one, two = begin(store), begin(store)
    for number, part in enumerate(PARTS, 1):
        one.send(number, part)
        two.send(number, part)
    one.complete()
    two.complete()
    assert store.get(keys.blob(DIGEST)).body == CONTENT


def test_a_part_for_an_upload_that_is_gone_says_so(store: Objects) -> None:
    upload = begin(store)
    begin(store).abort()
    with pytest.raises(NotFound):
        upload.send(1, PARTS[0])
    fresh = begin(store)
    assert fresh.upload != upload.upload


def test_a_record_that_makes_no_sense_begins_anew(store: Objects) -> None:
    first = begin(store)
    store.put(keys.upload(DIGEST), b"{}\n".replace(b"{}", b'{"schema":1}'))
    assert begin(store).upload != first.upload


def test_stale_uploads_of_ours_are_thrown_away_and_young_ones_stay(store: Objects) -> None:
    begin(store)
    assert abort_stale(store) == 0
    assert len(pending(store)) == 1
    assert abort_stale(store, older_than_seconds=-5) == 1
    assert pending(store) == []
    assert store.head_or_none(keys.upload(DIGEST)) is None


def test_a_part_damaged_on_its_way_is_sent_again(s3_server: S3Server, store: Objects) -> None:
    with faulty_s3(s3_server.endpoint) as proxy:
        shaky = Objects(s3_server.client(endpoint_url=proxy.endpoint, attempts=3), store.bucket)
        upload = begin(shaky)
        proxy.rules = [Rule("status", match="partNumber=2"), Rule("reset", match="partNumber=1")]
        for number, part in enumerate(PARTS, 1):
            upload.send(number, part)
        proxy.rules = [Rule("lost", method="POST", match="uploadId=")]
        upload.complete()
    assert store.get(keys.blob(DIGEST)).body == CONTENT


def test_very_large_files_get_larger_parts_not_more_than_s3_allows() -> None:
    assert uploads.part_size_for(1, PART) == PART
    assert -(-(1 << 40) // uploads.part_size_for(1 << 40, PART)) <= 10_000
