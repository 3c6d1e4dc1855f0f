"""Repositories on disk: immutable commits, and the branches and tags that name them.

    ROOT/<org>/<name>/refs.json             branches, tags, history (see `Refs`)
    ROOT/<org>/<name>/commits/<sha>/        the files of one commit
    ROOT/<org>/<name>/commits/<sha>.json    its index: path, size, git oid, LFS digest

A commit's SHA is derived from its content alone, so publishing the same files twice gives the same commit.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPO_ID = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
# What the Hub's default .gitattributes keeps in LFS; other files only when they are large.
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".gguf", ".h5", ".model", ".msgpack", ".npz")
LFS_FROM = 10 * 1024 * 1024


@dataclass(frozen=True)
class Blob:
    """One file of a commit. `oid` is git's (of the pointer when in LFS), `sha256` is set for LFS files."""

    path: str
    size: int
    oid: str
    sha256: str | None = None
    pointer_size: int | None = None


@dataclass(frozen=True)
class Commit:
    """One immutable revision: its 40-hex SHA, title, ISO date, and the place of its files."""

    sha: str
    title: str
    date: str
    folder: Path
    blobs: dict[str, Blob]


@dataclass
class Refs:
    """What names point to; `history` lists a branch's commits, newest first."""

    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, str]] = field(default_factory=dict)
    history: dict[str, list[str]] = field(default_factory=dict)
    gated: str | bool = False
    private: bool = False
    created: str = ""


class Repository:
    """Read access to one repository; every call reads the folder again, so a publish shows at once."""

    def __init__(self, root: Path, repo: str) -> None:
        self.repo = repo
        self.folder = root / repo

    def refs(self) -> Refs | None:
        """Branches and tags, or None when there is no such repository."""
        if not REPO_ID.fullmatch(self.repo):
            return None
        try:
            return Refs(**json.loads((self.folder / "refs.json").read_text()))
        except FileNotFoundError:
            return None

    def commit(self, refs: Refs, revision: str) -> Commit | None:
        """The commit of a branch, tag, `refs/heads/x`, `refs/tags/x` or full SHA; None when unknown.

        Abbreviated SHAs are unknown, as on the Hub.
        """
        name = revision
        for prefix, names in (("refs/heads/", refs.branches), ("refs/tags/", refs.tags)):
            if revision.startswith(prefix):
                name = names.get(revision.removeprefix(prefix), "")
        sha = refs.branches.get(name) or refs.tags.get(name) or name
        if sha not in refs.commits:
            return None
        index = json.loads((self.folder / "commits" / f"{sha}.json").read_text())
        blobs = {entry["path"]: Blob(**entry) for entry in index}
        return Commit(sha=sha, folder=self.folder / "commits" / sha, blobs=blobs, **refs.commits[sha])


def repositories(root: Path) -> Iterator[str]:
    """Ids of all repositories below `root`, sorted."""
    for path in sorted(root.glob("*/*/refs.json")):
        yield path.parent.relative_to(root).as_posix()


def publish(
    root: Path,
    repo: str,
    source: Path,
    *,
    branch: str = "main",
    tag: str | None = None,
    title: str | None = None,
    gated: bool | None = None,
    private: bool | None = None,
) -> str:
    """Make the files below `source` the head of `branch` and return the commit's SHA.

    The same content gives the same SHA and changes nothing. `gated` and `private` are kept when None.
    Raises ValueError for an id that is none, FileNotFoundError when `source` holds no file.
    """
    if not REPO_ID.fullmatch(repo):
        raise ValueError(f"repository id {repo!r} is not of the form org/name")
    blobs = [
        index(path, path.relative_to(source).as_posix())
        for path in sorted(source.rglob("*"))
        if path.is_file() and ".cache" not in path.relative_to(source).parts
    ]
    if not blobs:
        raise FileNotFoundError(f"{source} holds no file to publish")
    sha = commit_sha(blobs)
    folder = root / repo
    (folder / "commits").mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        refs = Repository(root, repo).refs() or Refs(created=now())
        if sha not in refs.commits:
            _store(folder / "commits", sha, source, blobs)
            refs.commits[sha] = {"title": title or f"Upload {len(blobs)} files", "date": now()}
        if refs.branches.get(branch) != sha:
            refs.branches[branch] = sha
            refs.history.setdefault(branch, []).insert(0, sha)
        if tag is not None:
            refs.tags[tag] = sha
        refs.gated = refs.gated if gated is None else ("manual" if gated else False)
        refs.private = refs.private if private is None else private
        _replace(folder / "refs.json", json.dumps(asdict(refs), indent=2) + "\n")
    return sha


def index(path: Path, name: str) -> Blob:
    """The index entry of one file, as git and git-lfs would name its content."""
    size = path.stat().st_size
    if not (name.endswith(LFS_SUFFIXES) or size > LFS_FROM):
        return Blob(name, size, git_oid(path.read_bytes()))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n".encode()
    return Blob(name, size, git_oid(pointer), digest, len(pointer))


def git_oid(content: bytes) -> str:
    """SHA-1 that git gives a blob of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def commit_sha(blobs: list[Blob]) -> str:
    """40 hex digits from paths and oids."""
    listing = "".join(f"{blob.oid} {blob.path}\n" for blob in sorted(blobs, key=lambda blob: blob.path))
    return hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()


def now() -> str:
    """The time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _store(commits: Path, sha: str, source: Path, blobs: list[Blob]) -> None:
    staged = commits / f".{sha}.{os.getpid()}"
    for blob in blobs:
        target = staged / blob.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / blob.path, target)
    content: list[dict[str, Any]] = [asdict(blob) for blob in blobs]
    _replace(commits / f"{sha}.json", json.dumps(content, indent=1) + "\n")
    staged.rename(commits / sha)


def _replace(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_text(text)
    staged.replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
