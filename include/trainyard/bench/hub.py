"""Reads answers in gevent's hub: a callback for each arrival, no greenlet wakes up until the answer's end.

A greenlet that calls `recv` with a deadline pays for a watcher, a timer and two switches every time. Imported
only where gevent has patched the standard library (`locustfile`).
"""

from __future__ import annotations

import socket
import ssl

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

    def arrived() -> None:
        try:
            data = receive(RECEIVE_BYTES)
            now = clock()
            if data:
                if not feed(data, now):
                    return
            else:
                answer.close()
            watcher.stop()
            waiter.switch(None)
        except BlockingIOError:
            return
        except Exception as error:  # for the greenlet that asked: the hub would only print it
            watcher.stop()
            waiter.switch(error)

    def late() -> None:
        watcher.stop()
        waiter.switch(TimeoutError())

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
