"""What Locust runs: users that ask canary and baseline in turn and keep every raw sample.

Locust imports this file by its path. The run is described by the JSON file that TRAINYARD_LOAD names:
`{"seed", "model", "arms": {name: [url, ...]}, "workload": {...}, "shard": n, "shards": n, "samples": path,
"generator": path, "go": path, "halt": path}`. A process that is ready makes `ready-<shard>` beside `go`, and
begins at the monotonic time that it then finds in `go`; it ends early once there is `halt`.
Locust's own statistics work (one event a request) and are not used: their percentiles are rounded.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import math
import os
import socket
import time
from collections import deque
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
from trainyard.bench.stamps import stamps
from trainyard.bench.talking import Run, Talk
from trainyard.bench.ticker import Ticker

FAILURE_SECONDS = 0.1  # that a failed request takes at least
AHEAD = 64  # requests that are made before their time
SPARE_SECONDS = 0.002  # that must be left for making one
HEED_SECONDS = 0.2  # between two looks whether the run is to end early

run: Run
locust: Environment
hooks: Any = events  # Locust's hooks carry no types


def prepare(environment: Environment, **_: object) -> None:
    global run, locust
    run, locust = Run(json.loads(Path(os.environ["TRAINYARD_LOAD"]).read_text())), environment


def watch_generator(environment: Environment, **_: object) -> None:
    # gevent resolves names in a pool of threads: start them now, or the first requests pay for it.
    for url in itertools.chain.from_iterable(run.arms.values()):
        with contextlib.suppress(OSError):  # the request will say it better
            socket.getaddrinfo(urlsplit(url).hostname, None)
    stamps()  # finds out whether the kernel stamps
    # What Locust has loaded stays: looking through it for garbage would stop every stream for a moment.
    gc.collect()
    gc.freeze()
    run.lag = Lag(gevent.sleep)
    gevent.spawn(run.lag.run)
    if run.halt is not None:
        gevent.spawn(heed_halt, run.halt)


def end_on_time(user_count: int, **_: object) -> None:
    # Locust's own --run-time knows whole seconds only, and counts the ramp. An open loop ends by itself.
    if run.ending is None and run.workload.arrivals is None:
        run.ending = gevent.spawn(end_after_duration)


def heed_halt(halt: Path) -> None:
    while not halt.exists():
        gevent.sleep(HEED_SECONDS)
    run.over.set()  # the schedule of an open loop is at its end
    if run.workload.arrivals is None:
        end_run()


def end_run() -> None:
    """Let the users finish the pair that they are at, then end Locust."""
    run.over.set()
    if locust.runner:
        locust.runner.quit()


def end_after_duration() -> None:
    gevent.sleep(max(0.0, wait_for_go() + run.workload.duration_seconds - time.monotonic()))
    end_run()


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
        gevent.sleep(max(0.0, wait_for_go() - time.monotonic()))

    def on_stop(self) -> None:
        run.busy -= 1

    @task
    def ask_all_arms(self) -> None:
        """A conversation, or a single pair: the same question to every arm, one after the other."""
        if run.over.is_set():  # between two tasks a user that Locust is about to kill may still come here
            raise StopUser
        talk, cap = Talk(run, next(run.talks)), run.workload.requests
        if cap is not None and talk.pair >= cap:
            if run.busy == 1:
                gevent.spawn(end_run)
            raise StopUser
        while talk.goes_on and (cap is None or talk.pair < cap):
            if talk.number and run.over.wait(run.script.think(talk.conversation, talk.number)):
                return
            for arm, exchange in talk.ask():
                intended = exchange.started = time.monotonic()
                ok, took = ask(talk, arm, exchange, intended, self.number)
                # A server that refuses at once would be asked thousands of times a second: clients back off.
                if not ok:
                    gevent.sleep(max(0.0, FAILURE_SECONDS - took))
            talk.hear()


class Scheduler(User):
    """The open loop: one of these sends by the schedule, whatever comes back."""

    wait_time = constant(0)

    @task
    def send_all(self) -> None:
        schedule = run.workload.schedule
        assert schedule is not None
        # A cap of requests is one of conversations here, and is looked at again by those.
        cap = run.workload.requests
        moments = schedule.schedule(run.seed)[: cap and math.ceil(cap / run.script.turns)]
        own = moments[run.shard :: run.shards]
        run.scheduled = len(own) * len(run.arms)
        # Requests are made ahead of their time, while nothing is due: a burst would wait for the making.
        upcoming = (_made(Talk(run, number), moment) for number, moment in zip(run.talks, own))  # noqa: B905
        ahead = deque(itertools.islice(upcoming, AHEAD))
        start = wait_for_go()
        end = start + schedule.seconds
        in_flight, ticker, sent = Group(), Ticker(), 0
        while ahead:
            talk, moment, ready = ahead.popleft()
            intended = start + moment
            # A long pause is over as soon as the run is; the ticker is exact, and heeds nothing.
            spare = intended - time.monotonic() - HEED_SECONDS
            if spare <= 0 or not run.over.wait(spare):
                ticker.sleep_until(intended)
            if run.over.is_set():
                end = time.monotonic()
                run.scheduled -= len(own[sent:]) * len(run.arms)
                break
            sent += 1
            asked = [
                in_flight.spawn(ask, talk, arm, exchange, intended, run.shard) for arm, exchange in ready
            ]
            if run.script.turns > 1:
                in_flight.spawn(talk_on, talk, asked, end, in_flight)
            gevent.sleep(0)  # they start
            while not ahead or (
                len(ahead) < AHEAD and start + ahead[0][1] - time.monotonic() > SPARE_SECONDS
            ):
                following = next(upcoming, None)
                if following is None:
                    break
                ahead.append(following)
        ticker.close()
        talking = max(0.0, end - time.monotonic()) if run.script.turns > 1 else 0.0
        in_flight.join(timeout=talking + run.workload.drain)
        run.over.set()
        gevent.sleep(0)  # what was due has begun: killed before that, it would leave no sample
        in_flight.kill()  # what has not ended is counted as censored
        gevent.spawn(end_run)
        raise StopUser


def _made(talk: Talk, moment: float) -> tuple[Talk, float, list[tuple[str, Exchange]]]:
    return talk, moment, talk.ask()


def talk_on(talk: Talk, asked: list[gevent.Greenlet], end: float, in_flight: Group) -> None:
    """The turns of an open loop's conversation after the first: each is due when every arm has answered the
    one before it and the user has thought; what is not due before the end of the run is not asked."""
    assert run.scheduled is not None
    cap = run.workload.requests
    while True:
        gevent.joinall(asked)
        intended = time.monotonic()
        talk.hear()
        if not talk.goes_on or (cap is not None and talk.pair >= cap):
            return
        intended += run.script.think(talk.conversation, talk.number)
        if intended >= end or run.over.is_set():
            return
        ready = talk.ask()
        if run.over.wait(max(0.0, intended - time.monotonic())) or run.over.is_set():
            return
        run.scheduled += len(ready)
        asked = [in_flight.spawn(ask, talk, *one, intended, run.shard) for one in ready]


def wait_for_go() -> float:
    """When the run begins, on the machine's monotonic clock; all processes begin together."""
    run.go.with_name(f"ready-{run.shard}").touch()
    while not run.go.exists():
        gevent.sleep(0.01)
    start = float(run.go.read_text())
    if not run.gone:  # waiting costs nothing: it is not to make the generator look idle
        run.gone = True
        gevent.spawn_later(max(0.0, start - time.monotonic()), run.lag.restart)
    return start


def ask(talk: Talk, arm: str, exchange: Exchange, intended: float, user: int) -> tuple[bool, float]:
    """Runs it and keeps its sample. Returns whether it succeeded, and the seconds that it took."""
    pair, turn = talk.pair, talk.number
    if run.script.turns > 1:  # whoever began the conversation goes on with it
        user = talk.conversation
    try:
        exchange.run()
    finally:  # also when this greenlet is killed: a request in flight is counted as censored
        sample = exchange.sample(arm=arm, pair=pair, run=run.seed, user=user, turn=turn, intended=intended)
        run.samples.write(sample.to_line() + "\n")
        hooks.request.fire(
            request_type=arm,
            name=run.workload.path,
            response_time=(sample.e2e or 0.0) * 1000,
            response_length=len(exchange.text),
            exception=None if sample.ok else RuntimeError(f"{sample.error}: {sample.detail}"),
            context={},
        )
    return sample.ok, sample.e2e or 0.0
