"""The kubelet's own API: logs, exec, pods, health. HTTPS with a bearer token, as the API server calls it."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from aiohttp import web

from local.kubelet.exec import serve_exec
from local.kubelet.kubelet import Kubelet
from local.kubelet.logs import LogOptions, read_log

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(kubelet: Kubelet) -> web.Application:
    """The application; every path but /healthz wants the token (an empty token lets everyone in)."""
    token = kubelet.host.settings.token

    @web.middleware
    async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if token and request.path != "/healthz" and not hmac.compare_digest(given, token):
            return web.Response(status=401, text="Unauthorized")
        return await handler(request)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def pods(_: web.Request) -> web.Response:
        items = [each.pod for each in kubelet.workers.values()]
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def logs(request: web.Request) -> web.StreamResponse:
        return await _logs(kubelet, request)

    async def execute(request: web.Request) -> web.StreamResponse:
        return await serve_exec(kubelet, request)

    app = web.Application(middlewares=[authorize])
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/pods", pods)
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    for path in ("/exec/{namespace}/{pod}/{container}", "/exec/{namespace}/{pod}/{uid}/{container}"):
        app.router.add_route("GET", path, execute)
        app.router.add_route("POST", path, execute)
    return app


def _truth(text: str | None) -> bool:
    return text in ("true", "1", "True")


def log_options(query: dict[str, str]) -> LogOptions:
    """Options of a log request; raises ValueError."""
    since = None
    if query.get("sinceSeconds"):
        since = time.time_ns() - int(query["sinceSeconds"]) * 10**9
    elif query.get("sinceTime"):
        since = int(datetime.fromisoformat(query["sinceTime"].replace("Z", "+00:00")).timestamp() * 10**9)
    return LogOptions(
        follow=_truth(query.get("follow")),
        tail=int(query["tailLines"]) if query.get("tailLines") else None,
        since=since,
        timestamps=_truth(query.get("timestamps")),
        limit=int(query["limitBytes"]) if query.get("limitBytes") else None,
    )


async def _logs(kubelet: Kubelet, request: web.Request) -> web.StreamResponse:
    place = request.match_info
    name, container = place["pod"], place["container"]
    try:
        options = log_options(dict(request.query))
    except ValueError as error:
        return web.Response(status=400, text=f"bad log option: {error}")
    worker = kubelet.worker(place["namespace"], name)
    if worker is None:
        return web.Response(status=404, text=f'pod "{name}" does not exist')
    if worker.container(container) is None:
        return web.Response(status=404, text=f'container "{container}" not found in pod "{name}"')
    previous = _truth(request.query.get("previous"))
    found = worker.log_file(container, previous=previous)
    if found is None:
        meta = f'"{container}" in pod "{name}"'
        text = (
            f"previous terminated container {meta} not found"
            if previous
            else f"container {meta} is waiting to start"
        )
        state = worker.container(container)
        waiting = state.state.waiting if state else None
        if not previous and waiting:
            text += f": {waiting['reason']}"
        return web.Response(status=400, text=text)
    path, live = found
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    async for chunk in read_log(path, live, options):
        await response.write(chunk)
    await response.write_eof()
    return response
