"""The HTTP side: authentication, routing, and answers as JSON."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from local.apiserver import discovery, openapi
from local.apiserver.admitting import Answer
from local.apiserver.calls import Call, Cluster, Target, now, parse_path
from local.apiserver.crds import after_write
from local.apiserver.deleting import delete, delete_collection
from local.apiserver.errors import (
    ApiError,
    Object,
    forbidden,
    internal,
    method_not_allowed,
    no_such_resource,
)
from local.apiserver.proxying import serve_exec, stream_log
from local.apiserver.reading import get, list_objects
from local.apiserver.resources import Resource
from local.apiserver.subresources import serve
from local.apiserver.tables import in_form, wanted_form
from local.apiserver.watching import Watch
from local.apiserver.writing import create, patch, replace

log = logging.getLogger("apiserver")
_PUBLIC = ("/version", "/healthz", "/livez", "/readyz")
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
MAX_BODY = 3 * 1024 * 1024


def verb_of(method: str, target: Target, watch: bool) -> str:
    if method == "GET":
        return "watch" if watch else "get" if target.name else "list"
    if method == "DELETE":
        return "delete" if target.name else "deletecollection"
    return _VERBS.get(method, method.lower())


def is_watch(request: web.Request) -> bool:
    return request.query.get("watch", "").lower() in ("1", "true")


_SESSION = web.AppKey("kubelets", aiohttp.ClientSession)


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

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY)
        app.cleanup_ctx.append(_kubelet_session)
        app.router.add_route("*", "/{tail:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            self._authenticate(request)
            return await self._route(request)
        except ApiError as error:
            return web.json_response(error.status(), status=error.code, headers=error.headers)
        except web.HTTPRequestEntityTooLarge:
            text = f"Request entity too large: limit is {MAX_BODY}"
            return web.json_response(ApiError(413, "RequestEntityTooLarge", text).status(), status=413)
        except (ConnectionResetError, web.HTTPException):
            raise
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            return web.json_response(internal(str(error)).status(), status=500)

    def _authenticate(self, request: web.Request) -> None:
        header = request.headers.get("Authorization", "")
        if header:
            given = header.removeprefix("Bearer ").strip()
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                raise ApiError(401, "Unauthorized", "Unauthorized")
            return
        if request.path in _PUBLIC:
            return
        user, target = 'User "system:anonymous"', parse_path(request.path)
        if target is None:
            text = f'forbidden: {user} cannot {request.method.lower()} path "{request.path}"'
            raise ApiError(403, "Forbidden", text, {})
        verb = verb_of(request.method, target, is_watch(request))
        where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
        plural = "/".join(p for p in (target.plural, target.subresource) if p)
        text = f'{user} cannot {verb} resource "{plural}" in API group "{target.group}" {where}'
        raise forbidden(Resource(target.group, target.version, target.plural, "").subject(target.name), text)

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
        verb = verb_of(request.method, target, is_watch(request))
        if not target.subresource and verb not in resource.verbs:
            raise method_not_allowed()
        call = Call(
            self.cluster,
            resource,
            target,
            dict(request.query),
            request.headers.get("User-Agent", ""),
            request.headers.get("Content-Type", ""),
            await request.read(),
        )
        form = wanted_form(request.headers.get("Accept", "")) if target.subresource != "log" else ""
        if verb == "watch":
            return await self._watch(request, call, form)
        if target.subresource == "log" and verb == "get":
            return await stream_log(request, call, request.app[_SESSION])
        if target.subresource == "exec" and request.method in ("GET", "POST"):
            return await serve_exec(request, call, request.app[_SESSION])
        return self._answer(call, self._perform(call, request.method, verb), form)

    def _perform(self, call: Call, method: str, verb: str) -> Answer:
        target, resource = call.target, call.resource
        if target.subresource not in ("", "status"):
            answer = serve(call, method)
        elif resource.plural == "selfsubjectaccessreviews" and method == "POST":
            return Answer({**call.body(), "status": {"allowed": True}}, 201)
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


def bootstrap(cluster: Cluster) -> None:
    """The namespaces that every cluster has."""
    resource = cluster.registry.find("", "v1", "namespaces")
    assert resource is not None
    for name in ("default", "kube-node-lease", "kube-public", "kube-system"):
        body = {"metadata": {"name": name, "creationTimestamp": now()}}
        call = Call(cluster, resource, Target("", "v1", "namespaces"), raw=json.dumps(body).encode())
        create(call)


def install(cluster: Cluster, definition: Object) -> None:
    """Creates a CustomResourceDefinition and serves it; ApiError if it is not valid."""
    resource = cluster.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    assert resource is not None
    target = Target(resource.group, resource.version, resource.plural)
    call = Call(cluster, resource, target, raw=json.dumps(definition).encode())
    create(call)
    after_write(call)
