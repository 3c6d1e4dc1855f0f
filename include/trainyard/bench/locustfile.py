"""What Locust runs: users that ask canary and baseline in turn and keep every raw sample.

Locust imports this file by its path. The run is described by the JSON file that TRAINYARD_LOAD names:
`{"seed", "model", "arms": {name: [url, ...]}, "workload": {...}, "samples": path, "generator": path}`.
Locust's own statistics work (one event a request) and are not used: their percentiles are rounded.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from locust import User, constant, events, task
from locust.env import Environment
from locust.exception import StopUser

from trainyard.bench.exchange import Exchange
from trainyard.bench.health import Lag
from trainyard.bench.hub import read_in_hub
from trainyard.bench.workload import Workload, order, prompt

FAILURE_SECONDS = 0.1  # that a failed request takes at least


class Run:
    """What all users share."""

    def __init__(self, document: dict[str, Any], environment: Environment) -> None:
        self.environment = environment
        self.seed: int = document["seed"]
        self.model: str = document["model"]
        self.workload = Workload.from_dict(document["workload"])
        self.arms: dict[str, list[str]] = document["arms"]
        self.addresses = {arm: itertools.cycle(urls) for arm, urls in self.arms.items()}
        self.pairs = itertools.count()
        self.users = itertools.count()
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


def prepare(environment: Environment, **_: object) -> None:
    global run
    run = Run(json.loads(Path(os.environ["TRAINYARD_LOAD"]).read_text()), environment)


def watch_generator(environment: Environment, **_: object) -> None:
    # gevent resolves names in a pool of threads: start them now, or the first requests pay for it.
    for url in itertools.chain.from_iterable(run.arms.values()):
        with contextlib.suppress(OSError):  # the request will say it better
            socket.getaddrinfo(urlsplit(url).hostname, None)
    run.lag = Lag(gevent.sleep)
    gevent.spawn(run.lag.run)


def end_on_time(user_count: int, **_: object) -> None:
    # Locust's own --run-time knows whole seconds only, and counts the ramp.
    if run.ending is None:
        run.ending = gevent.spawn_later(run.workload.duration_seconds, run.quit)


def record_generator(environment: Environment, **_: object) -> None:
    run.generator.write_text(json.dumps(run.lag.reading()))


hooks: Any = events  # Locust's hooks carry no types
hooks.init.add_listener(prepare)
hooks.test_start.add_listener(watch_generator)
hooks.spawning_complete.add_listener(end_on_time)
hooks.test_stop.add_listener(record_generator)


class Asker(User):
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
        text = prompt(run.workload.prompt_tokens, f"{run.seed}/{pair}")
        for arm in order(sorted(run.arms), f"{run.seed}/{pair}"):
            self.ask(arm, pair, text)

    def ask(self, arm: str, pair: int, text: str) -> None:
        url = next(run.addresses[arm]).rstrip("/") + run.workload.path
        exchange = Exchange(
            url,
            run.workload.payload(run.model, text),
            timeout=run.workload.timeout_seconds,
            read=read_in_hub,
        )
        intended = exchange.started
        try:
            exchange.run()
        finally:  # also when Locust kills this greenlet: a request in flight is counted as censored
            sample = exchange.sample(arm=arm, pair=pair, run=run.seed, user=self.number, intended=intended)
            run.samples.write(json.dumps(sample.to_row(), separators=(",", ":")) + "\n")
            self.environment.events.request.fire(
                request_type=arm,
                name=run.workload.path,
                response_time=(sample.e2e or 0.0) * 1000,
                response_length=len(exchange.text),
                exception=None if sample.ok else RuntimeError(f"{sample.error}: {sample.detail}"),
                context={},
            )
        # A server that refuses at once would be asked thousands of times a second: clients back off.
        if not sample.ok:
            gevent.sleep(max(0.0, FAILURE_SECONDS - (sample.e2e or 0.0)))
