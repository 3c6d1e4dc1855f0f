"""Listing a commit's files on the Hub. Not through `huggingface_hub`: importing it costs a fetch's pod a
third of its start, for one request."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urljoin, urlsplit

from trainyard.errors import CorruptArtifact, HubUnavailable, PermanentError
from trainyard.hub_content import TRIES, Content, check, wait
from trainyard.hub_policy import MAX_FILES, HubFile

# A page has a thousand entries of some 300 bytes.
PAGE_BYTES = 16 << 20
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')


def list_tree(content: Content, repo: str, sha: str) -> list[HubFile]:
    """Every file of the commit, in path order.

    Raises NotFound, PermanentError (gated, forbidden, moved, too many files), CorruptArtifact (no listing),
    HubUnavailable.
    """
    where = f"{repo}@{sha}"
    url = f"{content.endpoint}/api/models/{repo}/tree/{sha}?recursive=true&expand=false"
    found: list[HubFile] = []
    entries = 0
    while url:
        page, following = _page(content, url, repo, where)
        entries += len(page)
        found += [_file(entry, where) for entry in page if entry.get("type") != "directory"]
        if entries > MAX_FILES:
            raise PermanentError(f"{where} has more than {MAX_FILES} files: that is no model to serve.")
        url = urljoin(url, following) if following else ""
        if url and urlsplit(url)[:2] != urlsplit(content.endpoint)[:2]:
            raise CorruptArtifact(f"{where}: the Hub's listing goes on at another host ({url[:100]}).")
    return sorted(found)


def _page(content: Content, url: str, repo: str, where: str) -> tuple[list[dict[str, Any]], str | None]:
    """Entries of one page, and the address of the next."""
    for attempt in range(TRIES):
        try:
            with content.open_url(url, where, {}, repo) as (response, hops):
                check(response, where)
                if len(hops) > 1:
                    # A silent change of owner is not ours to accept.
                    raise PermanentError(
                        f"{where} was moved on the Hub to {hops[-1]['Location'][:200]}. Name it by its new "
                        "name if you trust it."
                    )
                body = response.read(PAGE_BYTES + 1, decode_content=False)
                link = _NEXT.search(response.headers.get("Link", ""))
            return _entries(body, where), link[1] if link else None
        except HubUnavailable as error:
            wait(error, attempt)
    raise AssertionError("unreachable")


def _entries(body: bytes, where: str) -> list[dict[str, Any]]:
    try:
        page = json.loads(body) if len(body) <= PAGE_BYTES else None
    except (ValueError, RecursionError):
        page = None
    if not isinstance(page, list) or not all(isinstance(entry, dict) for entry in page):
        raise CorruptArtifact(f"{where}: what the Hub sent is no listing of files. Look at its status page.")
    return page


def _file(entry: dict[str, Any], where: str) -> HubFile:
    path, size, blob, lfs = (entry.get(name) for name in ("path", "size", "oid", "lfs"))
    digest = lfs.get("oid") if isinstance(lfs, dict) else None
    if not (isinstance(path, str) and isinstance(size, int) and isinstance(blob, str)) or (
        lfs is not None and not isinstance(digest, str)
    ):
        raise CorruptArtifact(f"{where}: the Hub lists {str(entry)[:200]}, which is no file.")
    return HubFile(path, size, digest, blob)
