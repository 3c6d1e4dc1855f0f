"""An API server that has bad moments: answers as it is told, and cuts connections."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainyard.kube.cluster import Cluster

Answer = tuple[int, dict[str, str], Any] | None  # None: the connection is cut


@dataclass
class Moody:
    """An API server that answers as it was told, then with `then`."""

    answers: list[Answer] = field(default_factory=list)
    then: Answer = (200, {}, {"kind": "Pod"})
    seen: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    url: str = ""

    def cluster(self, attempts: int = 4) -> Cluster:
        from kubernetes import client

        api = client.ApiClient(client.Configuration(host=self.url))
        return Cluster(api, attempts=attempts, sleep=self.slept.append)


@pytest.fixture
def moody() -> Iterator[Moody]:
    mood = Moody()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            mood.seen.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = mood.answers.pop(0) if mood.answers else mood.then
            if answer is None:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(2)
                return
            status, headers, body = answer
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PATCH = do_POST = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    mood.url = f"http://127.0.0.1:{server.server_port}"
    yield mood
    server.shutdown()
    server.server_close()


def kubeconfig_of(moody: Moody, folder: Path) -> Path:
    """A kubeconfig that leads to it."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": moody.url}}],
        "users": [{"name": "x", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path
