"""A registry of the OCI distribution specification on loopback, strict, and failing on purpose.

Blobs and manifests lie in memory. Like ECR it can ask for basic authentication or bearer tokens (with
scopes), send downloads on to another host, keep tags immutable, and lose every PATCH of an upload but the
first (aws/containers-roadmap#2831), so that a client which cuts blobs into chunks is found out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "AWS", "registry-password"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class Fault:
    """kind: "status", "reset" (before the answer), "cut" (half of a body, then a reset), "flip" (a bit)."""

    kind: str
    method: str = "GET"
    match: str = ""
    times: int = 1
    status: int = 503
    retry_after: str | None = None


@dataclass
class LocalRegistry:
    """address: host and port. auth: "none", "basic" or "bearer"."""

    address: str = ""
    auth: str = "none"
    redirects: bool = False
    immutable: bool = False
    ranges: bool = True
    faults: list[Fault] = field(default_factory=list)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    received: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def take(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.seen.append(f"{method} {path}")
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.match, path):
                    fault.times -= 1
                    return fault
        return None

    def sent(self, method: str) -> list[str]:
        return [line for line in self.seen if line.startswith(method + " ")]


@contextmanager
def local_registry(**options: Any) -> Iterator[LocalRegistry]:
    registry = LocalRegistry(**options)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # of a registry that has no time right now

        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": registry}))
    registry.address = f"127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: LocalRegistry

    def _any(self) -> None:
        fault = self.registry.take(self.command, self.path)
        if fault and fault.kind == "reset":
            return self._reset()
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding"):
            return self._refuse(411, "SIZE_INVALID", "this registry wants a Content-Length")
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        if not self._allowed(address.path, query):
            # Like real ones: no word is waited for from somebody unknown.
            self.close_connection = True
            return None
        body = self.rfile.read(length)
        self.registry.received += len(body)
        if fault and fault.kind == "status":
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return self._refuse(fault.status, "TOOMANYREQUESTS", "on purpose", headers)
        for pattern, act in _ROUTES:
            found = re.fullmatch(pattern, address.path)
            if found:
                return act(self, found, query, body, fault)
        return self._refuse(404, "NAME_UNKNOWN", "no such address")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _any

    def _allowed(self, path: str, query: dict[str, str]) -> bool:
        said, registry = self.headers.get("Authorization", ""), self.registry
        if path == "/token":
            if said != BASIC:
                self._refuse(401, "UNAUTHORIZED", "who are you?")
                return False
            token = uuid.uuid4().hex
            registry.tokens[token] = query.get("scope", "")
            self._answer(200, json.dumps({"token": token}).encode())
            return False
        if path.startswith("/signed/"):
            if said:
                self._refuse(400, "INVALID", "a signed address and an Authorization header: one of them")
            return not said
        if registry.auth == "none" or (registry.auth == "basic" and said == BASIC):
            return True
        wanted = "pull" if self.command in ("GET", "HEAD") else "push"
        if registry.auth == "bearer" and wanted in registry.tokens.get(said.removeprefix("Bearer "), ""):
            return True
        repository = path.removeprefix("/v2/").rpartition("/blobs/")[0] or path.removeprefix("/v2/")
        scope = f"repository:{repository}:pull" + (",push" if wanted == "push" else "")
        challenge = f'Bearer realm="http://{registry.address}/token",service="tests",scope="{scope}"'
        if registry.auth == "basic":
            challenge = 'Basic realm="tests"'
        self._refuse(401, "UNAUTHORIZED", "who are you?", {"WWW-Authenticate": challenge})
        return False

    def _blob(self, found: re.Match[str], query: dict[str, str], body: bytes, fault: Fault | None) -> None:
        content = self.registry.blobs.get((found["name"], found["digest"]))
        if content is None:
            return self._refuse(404, "BLOB_UNKNOWN", "no such blob")
        if self.registry.redirects and self.command == "GET" and not self.path.startswith("/signed/"):
            port = self.registry.address.rpartition(":")[2]
            return self._answer(307, b"", {"Location": f"http://localhost:{port}/signed{self.path}"})
        status, headers = 200, {"Docker-Content-Digest": found["digest"]}
        ranged = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if ranged and self.registry.ranges:
            first, last = int(ranged[1]), int(ranged[2])
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[first : last + 1]
        if fault and fault.kind == "flip":
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        return self._answer(status, content, headers, cut=bool(fault and fault.kind == "cut"))

    def _begin(self, found: re.Match[str], query: dict[str, str], body: bytes, _: Fault | None) -> None:
        name, mounted = found["name"], (query.get("from", ""), query.get("mount", ""))
        if mounted in self.registry.blobs:
            self.registry.blobs[(name, mounted[1])] = self.registry.blobs[mounted]
            return self._answer(201, b"", {"Location": f"/v2/{name}/blobs/{mounted[1]}"})
        session = uuid.uuid4().hex
        self.registry.uploads[session] = bytearray()
        # With a query of its own, as registries do: clients have to add to it.
        return self._answer(202, b"", {"Location": f"/v2/{name}/blobs/uploads/{session}?state=x"})

    def _send(self, found: re.Match[str], query: dict[str, str], body: bytes, _: Fault | None) -> None:
        upload = self.registry.uploads.get(found["session"])
        if upload is None:
            return self._refuse(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        if not upload:
            upload += body  # of a second PATCH nothing is kept, as with ECR
        place = f"/v2/{found['name']}/blobs/uploads/{found['session']}?state=y"
        if self.command == "PATCH":
            return self._answer(201, b"", {"Location": place, "Range": f"0-{len(upload) - 1}"})
        digest = query.get("digest", "")
        if f"sha256:{hashlib.sha256(upload).hexdigest()}" != digest:
            return self._refuse(400, "DIGEST_INVALID", "the content has another digest")
        self.registry.blobs[(found["name"], digest)] = bytes(upload)
        del self.registry.uploads[found["session"]]
        return self._answer(201, b"", {"Location": f"/v2/{found['name']}/blobs/{digest}"})

    def _manifest(
        self, found: re.Match[str], query: dict[str, str], body: bytes, fault: Fault | None
    ) -> None:
        registry, name, tag = self.registry, found["name"], found["reference"]
        if self.command != "PUT":
            content = registry.manifests.get((name, tag))
            if content is None:
                return self._refuse(404, "MANIFEST_UNKNOWN", "no such manifest")
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            if fault and fault.kind == "flip":
                content = content.replace(b'"size":', b'"size" :', 1)
            kind = json.loads(content)["mediaType"]
            return self._answer(200, content, {"Content-Type": kind, "Docker-Content-Digest": digest})
        document = json.loads(body)
        for item in [document["config"], *document["layers"]]:
            there = registry.blobs.get((name, item["digest"]))
            if there is None or len(there) != item["size"]:
                return self._refuse(400, "MANIFEST_BLOB_UNKNOWN", item["digest"])
        if registry.immutable and registry.manifests.get((name, tag), body) != body:
            return self._refuse(400, "TAG_INVALID", "The tag is immutable.")
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        registry.manifests[(name, tag)] = registry.manifests[(name, digest)] = body
        return self._answer(201, b"", {"Docker-Content-Digest": digest})

    def _tags(self, found: re.Match[str], query: dict[str, str], body: bytes, _: Fault | None) -> None:
        names = sorted(tag for name, tag in self.registry.manifests if name == found["name"])
        tags = [tag for tag in names if ":" not in tag]
        self._answer(200, json.dumps({"name": found["name"], "tags": tags}).encode())

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self._answer(
            status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(), headers or {}
        )

    def _answer(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.wfile.flush()
            self._reset()

    def _reset(self) -> None:
        # Linger of zero: the peer sees a reset, not an orderly end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


_ROUTES: list[tuple[str, Any]] = [
    (r"(?:/signed)?/v2/(?P<name>.+)/blobs/(?P<digest>sha256:[0-9a-f]{64})", _Handler._blob),
    (r"/v2/(?P<name>.+)/blobs/uploads/", _Handler._begin),
    (r"/v2/(?P<name>.+)/blobs/uploads/(?P<session>[0-9a-f]+)", _Handler._send),
    (r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)", _Handler._manifest),
    (r"/v2/(?P<name>.+)/tags/list", _Handler._tags),
]
