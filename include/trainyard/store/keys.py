"""Where things are in the bucket. Every id that becomes part of a key is checked here, and nowhere else.

blobs/sha256/<2>/<digest>                      content, written once
models/<org>--<name>/<revision>/manifest.json  what a revision consists of
bundles/<fingerprint>/manifest.json            what a compilation produced
bundles/<fingerprint>/damaged.json             the manifest whose files were found damaged
quarantine/…                                   damaged blobs and condemned manifests, for people to look at
staging/<fingerprint>/<attempt>/…              what a compile job brought, not yet trusted
uploads/<digest>.json                          a blob's multipart upload that is under way
progress/<release>.json                        how far a release's fetch is
logs/…                                         full logs of jobs
compile-cache/…                                graphs of the compiler, by configuration; may be lost
history/compiles/<engine>-<target>.json        how long compiles took; may be lost
releases/<model>/<release>.json                the ledger
channels/<model>.json                          stable now, and before
leases/<model>.json                            who may change a model now
publishing/…, sweep/…                          what publishers rely on, and what a sweep is about to take
bedrock/<model>.json                           the last look at the Bedrock model that it is to equal
"""

from __future__ import annotations

import re

from trainyard.errors import Problem, Refused

_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_REPO_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_PATH = 512


def check_id(field: str, value: object) -> str:
    """Return `value` if it may be part of a key. Raises Refused."""
    if not isinstance(value, str) or not _ID.fullmatch(value) or ".." in value:
        raise Refused(
            Problem(
                field,
                value,
                "an id is 1 to 63 of a-z, 0-9, '-' and '.', begins with a letter or digit, and has no '..'",
                "Rename it, for example to `llama-4-scout`",
            )
        )
    return value


def check_digest(field: str, value: object) -> str:
    """Return `value` if it is a SHA-256 in lower-case hex. Raises Refused."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise Refused(
            Problem(field, value, "not a SHA-256 in lower-case hex (64 digits)", "Publish it again")
        )
    return value


def check_commit(field: str, value: object) -> str:
    """Return `value` if it is a full git commit id. Raises Refused."""
    if not isinstance(value, str) or not _COMMIT.fullmatch(value):
        raise Refused(
            Problem(
                field,
                value,
                "not a full commit SHA (40 hex digits); branches and tags move",
                "Pin the revision first: Hub.resolve(repo, revision)",
            )
        )
    return value


def check_repo(field: str, value: object) -> str:
    """Return `value` if it is a Hub repository `org/name`. Raises Refused."""
    parts = value.split("/") if isinstance(value, str) else []
    good = len(parts) == 2 and all(
        _REPO_PART.fullmatch(part) and ".." not in part and "--" not in part for part in parts
    )
    if not good:
        raise Refused(
            Problem(
                field,
                value,
                "a repository is `org/name` of letters, digits, '.', '_' and '-', without '..' or '--'",
                "Write it as the Hub shows it, for example `meta-llama/Llama-3.1-8B`",
            )
        )
    return str(value)


def check_path(field: str, value: object) -> str:
    """Return `value` if it is a plain relative path below some folder. Raises Refused."""
    reason = _path_problem(value)
    if reason:
        raise Refused(Problem(field, value, reason, "Use a source without that file"))
    return str(value)


def _path_problem(value: object) -> str:
    if not isinstance(value, str) or not value:
        return "a path is a non-empty text"
    if len(value.encode("utf-8", "surrogatepass")) > _MAX_PATH:
        return f"a path has at most {_MAX_PATH} bytes"
    if any(ord(char) < 32 or 127 <= ord(char) < 160 or 0xD800 <= ord(char) < 0xE000 for char in value):
        return "a path has no control characters"
    if "\\" in value:
        return "a path has no backslash"
    if value.startswith("/") or re.match(r"[A-Za-z]:", value):
        return "a path is relative"
    if any(part in ("", ".", "..") for part in value.split("/")):
        return "a path stays below its folder: no empty, '.' or '..' parts"
    return ""


BLOBS = "blobs/sha256/"


def blob(digest: str) -> str:
    check_digest("digest", digest)
    return f"{BLOBS}{digest[:2]}/{digest}"


def upload(digest: str) -> str:
    return f"uploads/{check_digest('digest', digest)}.json"


def progress(release_id: str) -> str:
    return f"progress/{check_id('release', release_id)}.json"


def model_manifest(repo: str, revision: str) -> str:
    org, name = check_repo("repo", repo).split("/")
    return f"models/{org}--{name}/{check_commit('revision', revision)}/manifest.json"


def bundle_manifest(fingerprint: str) -> str:
    return f"bundles/{check_id('fingerprint', fingerprint)}/manifest.json"


def bundle_damage(fingerprint: str) -> str:
    return f"bundles/{check_id('fingerprint', fingerprint)}/damaged.json"


def quarantined_blob(digest: str, etag: str) -> str:
    """etag: of the damaged version; a blob may be damaged more than once."""
    version = re.sub(r"[^0-9A-Za-z-]", "", etag)[:64]
    return f"quarantine/sha256/{check_digest('digest', digest)}-{version}"


def quarantined_manifest(fingerprint: str, digest: str) -> str:
    """digest: of the manifest's bytes."""
    return f"quarantine/bundles/{check_id('fingerprint', fingerprint)}/{check_digest('digest', digest)}.json"


def staging(fingerprint: str, attempt: str) -> str:
    """Prefix (with a slash at its end) below which one compile attempt leaves its output."""
    return f"staging/{check_id('fingerprint', fingerprint)}/{check_id('attempt', attempt)}/"


def release(model: str, release_id: str) -> str:
    return f"releases/{check_id('model', model)}/{check_id('release', release_id)}.json"


def releases(model: str) -> str:
    return f"releases/{check_id('model', model)}/"


def channel(model: str) -> str:
    return f"channels/{check_id('model', model)}.json"


def lease(model: str) -> str:
    return f"leases/{check_id('model', model)}.json"


def bedrock(model: str) -> str:
    return f"bedrock/{check_id('model', model)}.json"
