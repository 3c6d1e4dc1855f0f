"""log and exec: requests passed on to the kubelet of the pod's node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import aiohttp
from aiohttp import WSMsgType, web

from local.apiserver.calls import Call
from local.apiserver.errors import ApiError, Object, bad_request, internal, not_found
from local.apiserver.reading import fetch

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_LOG_FLAGS = ("follow", "previous", "timestamps")
_LOG_VALUES = ("sinceSeconds", "sinceTime", "tailLines", "limitBytes")
_STREAMS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
"""Names of the stream options: what a client calls them, and what a kubelet does."""


@dataclass(frozen=True)
class Kubelet:
    """Where a node's kubelet listens."""

    host: str
    port: int
    token: str

    def url(self, path: str, query: list[tuple[str, str]]) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}{path}" + (f"?{urlencode(query)}" if query else "")

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def kubelet_of(call: Call, node_name: str) -> Kubelet:
    """The kubelet at a Node's InternalIP and daemonEndpoints port; ApiError 404 or 500 without one."""
    node = call.cluster.store.collection(("", "nodes")).get("/" + node_name)
    if node is None:
        found = call.cluster.registry.find("", "v1", "nodes")
        assert found is not None
        raise not_found(found.subject(node_name))
    status = node.get("status") or {}
    addresses = {a["type"]: a["address"] for a in status.get("addresses") or ()}
    host = addresses.get("InternalIP") or addresses.get("Hostname")
    if not host:
        raise internal(f"no preferred addresses found; known addresses: {list(addresses.values())}")
    endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    return Kubelet(host, endpoint.get("Port") or 10250, call.cluster.kubelet_token)


def container_of(pod: Object, asked: str) -> str:
    """The container that a request is for; ApiError 400 if that is not clear."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    containers = [c["name"] for c in spec.get("containers") or ()]
    inits = [c["name"] for c in spec.get("initContainers") or ()]
    if asked:
        if asked not in (*containers, *inits):
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(containers) == 1 and not inits:
        return str(containers[0])
    text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(containers)}]"
    if inits:
        text += f" or one of the init containers: [{' '.join(inits)}]"
    raise bad_request(text)


def _log_query(query: Mapping[str, str]) -> list[tuple[str, str]]:
    for name in ("sinceSeconds", "tailLines", "limitBytes"):
        text = query.get(name)
        if text and not text.lstrip("-").isdigit():
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    flags = [(n, "true") for n in _LOG_FLAGS if is_true(query.get(n))]
    return flags + [(n, query[n]) for n in _LOG_VALUES if query.get(n)]


def is_true(text: str | None) -> bool:
    """A boolean in a query as the API server reads it: all but false and 0 (Python clients say `True`)."""
    return bool(text) and str(text).lower() not in ("false", "0")


def _unreachable(url: str, error: Exception) -> ApiError:
    return ApiError(500, "InternalError", f'Get "{url}": {error}')


async def _refusal(response: aiohttp.ClientResponse) -> ApiError:
    """A kubelet's error as the API server passes it on."""
    text = (await response.text()).strip()
    reasons = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}
    return ApiError(response.status, reasons.get(response.status, "InternalError"), text or "unknown", {})


async def stream_log(request: web.Request, call: Call, session: aiohttp.ClientSession) -> web.StreamResponse:
    """GET pods/NAME/log: the kubelet's answer as it comes; 204 for a pod that is on no node yet."""
    pod = fetch(call)
    container = container_of(pod, call.query.get("container", ""))
    query = _log_query(call.query)
    node = pod["spec"].get("nodeName")
    if not node:
        return web.Response(status=204)
    kubelet, meta = kubelet_of(call, node), pod["metadata"]
    url = kubelet.url(f"/containerLogs/{meta['namespace']}/{meta['name']}/{container}", query)
    answer: web.StreamResponse | None = None
    try:
        async with session.get(url, headers=kubelet.headers, ssl=False) as response:
            if response.status != 200:
                raise await _refusal(response)
            answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
            await answer.prepare(request)
            async for chunk in response.content.iter_any():
                await answer.write(chunk)
    except aiohttp.ClientError as error:
        if answer is None:
            raise _unreachable(url, error) from error
        # the head is sent: a broken log can only end
    return answer


def _exec_query(request: web.Request) -> list[tuple[str, str]]:
    query = [("command", c) for c in request.query.getall("command", [])]
    if not query:
        raise bad_request("you must specify at least 1 command for the container")
    for ours, theirs in _STREAMS.items():
        if is_true(request.query.get(ours)):
            query.append((theirs, "1"))
    if not any(name in ("input", "output", "error") for name, _ in query):
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    return query


def _no_container(name: str) -> ApiError:
    return ApiError(404, "NotFound", f'container not found ("{name}")', {})


def _check_running(pod: Object, container: str) -> None:
    """ApiError 404 for a container whose status says that it does not run."""
    status = pod.get("status") or {}
    for field in ("containerStatuses", "initContainerStatuses"):
        for entry in status.get(field) or ():
            if entry["name"] == container and "running" not in (entry.get("state") or {}):
                raise _no_container(container)


async def serve_exec(request: web.Request, call: Call, session: aiohttp.ClientSession) -> web.StreamResponse:
    """pods/NAME/exec over a websocket, frame by frame to the kubelet and back."""
    if request.method == "GET":
        call.require("create")  # since 1.35: who may only read must not run anything
    pod = fetch(call)
    name, phase = pod["metadata"]["name"], (pod.get("status") or {}).get("phase")
    container, query = container_of(pod, call.query.get("container", "")), _exec_query(request)
    if phase in ("Succeeded", "Failed"):
        raise bad_request(f"cannot exec into a container in a completed pod; current phase is {phase}")
    if not pod["spec"].get("nodeName"):
        raise bad_request(f"pod {name} does not have a host assigned")
    _check_running(pod, container)
    upgrade = request.headers.get("Upgrade", "").lower()
    if upgrade != "websocket":
        text = f"{upgrade} is not served: use a websocket with one of {', '.join(PROTOCOLS)}"
        raise bad_request(text if upgrade else "Upgrade request required")
    offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    protocol = next((p for p in PROTOCOLS if p in offered), None)
    if protocol is None:
        raise bad_request(
            f"unable to upgrade: unsupported subprotocols {offered}; use one of {list(PROTOCOLS)}"
        )
    kubelet, meta = kubelet_of(call, pod["spec"]["nodeName"]), pod["metadata"]
    url = kubelet.url(f"/exec/{meta['namespace']}/{name}/{container}", query)
    try:
        below = await session.ws_connect(
            url, headers=kubelet.headers, protocols=(protocol,), ssl=False, max_msg_size=0
        )
    except aiohttp.WSServerHandshakeError as error:
        if error.status == 404:
            raise _no_container(container) from error
        raise internal(f"error dialing backend: {error.message}, status {error.status}") from error
    except aiohttp.ClientError as error:
        raise internal(f"error dialing backend: {error}") from error
    above = web.WebSocketResponse(protocols=(protocol,), max_msg_size=0)
    try:
        await above.prepare(request)
        await _join(above, below)
    finally:
        await below.close()
    return above


Socket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


async def _pass_on(source: Socket, sink: Socket) -> None:
    async for message in source:
        if message.type == WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        elif message.type == WSMsgType.TEXT:
            await sink.send_str(message.data)


async def _join(above: web.WebSocketResponse, below: aiohttp.ClientWebSocketResponse) -> None:
    """Passes frames both ways until either side ends."""
    tasks = [asyncio.create_task(_pass_on(above, below)), asyncio.create_task(_pass_on(below, above))]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with contextlib.suppress(ConnectionError, RuntimeError):
        await above.close()
