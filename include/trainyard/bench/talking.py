"""What the users of one load generator share, and the conversations that they hold.

Imported only where gevent has patched the standard library (`locustfile`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from trainyard.bench.exchange import Exchange
from trainyard.bench.health import Lag
from trainyard.bench.hub import read_in_hub
from trainyard.bench.script import Dialogue, Script
from trainyard.bench.workload import Workload, order


class Run:
    """What all users share."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.seed: int = document["seed"]
        self.model: str = document["model"]
        self.workload = Workload.from_dict(document["workload"])
        self.arms: dict[str, list[str]] = document["arms"]
        self.addresses = {arm: itertools.cycle(urls) for arm, urls in self.arms.items()}
        self.script = Script(self.workload, self.seed)
        # Several processes share one run: each takes every nth conversation.
        self.shard, self.shards = int(document.get("shard", 0)), int(document.get("shards", 1))
        self.go = Path(document["go"])
        self.halt = Path(document["halt"]) if document.get("halt") else None
        self.talks = itertools.count(self.shard, self.shards)
        self.users = itertools.count(self.shard, self.shards)
        self.gone = False
        self.scheduled: int | None = None
        self.busy = 0
        # One line a request, at once: what was measured survives a crash. Closed with the process.
        self.samples = open(document["samples"], "a", buffering=1)  # noqa: SIM115
        self.generator = Path(document["generator"])
        self.lag = Lag(gevent.sleep)
        self.ending: gevent.Greenlet | None = None
        self.over = Event()  # nothing new is asked


class Talk:
    """A conversation with every arm: the same questions, and in what follows each arm's own answers."""

    def __init__(self, run: Run, conversation: int) -> None:
        self._run = run
        self.conversation = conversation
        self.number = 0  # of the next turn; of the last one while it is answered
        self.goes_on = True
        path = run.workload.path
        self._urls = {arm: next(urls).rstrip("/") + path for arm, urls in run.addresses.items()}
        self._dialogues = {arm: Dialogue() for arm in run.arms}
        self._asked: list[tuple[str, Exchange]] = []

    @property
    def pair(self) -> int:
        return self.conversation * self._run.script.turns + self.number

    def ask(self) -> list[tuple[str, Exchange]]:
        """The next turn: an exchange for each arm with the same question, in an order of chance."""
        run, workload = self._run, self._run.workload
        turn = run.script.turn(self.conversation, self.number)
        self._asked = []
        for arm in order(sorted(run.arms), f"{run.seed}/{turn.pair}"):
            messages = self._dialogues[arm].ask(turn)
            payload = workload.payload(run.model, messages, turn.output_tokens)
            exchange = Exchange(self._urls[arm], payload, timeout=workload.timeout_seconds, read=read_in_hub)
            self._asked.append((arm, exchange))
        return self._asked

    def hear(self) -> None:
        """Every arm has answered. No arm goes on without the others: what is compared was asked of all."""
        self.goes_on = self.number + 1 < self._run.script.turns and all(one.ok for _, one in self._asked)
        if self.goes_on:
            for arm, exchange in self._asked:
                self._dialogues[arm].hear(exchange.text)
            self.number += 1
