"""What is not in the cluster: the bucket, and the Hub."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator

from trainyard.doctor.findings import Finding, Part
from trainyard.errors import Conflict, PermanentError, TransientError
from trainyard.hub import Hub
from trainyard.spec import Spec
from trainyard.store.objects import Objects

_BUCKET, _HUB = Part("bucket"), Part("hub")
_UNSAFE = "Leases and channels need it: use Amazon S3, or a store that honours conditional writes."


def bucket(objects: Objects) -> Iterator[Finding]:
    """A real conditional write below doctor/, and its deletion."""
    about, key = f"s3://{objects.bucket}", f"doctor/{secrets.token_hex(8)}"
    try:
        first = objects.put_new(key, b"first")
    except (PermanentError, TransientError) as error:
        yield _BUCKET.failed(
            about,
            f"nothing can be written: {error}",
            "Check TRAINYARD_BUCKET, the region and Airflow's IAM role.",
        )
        return
    try:
        yield from _conditions(objects, about, key, first)
        found = [each.key for each in objects.list("doctor/")]
        if key not in found:
            yield _BUCKET.failed(about, "an object that was just written is not listed", _UNSAFE)
    except (PermanentError, TransientError) as error:
        yield _BUCKET.failed(
            about,
            f"it takes objects, but: {error}",
            "Let Airflow's role list the bucket, read, write and delete.",
        )
    finally:
        try:
            objects.delete(key)
        except (PermanentError, TransientError) as error:
            yield _BUCKET.failed(
                about, f"{key} cannot be deleted: {error}", "Let Airflow's role delete objects."
            )


def _conditions(objects: Objects, about: str, key: str, first: str) -> Iterator[Finding]:
    bad = []
    try:
        objects.put_new(key, b"second")
        bad.append("a second creation (If-None-Match) was not refused")
    except Conflict:
        pass
    try:
        now = objects.get(key)
        objects.replace(key, b"third", now.etag)
    except Conflict:
        bad.append("a replacement of the version that is there (If-Match) was refused")
    try:
        objects.replace(key, b"fourth", first)
        bad.append("a replacement of a version that is gone (If-Match) was not refused")
    except Conflict:
        pass
    if bad:
        yield _BUCKET.failed(about, "; ".join(bad), _UNSAFE)
    else:
        yield _BUCKET.ok(about, "writes, reads, lists, deletes, and honours If-None-Match and If-Match")


def hub(found: Hub, specs: Iterable[Spec]) -> Iterator[Finding]:
    """Asks for the catalogue's models until one is there."""
    refusals = []
    for spec in specs:
        if spec.model.source is not None:
            continue
        model = f"{spec.model.repo}@{spec.model.revision}"
        try:
            commit = found.resolve(spec.model.repo, spec.model.revision)
        except TransientError as error:
            yield _HUB.failed(
                found.endpoint,
                f"it does not answer: {error}",
                "Check TRAINYARD_HUB_ENDPOINT, DNS and the way out.",
            )
            return
        except PermanentError as error:  # moved, gated, or not there
            refusals.append(f"{model}: {error}")
        else:
            yield _HUB.ok(found.endpoint, f"it answers: {model} is {commit[:7]}")
            return
    if refusals:
        says = f"it answers, and gives none of the catalogue's models; {refusals[0]}"
        yield _HUB.warning(found.endpoint, says, "Check the entries' model.repo and revision, and the token.")
    else:
        yield _HUB.unknown(found.endpoint, "the catalogue has no entry of a model from the Hub", "Write one.")
