"""When the provisioner looks again."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from local.client.events import Recorder
from local.client.informer import Cache, Informer
from local.client.kinds import NODECLAIMS, NODEPOOLS, NODES, PODS
from local.karpenter import provisioner
from local.karpenter.provisioner import Provisioner, Timings, Unavailable


async def test_an_offering_that_opens_during_a_look_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api: Any = None
    cache, unavailable, clock, again = Cache(api), Unavailable(60.0), [0.0], asyncio.Event()
    monkeypatch.setattr(provisioner, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    for kind in (PODS, NODES, NODEPOOLS, NODECLAIMS):
        cache._informers[kind] = Informer(api, kind)
        cache._informers[kind].synced.set()

    class Slow(Provisioner):
        async def _provision(self) -> None:
            if unavailable.has("pool", "trn2.3xlarge"):
                clock[0] = 61.0
            else:
                again.set()

    one = Slow(cache, Recorder(api, "tests"), Timings(batch=0.0), unavailable)
    unavailable.mark("pool", ["trn2.3xlarge"])
    one._wake.set()
    task = asyncio.create_task(one.run())
    await asyncio.wait_for(again.wait(), 60)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
