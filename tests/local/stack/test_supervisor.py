"""The supervisor with small processes in place of the real services."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from local.stack import leftovers
from local.stack.home import MARKER, Home
from local.stack.service import Part, Probe, Service, Step, UnknownService, select
from local.stack.supervisor import StartFailed, Supervisor

PATIENCE_SECONDS = 120.0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.create()
    return home


def exists(path: Path) -> Probe:
    async def probe(started: float) -> bool:
        return path.exists()

    return probe


def service(home: Home, name: str, code: str = "", needs: tuple[str, ...] = (), **options: Any) -> Service:
    """A process that runs `code`, writes a file `NAME`, notes its end in `order`, and stays."""
    mark = home.root / name
    whole = f"""
import os, pathlib, signal, subprocess, sys, time
def stop(*_):
    with open({str(home.root / "order")!r}, "a") as order: order.write("stop {name}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
with open({str(home.root / "order")!r}, "a") as order: order.write("start {name}\\n")
{code}
pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))
while True: time.sleep(0.05)
"""

    async def prepare() -> None:
        mark.unlink(missing_ok=True)

    command = (sys.executable, "-c", whole)
    return Service(name, command, ready=exists(mark), needs=needs, prepare=prepare, **options)


def supervisor(home: Home, *parts: Part) -> Supervisor:
    return Supervisor(home, parts, {**os.environ, MARKER: home.id}, {"endpoints": {}})


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


async def during(running: Supervisor, story: Callable[[], Awaitable[None]]) -> None:
    """Run until ready, then the story, then stop."""
    task = asyncio.create_task(running.run())
    try:
        await until(lambda: running.state == "ready" or task.done())
        if not task.done():
            await story()
    finally:
        running.stop()
        await task


def lines(home: Home) -> list[str]:
    return (home.root / "order").read_text().splitlines()


async def nothing() -> None: ...


async def test_parts_start_after_what_they_need_and_stop_before_it(home: Home) -> None:
    parts = (service(home, "third", needs=("second",)), service(home, "first"))
    parts = (*parts, service(home, "second", needs=("first",)))

    await during(supervisor(home, *parts), nothing)

    starts = [f"start {name}" for name in ("first", "second", "third")]
    assert lines(home) == [*starts, "stop third", "stop second", "stop first"]
    assert home.read_state()["state"] == "stopped"


async def test_a_killed_service_comes_back_and_is_counted(home: Home) -> None:
    running = supervisor(home, service(home, "one"))

    async def story() -> None:
        before = home.read_state()["services"]["one"]["pid"]
        psutil.Process(before).kill()
        await until(lambda: home.read_state()["services"]["one"]["restarts"] == 1)
        await until(lambda: home.read_state()["services"]["one"]["state"] == "ready")
        assert home.read_state()["services"]["one"]["pid"] != before

    await during(running, story)


async def test_a_step_is_repeated_for_a_service_that_has_forgotten(home: Home) -> None:
    done: list[str] = []

    async def tell() -> None:
        done.append("told")

    steps = (Step("tell", tell, needs=("one",), repeats=True), Step("once", tell, needs=("one",)))
    running = supervisor(home, service(home, "one"), *steps)

    async def story() -> None:
        assert len(done) == 2
        psutil.Process(home.read_state()["services"]["one"]["pid"]).kill()
        await until(lambda: len(done) == 3)
        await until(lambda: home.read_state()["services"]["tell"]["state"] == "done")

    await during(running, story)


async def test_what_a_killed_service_left_is_ended_but_for_what_it_spares(home: Home) -> None:
    code = """
for word in ("idle", "busy"):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", word])
"""
    running = supervisor(home, service(home, "one", code, spares=lambda process: "busy" in process.cmdline()))

    async def story() -> None:
        leader = psutil.Process(home.read_state()["services"]["one"]["pid"])
        children = {child.cmdline()[-1]: child for child in leader.children()}
        leader.kill()
        await until(lambda: leftovers.is_gone(children["idle"]))
        assert not leftovers.is_gone(children["busy"])

    await during(running, story)

    assert leftovers.marked(home) == []


async def test_a_service_that_never_starts_is_named_with_its_last_words(home: Home) -> None:
    bad = service(home, "bad", "sys.exit('no such database')", needs=("good",))
    running = supervisor(home, service(home, "good"), bad)

    with pytest.raises(StartFailed, match=r"(?s)bad did not come up: exited with status 1.*no such database"):
        await during(running, nothing)

    assert home.read_state()["state"] == "failed"
    assert "stop good" in lines(home)


async def test_a_service_that_never_gets_ready_is_given_up(home: Home) -> None:
    running = supervisor(home, service(home, "slow", "time.sleep(600)", ready_seconds=0.5))

    with pytest.raises(StartFailed, match="slow did not come up: not ready after"):
        await during(running, nothing)


async def test_a_step_that_fails_stops_the_start(home: Home) -> None:
    async def refuse() -> None:
        raise RuntimeError("the disk is full")

    later = service(home, "later", needs=("migrate",))
    with pytest.raises(StartFailed, match="migrate did not come up: the disk is full"):
        await during(supervisor(home, Step("migrate", refuse), later), nothing)

    assert not (home.root / "later").exists()


async def test_a_service_that_ignores_the_signal_is_killed(home: Home) -> None:
    deaf = service(home, "deaf", "signal.signal(signal.SIGTERM, signal.SIG_IGN)", stop_seconds=0.3)
    running = supervisor(home, deaf)
    found: list[psutil.Process] = []

    async def story() -> None:
        found.append(psutil.Process(home.read_state()["services"]["deaf"]["pid"]))

    await during(running, story)

    await until(lambda: leftovers.is_gone(found[0]))  # killed, if not reaped yet
    assert home.read_state()["state"] == "stopped"


def test_a_choice_of_services_brings_what_they_need(home: Home) -> None:
    parts = (service(home, "a"), service(home, "b", needs=("a",)), service(home, "c"))

    assert [part.name for part in select(parts, ("b",))] == ["a", "b"]
    with pytest.raises(UnknownService, match="no service is called 'd'; there are a, b, c"):
        select(parts, ("d",))
