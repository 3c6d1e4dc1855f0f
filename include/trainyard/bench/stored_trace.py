"""Traces that lie in S3."""

from __future__ import annotations

from trainyard.bench.trace import MAX_BYTES, Trace, parse_trace, place_of
from trainyard.errors import NotFound, Problem, Refused
from trainyard.store.objects import Objects


def fetch_trace(objects: Objects, name: str) -> bytes:
    """The bytes of `s3://bucket/key`, or of a key in our own bucket.

    Raises Refused where there is none, PermanentError where it may not be read, StoreUnavailable.
    """
    bucket, key = place_of(name, objects.bucket)
    place = objects if bucket == objects.bucket else Objects(objects.client, bucket)
    remedy = f"Put it at s3://{bucket}/{key}, or correct rollout.load.workload.trace"
    try:
        size = place.head(key).size
        if size > MAX_BYTES:
            rule = f"is larger than {MAX_BYTES >> 20} MiB"
            raise Refused(Problem("trace", name, rule, "Take a part of it"))
        return place.get(key).body
    except NotFound:
        raise Refused(Problem("trace", name, "is not there", remedy)) from None


def stored_trace(objects: Objects, name: str) -> Trace:
    """Raises Refused, StoreUnavailable."""
    return parse_trace(fetch_trace(objects, name), name)
