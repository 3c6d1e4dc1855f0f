"""What Locust runs: users that ask canary and baseline in turn and keep every raw sample.

Locust imports this file by its path. The run is described by the JSON file that TRAINYARD_LOAD names:
`{"seed", "model", "arms": {name: [url, ...]}, "workload": {...}, "samples": path, "generator": path}`.
Locust's own statistics work (one event a request) and are not used: their percentiles are rounded.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent.pool import Group
from locust import User, constant, events, task
from locust.env import Environment
from locust.exception import StopUser

from trainyard.bench.exchange import Exchange
from trainyard.bench.health import Lag
from trainyard.bench.hub import read_in_hub
from trainyard.bench.ticker import Ticker
from trainyard.bench.workload import Workload, order, prompt

FAILURE_SECONDS = 0.1  # that a failed request takes at least
AHEAD = 64  # requests that are made before their time
SPARE_SECONDS = 0.002  # that must be left for making one
START_SECONDS = 0.1  # before the first moment of a schedule


class Run:
    """What all users share."""

    def __init__(self, document: dict[str, Any], environment: Environment) -> None:
        self.environment = environment
        self.seed: int = document["seed"]
        self.model: str = document["model"]
        self.workload = Workload.from_dict(document["workload"])
        self.arms: dict[str, list[str]] = document["arms"]
        self.addresses = {arm: itertools.cycle(urls) for arm, urls in self.arms.items()}
        # Several processes share one run: each takes every nth pair.
        self.shard, self.shards = int(document.get("shard", 0)), int(document.get("shards", 1))
        self.go = Path(document["go"]) if document.get("go") else None
        self.pairs = itertools.count(self.shard, self.shards)
        self.users = itertools.count(self.shard, self.shards)
        self.scheduled: int | None = None
        self.busy = 0
        # One line a request, at once: what was measured survives a crash. Closed with the process.
        self.samples = open(document["samples"], "a", buffering=1)  # noqa: SIM115
        self.generator = Path(document["generator"])
        self.lag = Lag(gevent.sleep)
        self.ending: gevent.Greenlet | None = None

    def quit(self) -> None:
        """Let the users finish what they are at, then end Locust."""
        if self.environment.runner:
            self.environment.runner.quit()


run: Run
hooks: Any = events  # Locust's hooks carry no types


def prepare(environment: Environment, **_: object) -> None:
    global run
    run = Run(json.loads(Path(os.environ["TRAINYARD_LOAD"]).read_text()), environment)


def watch_generator(environment: Environment, **_: object) -> None:
    # gevent resolves names in a pool of threads: start them now, or the first requests pay for it.
    for url in itertools.chain.from_iterable(run.arms.values()):
        with contextlib.suppress(OSError):  # the request will say it better
            socket.getaddrinfo(urlsplit(url).hostname, None)
    # What Locust has loaded stays: looking through it for garbage would stop every stream for a moment.
    gc.collect()
    gc.freeze()
    run.lag = Lag(gevent.sleep)
    gevent.spawn(run.lag.run)


def end_on_time(user_count: int, **_: object) -> None:
    # Locust's own --run-time knows whole seconds only, and counts the ramp. An open loop ends by itself.
    if run.ending is None and run.workload.arrivals is None:
        run.ending = gevent.spawn_later(run.workload.duration_seconds, run.quit)


def record_generator(environment: Environment, **_: object) -> None:
    scheduled = {} if run.scheduled is None else {"scheduled": run.scheduled}
    run.generator.write_text(json.dumps(run.lag.reading() | scheduled))


hooks.init.add_listener(prepare)
hooks.test_start.add_listener(watch_generator)
hooks.spawning_complete.add_listener(end_on_time)
hooks.test_stop.add_listener(record_generator)


class Asker(User):
    """The closed loop: as many of these as the workload's concurrency."""

    wait_time = constant(0)

    def on_start(self) -> None:
        self.number = next(run.users)
        run.busy += 1

    def on_stop(self) -> None:
        run.busy -= 1

    @task
    def ask_all_arms(self) -> None:
        """One pair: the same prompt to every arm, one after the other."""
        pair = next(run.pairs)
        if run.workload.requests is not None and pair >= run.workload.requests:
            if run.busy == 1:
                gevent.spawn(run.quit)
            raise StopUser
        for arm, exchange in exchanges(pair):
            intended = exchange.started = time.monotonic()
            ok, took = ask(arm, pair, exchange, intended, self.number)
            # A server that refuses at once would be asked thousands of times a second: clients back off.
            if not ok:
                gevent.sleep(max(0.0, FAILURE_SECONDS - took))


class Scheduler(User):
    """The open loop: one of these sends by the schedule, whatever comes back."""

    wait_time = constant(0)

    @task
    def send_all(self) -> None:
        schedule = run.workload.schedule
        assert schedule is not None
        moments = schedule.schedule(run.seed)[: run.workload.requests]
        own = moments[run.shard :: run.shards]
        run.scheduled = len(own) * len(run.arms)
        # Requests are made ahead of their time, while nothing is due: a burst would wait for the making.
        upcoming = ((pair, moment, list(exchanges(pair))) for pair, moment in zip(run.pairs, own))  # noqa: B905
        ahead = deque(itertools.islice(upcoming, AHEAD))
        start = wait_for_go()
        in_flight, ticker = Group(), Ticker()
        while ahead:
            pair, moment, ready = ahead.popleft()
            intended = start + moment
            ticker.sleep_until(intended)
            for arm, exchange in ready:
                in_flight.spawn(ask, arm, pair, exchange, intended, run.shard)
            gevent.sleep(0)  # they start
            while not ahead or (
                len(ahead) < AHEAD and start + ahead[0][1] - time.monotonic() > SPARE_SECONDS
            ):
                following = next(upcoming, None)
                if following is None:
                    break
                ahead.append(following)
        ticker.close()
        in_flight.join(timeout=run.workload.drain)
        in_flight.kill()  # what has not ended is counted as censored
        gevent.spawn(run.quit)
        raise StopUser


def wait_for_go() -> float:
    """When the schedule begins, on the machine's monotonic clock; all processes begin together."""
    if run.go is None:
        return time.monotonic() + START_SECONDS
    run.go.with_name(f"ready-{run.shard}").touch()
    while not run.go.exists():
        gevent.sleep(0.01)
    return float(run.go.read_text())


def exchanges(pair: int) -> Iterator[tuple[str, Exchange]]:
    """One for each arm, with the same prompt, in an order of chance."""
    text = prompt(run.workload.prompt_tokens, f"{run.seed}/{pair}")
    for arm in order(sorted(run.arms), f"{run.seed}/{pair}"):
        url = next(run.addresses[arm]).rstrip("/") + run.workload.path
        payload = run.workload.payload(run.model, text)
        yield arm, Exchange(url, payload, timeout=run.workload.timeout_seconds, read=read_in_hub)


def ask(arm: str, pair: int, exchange: Exchange, intended: float, user: int) -> tuple[bool, float]:
    """Runs it and keeps its sample. Returns whether it succeeded, and the seconds that it took."""
    try:
        exchange.run()
    finally:  # also when this greenlet is killed: a request in flight is counted as censored
        sample = exchange.sample(arm=arm, pair=pair, run=run.seed, user=user, intended=intended)
        run.samples.write(json.dumps(sample.to_row(), separators=(",", ":")) + "\n")
        hooks.request.fire(
            request_type=arm,
            name=run.workload.path,
            response_time=(sample.e2e or 0.0) * 1000,
            response_length=len(exchange.text),
            exception=None if sample.ok else RuntimeError(f"{sample.error}: {sample.detail}"),
            context={},
        )
    return sample.ok, sample.e2e or 0.0
