"""From the first listening socket to the last byte of the last stream."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable

from aiohttp import web

from local.shims.faults import Faults
from local.shims.server.app import Server
from local.shims.server.engine import Engine
from local.shims.server.heartbeat import beat, state_file
from local.shims.server.loading import Loaded
from local.shims.server.timing import TimingModel
from local.shims.versions import Stack

# How long connections that are open stay open for a request on its way when shutdown begins: a proxy that
# reuses one has not seen the close yet.
LINGER_SECONDS = 0.5


def serve(
    given: argparse.Namespace,
    installed: Stack,
    loaded: Loaded,
    knobs: Faults,
    server_type: Callable[..., Server] = Server,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight."""
    asyncio.run(_serve(given, installed, loaded, knobs, server_type))


def address(host: str | None) -> str:
    """Where to listen: all interfaces of the pod's network are its one loopback address here."""
    if host in (None, "", "0.0.0.0", "::"):
        return os.environ.get("LOCAL_POD_IP", "127.0.0.1")
    return str(host)


async def _serve(
    given: argparse.Namespace,
    installed: Stack,
    loaded: Loaded,
    knobs: Faults,
    server_type: Callable[..., Server],
) -> None:
    names = given.served_model_name or [given.model]
    metrics = loaded.make_metrics(names[0], loaded.max_model_len)
    if installed.vllm:
        metrics.of_release(installed.vllm_release)
    engine = Engine(
        TimingModel(slow=knobs.slow),
        metrics,
        max_num_seqs=loaded.max_num_seqs,
        max_model_len=loaded.max_model_len,
    )
    engine.stuck = knobs.never_ready
    server = server_type(
        engine,
        metrics,
        names,
        given.model,
        loaded.digest,
        installed.vllm,
        knobs,
        api_key=given.api_key,
        runs=loaded.runs,
        eyes=loaded.eyes,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tasks = [
        asyncio.create_task(engine.run()),
    ]
    if loaded.cores:  # a server without devices is none of neuron-monitor's runtimes
        beating = beat(
            engine, cores=loaded.cores, device_bytes=loaded.device_bytes, errors=knobs.neuron_error
        )
        tasks.append(asyncio.create_task(beating))
    runner = web.AppRunner(server.app(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, address(given.host), given.port, backlog=1024)
    await site.start()
    server.announce(given.host or "0.0.0.0", given.port)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    await _drain(server, site, runner, getattr(given, "shutdown_timeout", None))
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    state_file(os.getpid()).unlink(missing_ok=True)
    server.say_stopped()
    for result in ended:
        if isinstance(result, Exception):
            raise result


async def _drain(server: Server, site: web.TCPSite, runner: web.AppRunner, timeout: int | None) -> None:
    """Take no new connection, answer what is in flight and what is on its way, then close."""
    server.say_stopping()
    server.draining = True
    began = time.monotonic()
    await site.stop()
    while server.active or time.monotonic() - max(server.last_request, began) < LINGER_SECONDS:
        if timeout and time.monotonic() - began > timeout:
            break
        await asyncio.sleep(0.02)
    with contextlib.suppress(asyncio.CancelledError):
        await runner.cleanup()
