"""Multipart uploads of blobs that outlive their process: what S3 holds of one is not sent again.

`uploads/<digest>.json` names the upload; which parts it has, S3 itself lists. A part that S3 holds counts
only after its size and checksum were found to be those of the same bytes, read anew: nobody's word is taken.
Writers of one digest share its upload: their bytes are the same, and others fail the object's checksum.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trainyard.errors import CorruptArtifact, NotFound, PermanentError, StoreUnavailable
from trainyard.store import checksums, keys
from trainyard.store.checksums import Buffer, Checksum
from trainyard.store.documents import SCHEMA, decode, encode, take, timestamp
from trainyard.store.objects import AlreadyExists, Objects
from trainyard.store.s3errors import translate

# S3 takes 10,000 parts at most.
MAX_PARTS = 9_000
# Nobody goes on with an upload after so long: a fetch has six hours.
STALE_SECONDS = 24 * 3600.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A part as S3 holds it: size in bytes; etag without quotes; checksum in S3's base64, if it told one."""

    size: int
    etag: str
    checksum: str | None


def part_size_for(size: int, smallest: int) -> int:
    """Bytes a part, so that `size` bytes fit into the parts that S3 allows."""
    return max(smallest, -(-size // MAX_PARTS))


class Upload:
    """One blob on its way. Safe to use from several threads, each with parts of its own."""

    def __init__(
        self, objects: Objects, digest: str, upload: str, part_size: int, size: int, checksum: Checksum
    ) -> None:
        self.objects, self.digest, self.upload = objects, digest, upload
        self.part_size, self.size, self.checksum = part_size, size, checksum
        self.place = {"Bucket": objects.bucket, "Key": keys.blob(digest)}
        self.where = f"s3://{objects.bucket}/{keys.blob(digest)}"
        self.held: dict[int, Part] = {}
        self.is_gone = False
        self._good: dict[int, tuple[dict[str, Any], int, int]] = {}
        self._lock = threading.Lock()

    def send(self, number: int, content: bytes | bytearray) -> bool:
        """Bring a part there; False if S3 holds these very bytes already.

        Raises NotFound if the upload is gone: another writer finished it, or somebody aborted it.
        """
        value = self.checksum.of(content)
        text = self.checksum.text(value)
        held = self.held.get(number)
        if held is not None and _same(held, content, text):
            self._keep(number, held.etag, value, len(content))
            return False
        with translate(f"upload part {number} of", self.where):
            reply = self.objects.client.upload_part(
                **self.place,
                UploadId=self.upload,
                PartNumber=number,
                Body=content,
                **{self.checksum.field: text},
            )
        etag = reply["ETag"].strip('"')
        with self._lock:
            self.held[number] = Part(len(content), etag, text)
        self._keep(number, etag, value, len(content))
        return True

    def complete(self) -> None:
        """Make the blob visible; S3 compares its checksum with that of what was sent, in order.

        Raises CorruptArtifact if S3 holds other bytes (the upload is aborted).
        """
        ordered = [self._good[number] for number in sorted(self._good)]
        whole = self.checksum.join((value, size) for _, value, size in ordered)
        try:
            with translate("complete the upload of", self.where):
                self.objects.client.complete_multipart_upload(
                    **self.place,
                    UploadId=self.upload,
                    MultipartUpload={"Parts": [part for part, _, _ in ordered]},
                    ChecksumType="FULL_OBJECT",
                    MpuObjectSize=self.size,
                    **{self.checksum.field: self.checksum.text(whole)},
                )
        except NotFound:
            # The reply to our own first try was lost, or another writer of the same bytes was faster.
            found = self.objects.head_or_none(keys.blob(self.digest))
            if found is None or found.size != self.size:
                raise
        except (PermanentError, StoreUnavailable) as error:
            code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
            if code not in ("BadDigest", "InvalidPart", "InvalidPartOrder", "EntityTooSmall"):
                raise
            self.abort()
            raise CorruptArtifact(
                f"{self.where}: S3 holds other parts than were sent ({code}). The upload was thrown away; "
                "the next try begins anew."
            ) from error
        self._forget()

    def abort(self) -> None:
        """Throw away what was sent; gone already is fine."""
        self.is_gone = True
        _abort(self.objects, self.place["Key"], self.upload)
        self._forget()

    def restart(self) -> None:
        """Begin the parts anew: those that S3 holds are compared again, not trusted."""
        self._good.clear()

    def _keep(self, number: int, etag: str, value: int, size: int) -> None:
        entry = {"PartNumber": number, "ETag": etag, self.checksum.field: self.checksum.text(value)}
        with self._lock:
            self._good[number] = (entry, value, size)

    def _forget(self) -> None:
        with suppress(Exception):  # a record that stays behind names an upload that is gone: that is seen
            self.objects.delete(keys.upload(self.digest))


def open_upload(objects: Objects, digest: str, size: int, part_size: int) -> Upload:
    """The upload that is under way for this blob, or a new one."""
    found = _standing(objects, digest, size)
    if found is not None:
        return found
    checksum = checksums.best()
    fresh = _begin(objects, digest, part_size_for(size, part_size), size, checksum)
    body = encode(
        {
            "schema": SCHEMA,
            "digest": digest,
            "upload": fresh.upload,
            "part_size": fresh.part_size,
            "size": size,
            "checksum": checksum.name,
            "began": timestamp(time.time()),
        }
    )
    try:
        objects.put_new(keys.upload(digest), body)
    except AlreadyExists:
        # Another writer began at the same moment: join it.
        found = _standing(objects, digest, size)
        if found is not None:
            _abort(objects, fresh.place["Key"], fresh.upload)
            return found
        objects.put(keys.upload(digest), body)
    return fresh


def abort_stale(objects: Objects, older_than_seconds: float = STALE_SECONDS) -> int:
    """Throw away uploads of blobs that were begun so long ago; returns how many. Their parts cost money."""
    count = 0
    marker: dict[str, str] = {}
    limit = time.time() - older_than_seconds
    while True:
        with translate("list uploads of", f"s3://{objects.bucket}/{keys.BLOBS}"):
            page = objects.client.list_multipart_uploads(Bucket=objects.bucket, Prefix=keys.BLOBS, **marker)
        for item in page.get("Uploads", []):
            if item["Initiated"].timestamp() < limit:
                _abort(objects, item["Key"], item["UploadId"])
                _forget_record(objects, item["Key"].rpartition("/")[2], item["UploadId"])
                count += 1
        if not page.get("IsTruncated"):
            return count
        marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _standing(objects: Objects, digest: str, size: int) -> Upload | None:
    """The recorded upload with the parts that S3 lists; None if there is none that can be gone on with."""
    key = keys.upload(digest)
    stored = objects.get_or_none(key)
    if stored is None:
        return None
    try:
        document = decode(stored.body, key)
        checksum = checksums.known().get(take(document, "checksum", str, key))
        upload = take(document, "upload", str, key)
        part_size = take(document, "part_size", int, key)
        if checksum is None or take(document, "size", int, key) != size or not 0 < part_size <= 5 << 30:
            raise CorruptArtifact(f"{key} is of another upload.")
        found = Upload(objects, digest, upload, part_size, size, checksum)
        found.held = _listed(found)
    except (CorruptArtifact, NotFound) as error:
        log.info("%s cannot be gone on with: %s", key, error)
        objects.delete(key)
        return None
    return found


def _listed(upload: Upload) -> dict[int, Part]:
    held: dict[int, Part] = {}
    marker: dict[str, Any] = {}
    while True:
        with translate("list the parts of", upload.where):
            page = upload.objects.client.list_parts(**upload.place, UploadId=upload.upload, **marker)
        for item in page.get("Parts", []):
            held[item["PartNumber"]] = Part(
                item["Size"], item["ETag"].strip('"'), item.get(upload.checksum.field)
            )
        if not page.get("IsTruncated"):
            return held
        marker = {"PartNumberMarker": page["NextPartNumberMarker"]}


def _begin(objects: Objects, digest: str, part_size: int, size: int, checksum: Checksum) -> Upload:
    key = keys.blob(digest)
    with translate("begin an upload to", f"s3://{objects.bucket}/{key}"):
        reply = objects.client.create_multipart_upload(
            Bucket=objects.bucket,
            Key=key,
            ChecksumAlgorithm=checksum.name,
            ChecksumType="FULL_OBJECT",
        )
    return Upload(objects, digest, reply["UploadId"], part_size, size, checksum)


def _same(held: Part, content: Buffer, checksum: str) -> bool:
    if held.size != len(content):
        return False
    if held.checksum is not None:
        return held.checksum == checksum
    # A server that lists no checksums (SeaweedFS): the ETag of a part is its MD5.
    return held.etag == hashlib.md5(content, usedforsecurity=False).hexdigest()


def _abort(objects: Objects, key: str, upload: str) -> None:
    with suppress(Exception):  # what made us abort tells more; what stays is stale some day
        objects.client.abort_multipart_upload(Bucket=objects.bucket, Key=key, UploadId=upload)


def _forget_record(objects: Objects, digest: str, upload: str) -> None:
    with suppress(Exception):
        key = keys.upload(digest)
        stored = objects.get_or_none(key)
        if stored is not None and decode(stored.body, key).get("upload") == upload:
            objects.delete(key)
