"""The HTTP side: routing, and answers as JSON."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import aiohttp
from aiohttp import web

from local.apiserver import discovery, openapi
from local.apiserver.access import Gate
from local.apiserver.admitting import Answer
from local.apiserver.attributes import is_watch, verb_of
from local.apiserver.audit import AuditLog, Exchange
from local.apiserver.calls import Call, Cluster, Target, parse_path
from local.apiserver.crds import after_write
from local.apiserver.deleting import delete, delete_collection
from local.apiserver.errors import (
    ApiError,
    Object,
    internal,
    method_not_allowed,
    no_such_resource,
)
from local.apiserver.escalation import check_escalation
from local.apiserver.proxying import serve_exec, stream_log
from local.apiserver.rbac import Rbac
from local.apiserver.reading import get, list_objects
from local.apiserver.reviews import is_review, review
from local.apiserver.subresources import serve
from local.apiserver.tables import in_form, wanted_form
from local.apiserver.users import ADMIN, Tokens, User
from local.apiserver.watching import Watch
from local.apiserver.writing import create, patch, replace

log = logging.getLogger("apiserver")
MAX_BODY = 3 * 1024 * 1024

_SESSION = web.AppKey("kubelets", aiohttp.ClientSession)
_EXCHANGE = web.RequestKey("exchange", Exchange)


async def _kubelet_session(app: web.Application) -> AsyncIterator[None]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        app[_SESSION] = session
        yield


@dataclass
class Server:
    """The web application over one cluster; `token` is the one that may do everything."""

    cluster: Cluster
    token: str
    tokens: Mapping[str, User] = field(default_factory=dict)
    """Users with a token of their own, who may do what roles allow them."""
    audit: AuditLog | None = None

    def __post_init__(self) -> None:
        self._rbac = Rbac(self.cluster)
        self._gate = Gate(Tokens({**self.tokens, self.token: ADMIN}), self._rbac)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY)
        app.cleanup_ctx.append(_kubelet_session)
        app.on_response_prepare.append(self._note_start)
        app.router.add_route("*", "/{tail:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        exchange = request[_EXCHANGE] = Exchange.of(request)
        try:
            response = await self._respond(request, exchange)
            exchange.code = response.status
            return response
        finally:
            if self.audit:
                self.audit.add(exchange, "ResponseComplete")

    async def _note_start(self, request: web.Request, response: web.StreamResponse) -> None:
        """The head of an answer goes out: of one that stays open this may be all for a long time."""
        exchange = request.get(_EXCHANGE)
        if self.audit and exchange is not None and exchange.stays_open and not exchange.failure:
            exchange.code = response.status
            self.audit.add(exchange, "ResponseStarted")

    async def _respond(self, request: web.Request, exchange: Exchange) -> web.StreamResponse:
        try:
            self._gate.admit(request, exchange.asker)
            return await self._route(request)
        except ApiError as error:
            exchange.failure = error.status()
            return web.json_response(exchange.failure, status=error.code, headers=error.headers)
        except web.HTTPRequestEntityTooLarge:
            text = f"Request entity too large: limit is {MAX_BODY}"
            exchange.failure = ApiError(413, "RequestEntityTooLarge", text).status()
            return web.json_response(exchange.failure, status=413)
        except (ConnectionResetError, web.HTTPException):
            raise
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            exchange.failure = internal(str(error)).status()
            return web.json_response(exchange.failure, status=500)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        path, registry = request.path.rstrip("/") or "/", self.cluster.registry
        parts = path.strip("/").split("/")
        found: Object | None = None
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if path == "/version":
            found = discovery.VERSION
        elif path == "/api":
            found = discovery.api_versions(request.host)
        elif path == "/apis":
            found = discovery.groups(registry)
        elif parts[0] == "apis" and len(parts) == 2:
            found = discovery.one_group(registry, parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            found = discovery.resources(registry, parts[1], parts[2])
        elif parts[0] == "api" and len(parts) == 2:
            found = discovery.resources(registry, "", parts[1])
        elif path == "/openapi/v2":
            wanted_form(request.headers.get("Accept", ""))
            found = openapi.legacy()
        elif path == "/openapi/v3":
            found = openapi.index(registry)
        elif path.startswith("/openapi/v3/api"):
            group = "/".join(parts[3:-1])
            found = openapi.document(registry, group, parts[-1])
        else:
            target = parse_path(path)
            if target is not None and registry.of_version(target.group, target.version):
                return await self._serve(request, target)
        if found is None:
            return web.Response(text="404 page not found\n", status=404)
        if request.method != "GET":
            raise method_not_allowed()
        return web.json_response(found)

    async def _serve(self, request: web.Request, target: Target) -> web.StreamResponse:
        resource = self.cluster.registry.find(target.group, target.version, target.plural)
        if resource is None:
            raise no_such_resource()
        if target.subresource and target.subresource not in resource.subresources:
            raise no_such_resource()
        if target.name and resource.namespaced and not target.namespace:
            raise no_such_resource()
        if target.namespace and not resource.namespaced:
            raise no_such_resource()
        verb = verb_of(request.method, target, is_watch(request.query))
        if not target.subresource and verb not in resource.verbs:
            raise method_not_allowed()
        exchange = request[_EXCHANGE]
        exchange.body = await request.read()
        call = Call(
            self.cluster,
            resource,
            target,
            dict(request.query),
            request.headers.get("User-Agent", ""),
            request.headers.get("Content-Type", ""),
            exchange.body,
            partial(self._gate.require, exchange.asker),
            partial(check_escalation, self._rbac, exchange.asker.effective),
        )
        form = wanted_form(request.headers.get("Accept", "")) if target.subresource != "log" else ""
        if verb == "watch":
            return await self._watch(request, call, form)
        if target.subresource == "log" and verb == "get":
            return await stream_log(request, call, request.app[_SESSION])
        if target.subresource == "exec" and request.method in ("GET", "POST"):
            return await serve_exec(request, call, request.app[_SESSION])
        if is_review(resource):
            answer = review(call, self._rbac, exchange.asker.effective)
        else:
            answer = self._perform(call, request.method, verb)
        exchange.answer = answer.body
        return self._answer(call, answer, form)

    def _perform(self, call: Call, method: str, verb: str) -> Answer:
        target, resource = call.target, call.resource
        if target.subresource not in ("", "status"):
            answer = serve(call, method)
        elif method == "GET":
            return Answer(get(call) if target.name else list_objects(call))
        elif method == "POST" and not target.name and (target.namespace or not resource.namespaced):
            answer = create(call)
        elif method == "PUT" and target.name:
            answer = replace(call)
        elif method == "PATCH" and target.name:
            answer = patch(call)
        elif method == "DELETE" and not target.subresource:
            answer = delete(call) if target.name else delete_collection(call)
        else:
            raise method_not_allowed()
        after_write(call)
        return answer

    def _answer(self, call: Call, answer: Answer, form: str) -> web.Response:
        include = call.query.get("includeObject", "Metadata")
        body = in_form(call.resource, answer.body, form, include)
        response = web.json_response(body, status=answer.code)
        for text in answer.warnings:
            response.headers.add("Warning", '299 - "' + text.replace('"', '\\"') + '"')
        return response

    async def _watch(self, request: web.Request, call: Call, form: str) -> web.StreamResponse:
        headings = iter([True])  # a Table's columns come with the first event only
        include = call.query.get("includeObject", "Metadata")

        def show(obj: Object) -> Object:
            return in_form(call.resource, obj, form, include, next(headings, False)) if form else obj

        watch = Watch(call, show)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        lines = watch.lines()
        try:
            await response.prepare(request)
            async for chunk in lines:
                await response.write(chunk)
        except ConnectionResetError:
            pass
        finally:
            await lines.aclose()
            watch.close()
        return response
