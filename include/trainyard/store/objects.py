"""The one seam to S3: small objects, compare-and-swap, listing, copying; errors become Trainyard's own.

Lost replies: S3 may have done what a broken connection did not report. botocore then repeats the request, and
a conditional write meets its own first try. So a 412 after a repeat is settled by comparing what is there
with what was to be written.
"""

from __future__ import annotations

import os
import random
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from trainyard.errors import Conflict, CorruptArtifact, NotFound, StoreUnavailable
from trainyard.store.s3errors import ConditionalBusy, translate

T = TypeVar("T")
ATTEMPTS = 5
# CopyObject refuses more than 5 GiB; larger ones are copied by parts of this size.
COPY_PART = 1 << 30
COPY_LIMIT = 5 << 30
# Read at once: stays in a core's cache until it is written.
BLOCK = 256 << 10


class AlreadyExists(Conflict):
    """A write that was to create an object found one there."""


@dataclass(frozen=True)
class Stored:
    """An object's content with the ETag that a replacement has to name."""

    body: bytes
    etag: str


@dataclass(frozen=True)
class ObjectInfo:
    """key; size in bytes; etag; modified: Unix seconds by S3's clock."""

    key: str
    size: int
    etag: str
    modified: float


def client_config(
    endpoint_url: str | None = None,
    *,
    attempts: int = 6,
    connections: int = 32,
    connect_seconds: float = 5.0,
    read_seconds: float = 60.0,
) -> Any:
    """The botocore Config that suits AWS and SeaweedFS, for clients that others make (Airflow's hook)."""
    from botocore.config import Config

    return Config(
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # Path style works on AWS, and on servers whose host name takes no bucket in front (all local ones).
        # Over HTTPS botocore leaves bodies unsigned by itself, the checksum's header being signed; over HTTP
        # it would hash each once more, which took half of an upload's processor time.
        s3={
            "addressing_style": "path" if _custom(endpoint_url) else "auto",
            "payload_signing_enabled": False,
        },
        # CRC32 beside each upload: S3 refuses a part that was damaged on its way. Both servers know it.
        request_checksum_calculation="when_supported",
        # Reads are checked against SHA-256 digests by us; a second checksum would only cost CPU.
        response_checksum_validation="when_required",
        user_agent_extra="trainyard",
    )


def client(
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    session_token: str | None = None,
    attempts: int = 6,
    connections: int = 32,
    connect_seconds: float = 5.0,
    read_seconds: float = 60.0,
) -> Any:
    """A botocore S3 client for AWS and for SeaweedFS.

    What is not given comes from the environment, a profile or the pod's role, as everywhere with boto3.
    `attempts` counts the first try; `connections` bounds the threads that may share the client.
    """
    # boto3 itself would add s3transfer, which nobody here uses, and a quarter to the start of every job.
    from botocore.session import Session

    # A session of our own: creating clients from a shared one is not thread-safe.
    session = Session()
    # Without any region botocore cannot sign; SeaweedFS takes any.
    return session.create_client(
        "s3",
        region_name=region or session.get_config_variable("region") or "us-east-1",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        aws_session_token=session_token,
        config=client_config(
            endpoint_url,
            attempts=attempts,
            connections=connections,
            connect_seconds=connect_seconds,
            read_seconds=read_seconds,
        ),
    )


def _custom(endpoint_url: str | None) -> bool:
    named = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return bool(named) and "amazonaws.com" not in str(named)


@dataclass(frozen=True)
class Attested:
    """What S3 itself says of an object: size in bytes; etag; sha256 in hex of the whole object, if the
    object was sent with one that S3 checked (none of objects sent in parts)."""

    size: int
    etag: str
    sha256: str | None


class Objects:
    """One bucket. Safe to use from several threads."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.client, self.bucket = client, bucket

    def get(self, key: str) -> Stored:
        """Raises NotFound, StoreUnavailable."""

        def read() -> Stored:
            reply = self.client.get_object(Bucket=self.bucket, Key=key)
            with reply["Body"] as body:
                return Stored(body.read(), reply["ETag"])

        return self.repeated("read", key, read)

    def get_or_none(self, key: str) -> Stored | None:
        try:
            return self.get(key)
        except NotFound:
            return None

    def get_range(self, key: str, start: int, length: int, etag: str | None = None) -> bytes:
        """`length` bytes from `start`.

        Raises CorruptArtifact if the object is too short; with `etag`, Conflict if it is another one by now.
        """
        condition = {"IfMatch": etag} if etag else {}

        def read() -> bytes:
            reply = self.client.get_object(
                Bucket=self.bucket, Key=key, Range=f"bytes={start}-{start + length - 1}", **condition
            )
            with reply["Body"] as body:
                data: bytes = body.read()
            if len(data) != length:
                raise CorruptArtifact(
                    f"{self._where(key)} has no {length} bytes at {start}: it is shorter than it should be."
                )
            return data

        return self.repeated("read", key, read) if length else b""

    def stream_range(self, key: str, start: int, length: int, sink: Callable[[int, bytes], None]) -> None:
        """Give `length` bytes from `start` to `sink` as they arrive, with the position of each piece in the
        object. Where a broken read is repeated, it begins anew at `start`.

        Raises CorruptArtifact if the object is too short, and what `sink` raises.
        """

        def read() -> None:
            reply = self.client.get_object(
                Bucket=self.bucket, Key=key, Range=f"bytes={start}-{start + length - 1}"
            )
            at, end = start, start + length
            with reply["Body"] as body:
                while at < end and (block := body.read(min(BLOCK, end - at))):
                    sink(at, block)
                    at += len(block)
            if at != end:
                raise CorruptArtifact(
                    f"{self._where(key)} has no {length} bytes at {start}: it is shorter than it should be."
                )

        if length:
            self.repeated("read", key, read)

    @contextmanager
    def open(self, key: str) -> Iterator[Any]:
        """The object's content as a stream with `read(n)`; what breaks while reading it is the caller's to
        repeat."""
        with translate("read", self._where(key)):
            body = self.client.get_object(Bucket=self.bucket, Key=key)["Body"]
            with body:
                yield body

    def head(self, key: str) -> ObjectInfo:
        """Raises NotFound."""
        with translate("look up", self._where(key)):
            reply = self.client.head_object(Bucket=self.bucket, Key=key)
        return ObjectInfo(key, reply["ContentLength"], reply["ETag"], reply["LastModified"].timestamp())

    def head_or_none(self, key: str) -> ObjectInfo | None:
        try:
            return self.head(key)
        except NotFound:
            return None

    def attested(self, key: str) -> Attested:
        """What S3 knows of the object without our reading it. Raises NotFound."""
        with translate("look up", self._where(key)):
            reply = self.client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
        return Attested(reply["ContentLength"], reply["ETag"], _digest_in(reply))

    def put_checked(self, key: str, body: bytes, sha256: str) -> str:
        """Write, letting S3 refuse what differs from `sha256` (hex) and remember it; returns the ETag."""
        return self._write(key, body, {"ChecksumSHA256": b64encode(bytes.fromhex(sha256)).decode()})

    def put(self, key: str, body: bytes) -> str:
        """Write whatever is there already; returns the ETag."""
        return self._write(key, body, {})

    def put_new(self, key: str, body: bytes) -> str:
        """Create; returns the ETag. Raises AlreadyExists."""
        try:
            return self._write(key, body, {"IfNoneMatch": "*"})
        except Conflict as error:
            raise AlreadyExists(f"{self._where(key)} exists already.") from error

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write over the version `etag`; returns the new ETag. Raises Conflict if it is another version by
        now."""
        try:
            return self._write(key, body, {"IfMatch": etag})
        except NotFound as error:  # S3 says 404, SeaweedFS 412
            raise Conflict(f"{self._where(key)} was deleted meanwhile.") from error

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Everything below `prefix`, in key order."""
        where = self._where(prefix)
        token: dict[str, str] = {}
        while True:
            with translate("list", where):
                page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **token)
            for item in page.get("Contents", []):
                yield ObjectInfo(item["Key"], item["Size"], item["ETag"], item["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Delete; nothing there is fine."""
        with translate("delete", self._where(key)):
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def delete_version(self, key: str, etag: str) -> None:
        """Delete what is there if it is still the version `etag`. Raises Conflict; nothing there is fine."""
        with suppress(NotFound), translate("delete", self._where(key)):
            self.client.delete_object(Bucket=self.bucket, Key=key, IfMatch=etag)

    def copy(self, source: str, target: str, etag: str | None = None) -> str | None:
        """Copy inside S3; returns the SHA-256 (hex) that S3 computed of the copy, where it does.

        With `etag`, raises Conflict if the source is another version by now.
        """
        condition = {"CopySourceIfMatch": etag} if etag else {}
        origin = {"Bucket": self.bucket, "Key": source}
        size = self.head(source).size
        if size > COPY_LIMIT:
            self._copy_by_parts(origin, target, size, condition)
            return None
        # AWS reads the source anyway, and then knows the digest of the whole; SeaweedFS takes no notice.
        with translate("copy", self._where(source)):
            reply = self.client.copy_object(
                Bucket=self.bucket, Key=target, CopySource=origin, ChecksumAlgorithm="SHA256", **condition
            )
        return _digest_in(reply.get("CopyObjectResult", {}))

    def _copy_by_parts(
        self, origin: dict[str, str], target: str, size: int, condition: dict[str, str]
    ) -> None:
        place = {"Bucket": self.bucket, "Key": target}
        with translate("copy", self._where(origin["Key"])):
            upload = self.client.create_multipart_upload(**place)["UploadId"]
            try:
                parts = []
                for number, start in enumerate(range(0, size, COPY_PART), 1):
                    end = min(start + COPY_PART, size) - 1
                    reply = self.client.upload_part_copy(
                        **place,
                        UploadId=upload,
                        PartNumber=number,
                        CopySource=origin,
                        CopySourceRange=f"bytes={start}-{end}",
                        **condition,
                    )
                    parts.append({"PartNumber": number, "ETag": reply["CopyPartResult"]["ETag"]})
                self.client.complete_multipart_upload(
                    **place, UploadId=upload, MultipartUpload={"Parts": parts}
                )
            except BaseException:
                self.client.abort_multipart_upload(**place, UploadId=upload)
                raise

    def _write(self, key: str, body: bytes, condition: dict[str, str]) -> str:
        def write() -> str:
            reply = self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **condition)
            return str(reply["ETag"])

        try:
            return self.repeated("write", key, write)
        except Conflict as error:
            if getattr(error, "repeated", False):
                there = self.get_or_none(key)
                if there is not None and there.body == body:
                    return there.etag
            raise

    def repeated(self, verb: str, key: str, call: Callable[[], T]) -> T:
        """Run `call`, again after what passes by itself. botocore has repeated single requests by then.

        A Conflict that is raised after a repeat carries `repeated = True`: it may be our own first try.
        """
        for attempt in range(ATTEMPTS):
            try:
                with translate(verb, self._where(key)):
                    return call()
            except (StoreUnavailable, ConditionalBusy) as error:
                # A request that botocore gave up on is not begun anew: its own attempts are the bound.
                if attempt == ATTEMPTS - 1 or getattr(error, "exhausted", False):
                    raise
                time.sleep(random.uniform(0.02, 0.05) * 2**attempt)
            except Conflict as error:
                if attempt:
                    error.repeated = True  # type: ignore[attr-defined]
                raise
        raise AssertionError("unreachable")

    def _where(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"


def _digest_in(reply: Mapping[str, Any]) -> str | None:
    """The SHA-256 of a whole object, in hex. That of a multipart upload (`…-3`) is made of its parts'."""
    told = str(reply.get("ChecksumSHA256") or "")
    if not told or "-" in told or reply.get("ChecksumType") == "COMPOSITE":
        return None
    return b64decode(told).hex()
