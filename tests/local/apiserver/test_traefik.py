"""Traefik's Gateway API provider against the local API server."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kubernetes import client

from tests.local.apiserver.conftest import TOKEN, Server
from tests.support.ports import reserved_port
from tests.support.processes import stop

GROUP, VERSION = "gateway.networking.k8s.io", "v1"
PATIENCE = 90.0


class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        text = str(self.server.server_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def backends() -> Iterator[list[int]]:
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [s.server_address[1] for s in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def traefik(server: Server, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    binary = shutil.which("traefik", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if binary is None:
        pytest.skip("traefik is not installed")
    log = tmp_path / "traefik.log"
    provider = "--providers.kubernetesgateway"
    with reserved_port() as port:
        command = [
            binary,
            f"{provider}=true",
            f"{provider}.endpoint={server.url}",
            f"{provider}.token={TOKEN}",
            f"{provider}.certauthfilepath={server.certificate}",
            f"--entrypoints.web.address=127.0.0.1:{port}",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
            "--log.nocolor=true",
            f"--log.filepath={log}",
        ]
        process = subprocess.Popen(command, cwd=tmp_path, text=True)
        yield port, log
        stop(process)


def route(weights: tuple[int, int]) -> dict[str, Any]:
    refs = [{"name": f"s{i}", "port": 80, "weight": w} for i, w in enumerate(weights)]
    return {"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": refs}]}


def describe_gateway(api: client.ApiClient, namespace: str, port: int, backends: list[int]) -> None:
    core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
    for i, backend in enumerate(backends):
        name = f"s{i}"
        core.create_namespaced_service(
            namespace, {"metadata": {"name": name}, "spec": {"ports": [{"name": "http", "port": 80}]}}
        )
        labels = {"kubernetes.io/service-name": name}
        piece = {
            "metadata": {"name": f"{name}-1", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": backend}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }
        client.DiscoveryV1Api(api).create_namespaced_endpoint_slice(namespace, piece)

    def make(kind: str, plural: str, name: str, spec: dict[str, Any], where: str | None = namespace) -> None:
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}
        if where is None:
            custom.create_cluster_custom_object(GROUP, VERSION, plural, body)
        else:
            custom.create_namespaced_custom_object(GROUP, VERSION, where, plural, body)

    make(
        "GatewayClass", "gatewayclasses", "traefik", {"controllerName": "traefik.io/gateway-controller"}, None
    )
    listener = {"name": "web", "port": port, "protocol": "HTTP"}
    make("Gateway", "gateways", "g", {"gatewayClassName": "traefik", "listeners": [listener]})
    make("HTTPRoute", "httproutes", "r", route((1, 0)))


def is_programmed(api: client.ApiClient, namespace: str) -> bool:
    gateway = client.CustomObjectsApi(api).get_namespaced_custom_object(
        GROUP, VERSION, namespace, "gateways", "g"
    )
    conditions = gateway.get("status", {}).get("conditions", [])
    return any(c["type"] == "Programmed" and c["status"] == "True" for c in conditions)


async def test_traefik_follows_the_weights_of_a_route(
    api: client.ApiClient, namespace: str, traefik: tuple[int, Path], backends: list[int]
) -> None:
    port, log = traefik
    await asyncio.to_thread(describe_gateway, api, namespace, port, backends)
    async with aiohttp.ClientSession() as session:

        async def answers_from(backend: int) -> bool:
            try:
                async with session.get(f"http://127.0.0.1:{port}/") as answer:
                    return answer.status == 200 and await answer.text() == str(backend)
            except aiohttp.ClientError:
                return False

        async def comes_to(backend: int) -> None:
            deadline = time.monotonic() + PATIENCE
            while not await answers_from(backend):
                assert time.monotonic() < deadline, log.read_text()
                await asyncio.sleep(0.1)

        custom = client.CustomObjectsApi(api)

        async def change(spec: dict[str, Any]) -> None:
            patch = {"spec": spec}
            await asyncio.to_thread(
                custom.patch_namespaced_custom_object, GROUP, VERSION, namespace, "httproutes", "r", patch
            )

        async def leads_nowhere() -> None:
            deadline = time.monotonic() + PATIENCE
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{port}/") as answer:
                        if answer.status == 404:
                            return
                assert time.monotonic() < deadline, log.read_text()
                await asyncio.sleep(0.1)

        await comes_to(backends[0])
        # Each kind has a watch of its own: a route may be seen before what it leads to.
        early = [line for line in log.read_text().splitlines() if "Unable to load HTTPRoute backend" in line]
        await change(route((0, 1)))
        await comes_to(backends[1])
        # As a model's route is before its first release, and after the roll back of that.
        await change({"parentRefs": [], "rules": [{"matches": [{"path": {"value": "/model"}}]}]})
        await leads_nowhere()
        await change(route((1, 0)))
        await comes_to(backends[0])
    deadline = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(is_programmed, api, namespace):
        assert time.monotonic() < deadline, log.read_text()
        await asyncio.sleep(0.1)
    failures = [line for line in log.read_text().splitlines() if " ERR " in line or "Failed to watch" in line]
    assert [line for line in failures if line not in early] == []
