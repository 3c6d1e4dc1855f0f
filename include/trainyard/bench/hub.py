"""Reads answers in gevent's hub: a callback for each arrival, no greenlet wakes up until the answer's end.

A greenlet that calls `recv` with a deadline pays for a watcher, a timer and two switches every time. Imported
only where gevent has patched the standard library (`locustfile`).
"""

from __future__ import annotations

import socket
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import gevent
from gevent.hub import get_hub

from trainyard.bench.answer import Answer
from trainyard.bench.exchange import RECEIVE_BYTES, Clock, read_blocking

READABLE = 1


def read_in_hub(connection: socket.socket, answer: Answer, deadline: float, clock: Clock) -> None:
    """See `exchange.Reader`. The calling greenlet sleeps until the answer ends."""
    if isinstance(connection, ssl.SSLSocket):  # TLS may hold back bytes that the kernel has given already
        read_blocking(connection, answer, deadline, clock)
        return
    hub = get_hub()
    watcher = hub.loop.io(connection.fileno(), READABLE)
    waiter = gevent.hub.Waiter(hub)
    # gevent's own socket would wait; the one below it does not block, and says so.
    receive = connection._sock.recv  # type: ignore[attr-defined]
    feed = answer.feed
    inbox = _inbox(hub)

    def arrived() -> None:
        try:
            data = receive(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            end(error)
            return
        now = clock()
        if answer.learned and data:
            take(data, now)
        else:
            inbox.put(take, data, now)

    def take(data: bytes, now: float) -> None:
        try:
            if data:
                if not feed(data, now):
                    return
            else:
                answer.close()
        except Exception as error:  # for the greenlet that asked: the hub would only print it
            end(error)
            return
        end(None)

    def end(failure: Exception | None) -> None:
        if watcher.active:  # and nobody was told of an earlier end
            watcher.stop()
            waiter.switch(failure)

    def late() -> None:
        end(TimeoutError())

    left = deadline - clock()
    if left <= 0:
        raise TimeoutError
    timer = hub.loop.timer(left)
    timer.start(late)
    watcher.start(arrived)
    try:
        failure = waiter.get()
    finally:
        for one in (watcher, timer):
            one.stop()
            one.close()
    if failure is not None:
        raise failure


class Inbox:
    """Pieces of one turn of the loop that take long to read, as the first ones of every stream do.

    Many streams begin together. All that has arrived is stamped before any of it is read, or each stream
    would be late by the reading of those before it.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._pieces: list[tuple[Callable[[bytes, float], None], bytes, float]] = []

    def put(self, take: Callable[[bytes, float], None], data: bytes, now: float) -> None:
        if not self._pieces:
            self._loop.run_callback(self._hand_out)
        self._pieces.append((take, data, now))

    def _hand_out(self) -> None:
        pieces, self._pieces = self._pieces, []
        for take, data, now in pieces:
            take(data, now)


_inboxes: weakref.WeakKeyDictionary[Any, Inbox] = weakref.WeakKeyDictionary()


def _inbox(hub: Any) -> Inbox:
    """One for each hub: a process has one, but a thread of its own has its own."""
    found = _inboxes.get(hub)
    if found is None:
        found = _inboxes[hub] = Inbox(hub.loop)
    return found
