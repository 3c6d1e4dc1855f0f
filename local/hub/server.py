"""The HTTP server: who asks, what for, and one line in the access log for each request."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote

from aiohttp import web

from local.hub import answers, errors, files
from local.hub.errors import HubError
from local.hub.faults import Fault, Faults
from local.hub.repository import Commit, Refs, Repository, repositories

TREE_PAGE = 1000
EXPANDED_TREE_PAGE = 50
COMMITS_PAGE = 50


class Hub:
    """All requests of one server. `token` is the only valid one; without it any token is taken for valid."""

    def __init__(self, root: Path, token: str | None = None, log: TextIO | None = None) -> None:
        self.root = root
        self.token = token
        self.log = log or sys.stdout
        self.faults = Faults(root / "faults.json")

    def app(self) -> web.Application:
        """The application; parts of a path may hold encoded slashes, so routing is done by `answer`."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer, and log what was really sent, also when the client went away."""
        request["sent"] = 0
        status = 499
        try:
            response = await self._answer_or_fail(request)
            status = response.status
            if isinstance(response, web.Response) and isinstance(response.body, bytes):
                request["sent"] = 0 if request.method == "HEAD" else len(response.body)
            return response
        finally:
            self._log(request, status)

    async def _answer_or_fail(self, request: web.Request) -> web.StreamResponse:
        try:
            path = unquote(request.rel_url.raw_path)
            fault = self.faults.take(request.method, path, request.headers.get("Range"))
            await asyncio.sleep(fault.delay)
            if fault.status is not None:
                raise _failure(fault)
            return await self.answer(request, fault)
        except HubError as error:
            return error.response()

    async def answer(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        """Route by the path's segments; each is decoded after splitting, as revisions may hold slashes."""
        match [unquote(part) for part in request.rel_url.raw_path.strip("/").split("/")]:
            case ["healthz"]:
                return web.Response(text="ok")
            case ["api", "whoami-v2"]:
                return self._whoami(request)
            case ["api", "models"]:
                return self._list(request)
            case ["api", "models", org, name, *rest]:
                return await self._api(request, f"{org}/{name}", rest)
            case [org, name, "resolve", revision, *path] if path:
                repo = f"{org}/{name}"
                return await self._resolve(request, repo, revision, "/".join(path), fault)
            case ["cdn-lfs", org, name, sha, *path] if path:
                _, commit = self._open(request, f"{org}/{name}", sha)
                if (blob := commit.blobs.get("/".join(path))) is None:
                    raise errors.entry_not_found("/".join(path), sha)
                return await files.send(request, commit, blob, fault)
        raise HubError(404, "Sorry, we can't find the page you are looking for.")

    def _authenticated(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if not given:
            return False
        if scheme != "Bearer" or self.token not in (None, given):
            raise errors.bad_credentials()
        return True

    def _open(self, request: web.Request, repo: str, revision: str) -> tuple[Refs, Commit]:
        authenticated = self._authenticated(request)
        repository = Repository(self.root, repo)
        refs = repository.refs()
        restricted = self.faults.restrictions()
        if refs is None or ((refs.private or repo in restricted.private) and not authenticated):
            raise errors.repo_not_found(authenticated=authenticated)
        commit = repository.commit(refs, revision)
        if commit is None:
            raise errors.revision_not_found(revision)
        if repo in restricted.gated:
            refs = replace(refs, gated="manual")
        return refs, commit

    def _whoami(self, request: web.Request) -> web.Response:
        if not self._authenticated(request):
            raise HubError(401, "Invalid username or password.")
        return web.json_response(
            {"type": "user", "id": "0" * 24, "name": "local", "fullname": "Local user", "isPro": False}
            | {"orgs": [], "auth": {"type": "access_token", "accessToken": {"role": "read"}}}
        )

    def _list(self, request: web.Request) -> web.Response:
        query = request.query
        found = []
        for repo in repositories(self.root):
            refs, commit = self._open(request, repo, "main")
            wanted = query.get("search", "").lower() in repo.lower()
            if wanted and query.get("author", repo.split("/")[0]) == repo.split("/")[0]:
                found.append(
                    answers.model_info(repo, refs, commit, blobs=False, expand=query.getall("expand", []))
                )
        return web.json_response(found[: int(query.get("limit", 1000))])

    async def _api(self, request: web.Request, repo: str, rest: list[str]) -> web.Response:
        query = request.query
        match request.method, rest:
            case "GET", [] | ["revision", _]:
                refs, commit = self._open(request, repo, rest[1] if rest else "main")
                blobs = query.get("blobs", "").lower() in ("1", "true")
                info = answers.model_info(repo, refs, commit, blobs=blobs, expand=query.getall("expand", []))
                return web.json_response(info)
            case "GET", ["tree", revision, *path]:
                _, commit = self._open(request, repo, revision)
                expand = query.get("expand", "").lower() in ("1", "true")
                recursive = query.get("recursive", "").lower() in ("1", "true")
                entries = answers.tree(commit, "/".join(path), recursive=recursive, expand=expand)
                if entries is None:
                    raise errors.entry_not_found("/".join(path), revision)
                return _paged(request, entries, EXPANDED_TREE_PAGE if expand else TREE_PAGE)
            case "POST", ["paths-info", revision]:
                _, commit = self._open(request, repo, revision)
                paths, expand = await _paths(request)
                return web.json_response(answers.paths_info(commit, paths, expand=expand))
            case "GET", ["refs"]:
                refs, _ = self._open(request, repo, "main")
                return web.json_response(answers.references(refs))
            case "GET", ["commits", revision]:
                refs, commit = self._open(request, repo, revision)
                return _paged(request, answers.commits(refs, commit), COMMITS_PAGE)
        raise HubError(404, "Sorry, we can't find the page you are looking for.")

    async def _resolve(
        self, request: web.Request, repo: str, revision: str, path: str, fault: Fault
    ) -> web.StreamResponse:
        refs, commit = self._open(request, repo, revision)
        authenticated = self._authenticated(request)
        denied = repo in self.faults.restrictions().denied
        if (refs.gated and not authenticated) or denied:
            raise errors.gated(repo, authenticated=authenticated)
        blob = commit.blobs.get(path)
        if blob is None:
            raise errors.entry_not_found(path, revision)
        if blob.sha256 is not None:
            return files.redirect(request, repo, commit, blob, fault)
        return await files.send(request, commit, blob, fault)

    def _log(self, request: web.Request, status: int) -> None:
        line = {
            "time": round(time.time(), 3),
            "method": request.method,
            "path": unquote(request.rel_url.raw_path),
            "status": status,
            "sent": request["sent"],
            "range": request.headers.get("Range"),
            "agent": request.headers.get("User-Agent", "")[:120],
        }
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()


def _failure(fault: Fault) -> HubError:
    """The Hub's wording for statuses that a knob asks for."""
    status = fault.status or 500
    headers: dict[str, str] = {}
    if fault.retry_after is not None:
        seconds = math.ceil(fault.retry_after)
        headers = {"Retry-After": str(seconds), "RateLimit": f'"resolvers";r=0;t={seconds}'}
    if status == 429:
        return HubError(
            429, "We had to rate limit your IP. To continue using our service, log in.", None, headers
        )
    return HubError(
        status, "Internal Error - We're working hard to fix this as soon as possible!", None, headers
    )


def _paged(request: web.Request, entries: list[answers.JSON], page: int) -> web.Response:
    """One page of a listing; the next one's address is in the Link header, as on GitHub."""
    size = max(1, min(int(request.query.get("limit", page)), page))
    start = int(request.query.get("cursor", "0"))
    headers = {"X-Total-Count": str(len(entries))}
    if start + size < len(entries):
        following = request.url.update_query({"cursor": str(start + size)})
        headers["Link"] = f'<{following}>; rel="next"'
    return web.json_response(entries[start : start + size], headers=headers)


async def _paths(request: web.Request) -> tuple[list[str], bool]:
    """`paths` and `expand` of a paths-info request, sent as a form or as JSON."""
    if request.content_type == "application/json":
        body = await request.json()
        return list(body["paths"]), bool(body.get("expand"))
    form = await request.post()
    return [str(path) for path in form.getall("paths", [])], str(form.get("expand", "")).lower() == "true"
