"""The route that is there before any model: what the Gateway's bare address answers, by a real Traefik."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import aiohttp
from kubernetes import client

from tests.local.apiserver.test_traefik import PATIENCE, backends, describe_gateway, traefik
from tests.support.manifests import of_kind, rendered

__all__ = ["backends", "traefik"]
GROUP, VERSION = "gateway.networking.k8s.io", "v1"


async def test_the_bare_address_leads_to_airflow_and_every_other_path_stays_the_models(
    api: client.ApiClient, namespace: str, traefik: tuple[int, Path], backends: list[int]
) -> None:
    port, log = traefik
    base = of_kind(rendered("base"), "HTTPRoute")["trainyard.base"]
    base["metadata"]["namespace"] = namespace
    base["spec"]["parentRefs"] = [{"name": "g"}]
    custom = client.CustomObjectsApi(api)
    # Another test of this server may have left its own: there is one class for all of a cluster.
    with contextlib.suppress(client.ApiException):
        custom.delete_cluster_custom_object(GROUP, VERSION, "gatewayclasses", "traefik")
    await asyncio.to_thread(describe_gateway, api, namespace, port, backends)
    create = custom.create_namespaced_custom_object
    await asyncio.to_thread(create, GROUP, VERSION, namespace, "httproutes", base)
    async with aiohttp.ClientSession() as session:
        deadline = time.monotonic() + PATIENCE

        async def answered(path: str, status: int) -> tuple[str, str]:
            """Where it leads and what it says, once it is answered like this."""
            while True:
                assert time.monotonic() < deadline, log.read_text()
                with contextlib.suppress(aiohttp.ClientError):  # Traefik is on its way
                    async with session.get(f"http://127.0.0.1:{port}{path}", allow_redirects=False) as answer:
                        if answer.status == status:
                            return answer.headers.get("Location", ""), await answer.text()
                await asyncio.sleep(0.1)

        assert (await answered("/", 302))[0].startswith("https://airflow.example.com")
        assert await answered("/tiny-llama/v1/models", 200) == ("", str(backends[0]))

    def accepted() -> bool:
        route = custom.get_namespaced_custom_object(GROUP, VERSION, namespace, "httproutes", "trainyard.base")
        parents = route.get("status", {}).get("parents", [])
        found = [each for parent in parents for each in parent["conditions"]]
        return {"Accepted": "True"}.items() <= {each["type"]: each["status"] for each in found}.items()

    while not await asyncio.to_thread(accepted):
        assert time.monotonic() < deadline, log.read_text()
        await asyncio.sleep(0.1)
    await asyncio.to_thread(custom.delete_cluster_custom_object, GROUP, VERSION, "gatewayclasses", "traefik")
