"""The scheduler beside an API server that takes its time, and one that hangs up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest_asyncio

from local.client.events import Recorder
from local.client.informer import Cache, Informer
from local.client.kinds import NODES, PODS, Obj
from local.controllers.scheduler import Scheduler


class Server:
    """What the scheduler asks of it; refusals are taken in once they may."""

    def __init__(self) -> None:
        self.refused, self.take_in, self.bound = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.hang_ups = 0

    async def patch(self, *_: Any, **__: Any) -> Obj:
        self.refused.set()
        await self.take_in.wait()
        return {}

    async def request(self, *_: Any, **__: Any) -> Obj:
        if self.hang_ups:
            self.hang_ups -= 1
            raise aiohttp.ServerDisconnectedError
        self.bound.set()
        return {}


@pytest_asyncio.fixture
async def server() -> Server:
    return Server()


@pytest_asyncio.fixture
async def cache(server: Server) -> AsyncIterator[Cache]:
    """Of a scheduler that runs."""
    api: Any = server
    cache = Cache(api)
    for kind in (NODES, PODS):
        cache._informers[kind] = Informer(api, kind)
        cache._informers[kind].synced.set()
    task = asyncio.create_task(Scheduler(cache, Recorder(api, "tests")).run())
    yield cache
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def pod() -> Obj:
    meta = {"namespace": "n", "name": "p", "uid": "p", "resourceVersion": "1"}
    return {"metadata": meta, "kind": "Pod", "spec": {"containers": [{"name": "c"}]}}


def node() -> Obj:
    room = {"cpu": "4", "memory": "8Gi", "pods": "10"}
    meta = {"name": "late", "uid": "late", "resourceVersion": "2"}
    return {"metadata": meta, "kind": "Node", "spec": {}, "status": {"allocatable": room}}


async def test_a_node_that_comes_while_a_pod_is_refused_gets_the_pod(server: Server, cache: Cache) -> None:
    cache.of(PODS).observe(pod())
    await asyncio.wait_for(server.refused.wait(), 60)
    cache.of(NODES).observe(node())
    server.take_in.set()
    await asyncio.wait_for(server.bound.wait(), 60)


async def test_a_pod_whose_binding_was_hung_up_on_is_bound_later(server: Server, cache: Cache) -> None:
    server.hang_ups = 1
    cache.of(NODES).observe(node())
    cache.of(PODS).observe(pod())
    await asyncio.wait_for(server.bound.wait(), 60)
