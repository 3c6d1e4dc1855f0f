"""A prefix in S3, in any bucket that the pod's role may read: hashed here, copied by S3."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from trainyard.errors import Conflict, CorruptArtifact, NotFound, PermanentError
from trainyard.hub_headers import Header
from trainyard.hub_policy import MAX_FILES, HubFile, select
from trainyard.sources.base import MAX_JSON, Reader, listing_digest, parse_json, read_header
from trainyard.store import keys
from trainyard.store.objects import COPY_LIMIT, COPY_PART, Objects
from trainyard.store.s3errors import translate

CHUNK = 8 << 20
log = logging.getLogger(__name__)


class BucketSource:
    """place: `bucket/prefix`. A revision is a digest of paths, sizes and ETags; reads insist on these."""

    def __init__(self, objects: Objects, place: str) -> None:
        bucket, _, prefix = place.partition("/")
        self.objects, self.prefix = Objects(objects.client, bucket), prefix.rstrip("/") + "/"
        self.label = f"s3://{place}"
        self._etags: dict[str, str] = {}

    def pin(self) -> str:
        return listing_digest(select(self._list()).take)

    def files(self, revision: str) -> list[HubFile]:
        listed = self._list()
        if (found := listing_digest(select(listed).take)) != revision:
            raise Conflict(
                f"{self.label} has revision {found}, not {revision}: its objects changed since it was "
                "pinned. Begin a release of what is there now."
            )
        return listed

    def read_json(self, revision: str, path: str) -> dict[str, Any]:
        where = f"{self.label}/{path}"
        size = self.objects.head(self.prefix + path).size
        if size > MAX_JSON:
            raise CorruptArtifact(
                f"{where} is larger than {MAX_JSON} bytes, which is absurd for such a file."
            )
        return parse_json(self._range(path, 0, size), where)

    def headers(self, revision: str, files: Iterable[HubFile]) -> Mapping[str, Header]:
        return {
            file.path: read_header(
                lambda start, length, path=file.path: self._range(path, start, length),  # type: ignore[misc]
                file,
                f"{self.label}/{file.path}",
            )
            for file in files
            if file.path.endswith(".safetensors")
        }

    def identify(self, revision: str, file: HubFile) -> HubFile:
        """S3 keeps no SHA-256 of an object of several parts: it is read once for it. Where an object was sent
        with one that S3 checked, that is believed, as for what a compile pod sent."""
        told = self.objects.attested(self.prefix + file.path)
        if told.sha256 and told.etag == self._etags.get(file.path):
            return replace(file, lfs_sha256=told.sha256)
        seen = hashlib.sha256()
        for start in range(0, file.size, CHUNK):
            seen.update(self._range(file.path, start, min(CHUNK, file.size - start)))
        return replace(file, lfs_sha256=seen.hexdigest())

    def reader(self, revision: str, file: HubFile) -> Reader:
        return _RangeReader(self, file.path)

    def stream(self, revision: str, file: HubFile) -> Iterator[bytes]:
        for start in range(0, file.size, CHUNK):
            yield self._range(file.path, start, min(CHUNK, file.size - start))

    def copy(self, objects: Objects, file: HubFile) -> bool:
        """Exactly the version that was hashed: its ETag is the proof. Not where S3 refuses to copy across."""
        client, target = objects.client, keys.blob(str(file.lfs_sha256))
        origin = {"Bucket": self.objects.bucket, "Key": self.prefix + file.path}
        where, etag = f"{self.label}/{file.path}", self._etags[file.path]
        place = {"Bucket": objects.bucket, "Key": target}
        try:
            with translate("copy", where):
                if file.size <= COPY_LIMIT:
                    client.copy_object(**place, CopySource=origin, CopySourceIfMatch=etag)
                else:
                    _copy_by_parts(client, place, origin, etag, file.size)
        except Conflict as error:
            raise PermanentError(
                f"{where} was replaced while it was fetched. Begin a new release."
            ) from error
        except PermanentError as error:
            log.info("%s is sent through here: %s", where, error)
            return False
        return True

    def _list(self) -> list[HubFile]:
        found = []
        for info in self.objects.list(self.prefix):
            path = info.key.removeprefix(self.prefix)
            if path.endswith("/") and not info.size:
                continue  # a folder, as consoles make them
            self._etags[path] = info.etag
            found.append(HubFile(path, info.size, None, info.etag.strip('"')))
            if len(found) > MAX_FILES:
                raise PermanentError(f"{self.label} has more than {MAX_FILES} objects: that is no model.")
        if not found:
            raise NotFound(f"{self.label} holds nothing. Check bucket and prefix.")
        return sorted(found)

    def _range(self, path: str, start: int, length: int) -> bytes:
        try:
            return self.objects.get_range(self.prefix + path, start, length, self._etags.get(path))
        except Conflict as error:
            raise Conflict(
                f"{self.label}/{path} was replaced while it was fetched. Begin a new release."
            ) from error


class _RangeReader:
    def __init__(self, source: BucketSource, path: str) -> None:
        self.source, self.path = source, path

    def read_into(self, start: int, view: memoryview, check_stop: Callable[[], None]) -> None:
        for begin in range(0, len(view), CHUNK):
            check_stop()
            length = min(CHUNK, len(view) - begin)
            view[begin : begin + length] = self.source._range(self.path, start + begin, length)


def _copy_by_parts(client: Any, place: dict[str, str], origin: dict[str, str], etag: str, size: int) -> None:
    upload = client.create_multipart_upload(**place)["UploadId"]
    try:
        parts = []
        for number, start in enumerate(range(0, size, COPY_PART), 1):
            reply = client.upload_part_copy(
                **place,
                UploadId=upload,
                PartNumber=number,
                CopySource=origin,
                CopySourceRange=f"bytes={start}-{min(start + COPY_PART, size) - 1}",
                CopySourceIfMatch=etag,
            )
            parts.append({"PartNumber": number, "ETag": reply["CopyPartResult"]["ETag"]})
        client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})
    except BaseException:
        client.abort_multipart_upload(**place, UploadId=upload)
        raise
