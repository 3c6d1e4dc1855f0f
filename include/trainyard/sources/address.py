"""`hf://org/name@revision`, `s3://bucket/prefix`, `file:///folder`: parsed and checked, nothing opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from trainyard.errors import Problem, Refused
from trainyard.store.keys import check_path, check_repo

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


@dataclass(frozen=True)
class Address:
    """place: `org/name`, `bucket/prefix` or a path; revision: branch, tag or commit of a Hub's repository."""

    kind: Literal["hf", "s3", "file"]
    place: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}://{self.place}" + (f"@{self.revision}" if self.revision else "")


def parse(text: object, field: str = "source") -> Address:
    """field: what a refusal names. Raises Refused."""
    try:
        return _parsed(text)
    except Refused as error:
        if field == "source":
            raise
        raise Refused([replace(problem, field=field) for problem in error.problems]) from None


def _parsed(text: object) -> Address:
    kind, separator, rest = str(text).partition("://")
    if not isinstance(text, str) or not separator or kind not in ("hf", "s3", "file"):
        raise _refused(text, "a source is hf://org/name@revision, s3://bucket/prefix or file:///folder")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in rest):
        raise _refused(text, "a source has no control characters")
    if kind == "hf":
        repo, at, revision = rest.partition("@")
        if at and (not _REVISION.fullmatch(revision) or ".." in revision):
            raise _refused(text, f"{revision!r} is no branch, tag or commit")
        return Address("hf", check_repo("source", repo), revision or None)
    if kind == "s3":
        bucket, _, prefix = rest.partition("/")
        if not _BUCKET.fullmatch(bucket) or ".." in bucket:
            raise _refused(text, f"{bucket!r} is no name of a bucket")
        if not prefix.strip("/"):
            raise _refused(text, "a whole bucket is no model: name the prefix")
        return Address("s3", f"{bucket}/{check_path('source', prefix.strip('/'))}")
    if not rest.startswith("/"):
        raise _refused(text, "the folder is not absolute")
    if ".." in rest.split("/"):
        raise _refused(text, "the folder has '..' in it")
    return Address("file", rest.rstrip("/") or "/")


def _refused(value: object, rule: str) -> Refused:
    return Refused(Problem("source", value, rule, "Write it like hf://meta-llama/Llama-3.1-8B@main"))
