"""Requests to an API server: create, read, patch, delete, watch. Errors carry the server's own Status."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp

from local.client.kinds import Obj, Resource
from local.client.kubeconfig import Cluster

PatchKind = Literal["merge", "json", "strategic-merge"]
_MEDIA: dict[PatchKind, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic-merge": "application/strategic-merge-patch+json",
}


class ApiError(Exception):
    """The server refused: HTTP code, machine-readable reason and message of its Status object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message

    @property
    def not_found(self) -> bool:
        return self.code == 404

    @property
    def conflict(self) -> bool:
        return self.code == 409 and self.reason != "AlreadyExists"

    @property
    def already_exists(self) -> bool:
        return self.code == 409 and self.reason == "AlreadyExists"

    @property
    def gone(self) -> bool:
        return self.code == 410


class Api:
    """One connection pool to one API server. Use as an asynchronous context manager."""

    def __init__(self, cluster: Cluster, agent: str) -> None:
        self.cluster = cluster
        self._agent = agent
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"User-Agent": self._agent, "Accept": "application/json"}
        if self.cluster.token:
            headers["Authorization"] = f"Bearer {self.cluster.token}"
        # Every watch holds a connection, so the pool has no limit; 2 MiB lines hold the largest watch event.
        connector = aiohttp.TCPConnector(ssl=self.cluster.tls or False, limit=0, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(
            connector=connector, headers=headers, read_bufsize=2**21, timeout=aiohttp.ClientTimeout(total=30)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("Api is used outside its `async with` block")
        return self._session

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        media: str = "application/json",
    ) -> Obj:
        """Send one request, return the decoded object; raises ApiError."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": media} if data is not None else {}
        url = self.cluster.server + path
        async with self.session.request(method, url, params=query, data=data, headers=headers) as answer:
            text = await answer.read()
            if answer.status >= 400:
                raise _error(answer.status, text)
            result: Obj = json.loads(text) if text else {}
            return result

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Obj:
        return await self.request("GET", resource.path(namespace, name))

    async def list(self, resource: Resource, namespace: str | None = None, **query: str) -> Obj:
        """One list object with all pages joined; `metadata.resourceVersion` is that of the first page."""
        query.setdefault("limit", "500")
        result = await self.request("GET", resource.path(namespace), query=query)
        page = result
        while token := (page.get("metadata") or {}).get("continue"):
            page = await self.request("GET", resource.path(namespace), query={**query, "continue": token})
            result["items"].extend(page.get("items") or [])
        result["items"] = result.get("items") or []
        return result

    async def create(
        self, resource: Resource, obj: Obj, sub: str | None = None, name: str | None = None
    ) -> Obj:
        namespace = obj["metadata"].get("namespace")
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        return await self.request("POST", resource.path(namespace, name, sub), body=body)

    async def update(self, resource: Resource, obj: Obj, sub: str | None = None) -> Obj:
        meta = obj["metadata"]
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        return await self.request("PUT", resource.path(meta.get("namespace"), meta["name"], sub), body=body)

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Any,
        *,
        kind: PatchKind = "merge",
        sub: str | None = None,
    ) -> Obj:
        return await self.request(
            "PATCH", resource.path(namespace, name, sub), body=patch, media=_MEDIA[kind]
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace: int | None = None,
        propagation: str | None = None,
    ) -> Obj:
        body: Obj = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        if propagation:
            body["propagationPolicy"] = propagation
        return await self.request("DELETE", resource.path(namespace, name), body=body)

    async def watch(
        self, resource: Resource, namespace: str | None, version: str, seconds: int, **query: str
    ) -> AsyncIterator[Obj]:
        """Yield watch events from `version` on until the server ends the watch; raises ApiError (410 = list
        again).
        """
        params = {
            **query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        limits = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=seconds + 30)
        url = self.cluster.server + resource.path(namespace)
        async with self.session.get(url, params=params, timeout=limits) as answer:
            if answer.status >= 400:
                raise _error(answer.status, await answer.read())
            buffer = b""
            async for chunk in answer.content.iter_any():
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    if line.strip():
                        event: Obj = json.loads(line)
                        if event["type"] == "ERROR":
                            status = event["object"]
                            code = int(status.get("code", 500))
                            raise ApiError(
                                code, str(status.get("reason", "")), str(status.get("message", ""))
                            )
                        yield event


def _error(code: int, text: bytes) -> ApiError:
    try:
        status = json.loads(text)
        return ApiError(code, str(status.get("reason", "")), str(status.get("message", "")))
    except (ValueError, AttributeError):
        return ApiError(code, "", text.decode(errors="replace")[:500])
