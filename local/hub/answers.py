"""The JSON bodies of the Hub's API, as pure functions of a repository's content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from local.checkpoints.tensorfile import read_entries
from local.hub.repository import Blob, Commit, Refs

JSON = dict[str, Any]


def model_info(repo: str, refs: Refs, commit: Commit, *, blobs: bool, expand: Iterable[str] = ()) -> JSON:
    """`/api/models/{repo}[/revision/{rev}]`; with `expand` only these fields besides the ids."""
    config = _read_json(commit, "config.json")
    card = _card(commit)
    info: JSON = {
        "_id": hashlib.sha1(repo.encode(), usedforsecurity=False).hexdigest()[:24],
        "id": repo,
        "private": refs.private,
        "pipeline_tag": card.get("pipeline_tag", "text-generation"),
        "library_name": card.get("library_name", "transformers"),
        "tags": ["transformers", "safetensors", *([config["model_type"]] if "model_type" in config else [])],
        "downloads": 0,
        "likes": 0,
        "modelId": repo,
        "author": repo.split("/")[0],
        "sha": commit.sha,
        "lastModified": commit.date,
        "createdAt": refs.created,
        "gated": refs.gated,
        "disabled": False,
        "config": {key: config[key] for key in ("architectures", "model_type") if key in config},
        "cardData": card,
        "siblings": [sibling(blob, blobs=blobs) for blob in commit.blobs.values()],
        "usedStorage": sum(blob.size for blob in commit.blobs.values()),
        "spaces": [],
    }
    parameters = _parameters(commit)
    if parameters:
        info["safetensors"] = {"parameters": parameters, "total": sum(parameters.values())}
    wanted = set(expand)
    return {key: value for key, value in info.items() if not wanted or key in wanted | {"_id", "id"}}


def sibling(blob: Blob, *, blobs: bool) -> JSON:
    """One file in `siblings`; sizes and digests only when asked for."""
    if not blobs:
        return {"rfilename": blob.path}
    entry: JSON = {"rfilename": blob.path, "blobId": blob.oid, "size": blob.size}
    if blob.sha256 is not None:
        entry["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    return entry


def tree(commit: Commit, path: str, *, recursive: bool, expand: bool) -> list[JSON] | None:
    """Files and folders below `path`, sorted; None when there is no such folder."""
    prefix = f"{path.strip('/')}/" if path.strip("/") else ""
    below = [name for name in commit.blobs if name.startswith(prefix)]
    if prefix and not below:
        return None
    entries: dict[str, JSON] = {}
    for name in below:
        parts = name.removeprefix(prefix).split("/")
        depths = range(1, len(parts)) if recursive else range(1, min(2, len(parts)))
        for depth in depths:
            folder = prefix + "/".join(parts[:depth])
            entries[folder] = folder_entry(commit, folder, expand=expand)
        if recursive or len(parts) == 1:
            entries[name] = file_entry(commit, commit.blobs[name], expand=expand)
    return [entries[name] for name in sorted(entries)]


def file_entry(commit: Commit, blob: Blob, *, expand: bool) -> JSON:
    """One file in a tree listing or in paths-info."""
    entry: JSON = {"type": "file", "oid": blob.oid, "size": blob.size, "path": blob.path}
    if blob.sha256 is not None:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    if expand:
        entry["lastCommit"] = _last_commit(commit)
    return entry


def folder_entry(commit: Commit, path: str, *, expand: bool) -> JSON:
    """One folder in a tree listing or in paths-info."""
    oids = "".join(blob.oid for name, blob in sorted(commit.blobs.items()) if name.startswith(path + "/"))
    entry: JSON = {
        "type": "directory",
        "oid": hashlib.sha1(oids.encode(), usedforsecurity=False).hexdigest(),
        "size": 0,
        "path": path,
    }
    if expand:
        entry["lastCommit"] = _last_commit(commit)
    return entry


def paths_info(commit: Commit, paths: Iterable[str], *, expand: bool) -> list[JSON]:
    """Entries of the paths that exist; the others are left out, as the Hub does."""
    answer = []
    for path in paths:
        name = path.strip("/")
        if name in commit.blobs:
            answer.append(file_entry(commit, commit.blobs[name], expand=expand))
        elif any(other.startswith(name + "/") for other in commit.blobs):
            answer.append(folder_entry(commit, name, expand=expand))
    return answer


def references(refs: Refs) -> JSON:
    """`/api/models/{repo}/refs`."""

    def listed(kind: str, names: dict[str, str]) -> list[JSON]:
        return [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in names.items()
        ]

    return {"branches": listed("heads", refs.branches), "tags": listed("tags", refs.tags), "converts": []}


def commits(refs: Refs, head: Commit) -> list[JSON]:
    """`/api/models/{repo}/commits/{rev}`: `head` and what came before it on its branch, newest first."""
    shas = [head.sha]
    for history in refs.history.values():
        if head.sha in history:
            shas = list(dict.fromkeys(history[history.index(head.sha) :]))
            break
    return [
        {
            "id": sha,
            "title": refs.commits[sha]["title"],
            "message": "",
            "authors": [{"user": "local"}],
            "date": refs.commits[sha]["date"],
        }
        for sha in shas
    ]


def _last_commit(commit: Commit) -> JSON:
    return {"id": commit.sha, "title": commit.title, "date": commit.date}


def _read_json(commit: Commit, name: str) -> JSON:
    if name not in commit.blobs:
        return {}
    try:
        content = json.loads((commit.folder / name).read_text())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _card(commit: Commit) -> JSON:
    """The plain `key: value` lines of README.md's front matter: all that the answers use."""
    if "README.md" not in commit.blobs:
        return {}
    parts = (commit.folder / "README.md").read_text(errors="replace").split("---\n", 2)
    lines = parts[1].splitlines() if len(parts) == 3 and not parts[0] else []
    pairs = (line.split(":", 1) for line in lines if ":" in line and not line.startswith((" ", "-")))
    return {key.strip(): value.strip() for key, value in pairs if value.strip()}


def _parameters(commit: Commit) -> dict[str, int]:
    """Number of parameters by dtype, from the headers of the safetensors files."""
    counted: dict[str, int] = {}
    for name in commit.blobs:
        if not name.endswith(".safetensors"):
            continue
        try:
            entries = read_entries(commit.folder / name)
        except ValueError:
            return {}
        for entry in entries:
            count = 1
            for size in entry.shape:
                count *= size
            counted[entry.dtype] = counted.get(entry.dtype, 0) + count
    return counted
