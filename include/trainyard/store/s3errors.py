"""What botocore raises, told in Trainyard's words. Nothing here imports botocore before it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainyard.errors import (
    Conflict,
    CorruptArtifact,
    NotFound,
    PermanentError,
    StoreUnavailable,
    TrainyardError,
)

_DENIED = {
    "AccessDenied": "Allow the action for this role or key in the bucket's policy",
    "InvalidAccessKeyId": "Check the access key of the connection `aws_default`, or of the pod's role",
    "SignatureDoesNotMatch": "Check the secret key of the connection `aws_default`, or of the pod's role",
    "ExpiredToken": "Renew the session token, or use a role (IRSA, Pod Identity) that renews itself",
    "RequestTimeTooSkewed": "Set this machine's clock: it differs from S3's by more than 15 minutes",
}


class ConditionalBusy(StoreUnavailable):
    """409 ConditionalRequestConflict: S3 was settling another conditional write; the same request may be
    repeated."""


@contextmanager
def translate(verb: str, where: str) -> Iterator[None]:
    """Raise what the block raises as one of NotFound, Conflict, PermanentError, StoreUnavailable.

    Errors that mean "botocore tried all its attempts" get `exhausted = True`; a Conflict that came after a
    repeat of botocore's own gets `repeated = True`.
    """
    try:
        yield
    except TrainyardError:
        raise
    except Exception as error:
        translated = _translated(error, verb, where)
        if translated is None:
            raise
        raise translated from error


def _translated(error: Exception, verb: str, where: str) -> TrainyardError | None:
    import botocore.exceptions as boto
    import urllib3.exceptions

    if isinstance(error, boto.ClientError):
        return _from_reply(error.response, verb, where)
    if isinstance(
        error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)
    ):
        return PermanentError(
            f"Cannot {verb} {where}: {error}. Give credentials by the connection `aws_default`, by "
            "AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, or by the pod's role."
        )
    if isinstance(error, (boto.FlexibleChecksumError, boto.IncompleteReadError, boto.ResponseStreamingError)):
        return StoreUnavailable(f"Cannot {verb} {where}: the reply was cut or damaged ({error}).")
    if isinstance(error, (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)):
        return StoreUnavailable(f"Cannot {verb} {where}: the connection broke ({error}).")
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError)):
        # A body that stops in mid-read raises ReadTimeoutError past botocore's own repeats: worth one of
        # ours.
        unavailable = StoreUnavailable(f"Cannot {verb} {where}: S3 does not answer ({error}).")
        unavailable.exhausted = not isinstance(error, boto.ReadTimeoutError)  # type: ignore[attr-defined]
        return unavailable
    return None


def _from_reply(response: dict[str, Any], verb: str, where: str) -> TrainyardError:
    details, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, message = str(details.get("Code", "")), str(details.get("Message", ""))
    status, repeats = int(metadata.get("HTTPStatusCode", 0)), int(metadata.get("RetryAttempts", 0))
    said = f"S3 said {status} {code}: {message}"
    if code == "NoSuchBucket":
        return PermanentError(
            f"Cannot {verb} {where}: the bucket does not exist. Create it or set TRAINYARD_BUCKET."
        )
    if code == "ConditionalRequestConflict":
        return ConditionalBusy(f"Cannot {verb} {where}: {said}")
    if status == 412 or code == "PreconditionFailed":
        conflict = Conflict(f"Cannot {verb} {where}: somebody else changed it first.")
        conflict.repeated = repeats > 0  # type: ignore[attr-defined]
        return conflict
    if status == 404 or code in ("NoSuchKey", "NoSuchUpload"):
        return NotFound(f"Cannot {verb} {where}: there is nothing there.")
    if status == 416:
        return CorruptArtifact(f"Cannot {verb} {where}: it is shorter than it should be.")
    if code in (
        "BadDigest",
        "RequestTimeout",
        "IncompleteBody",
        "XAmzContentSHA256Mismatch",
        "OperationAborted",
    ):
        return StoreUnavailable(f"Cannot {verb} {where}: the request was damaged on its way ({said})")
    if status in (401, 403) or code in _DENIED:
        remedy = _DENIED.get(code, "Check the credentials and the bucket's policy")
        return PermanentError(f"Cannot {verb} {where}: {said}. {remedy}.")
    if (
        status >= 500
        or status == 429
        or code in ("SlowDown", "Throttling", "ThrottlingException", "InternalError")
    ):
        unavailable = StoreUnavailable(f"Cannot {verb} {where}: {said} (after {repeats + 1} tries)")
        unavailable.exhausted = True  # type: ignore[attr-defined]
        return unavailable
    return PermanentError(f"Cannot {verb} {where}: {said}. Check the bucket's region, endpoint and settings.")
