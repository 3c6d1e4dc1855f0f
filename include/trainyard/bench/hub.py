"""Reads answers in gevent's hub: a callback for each arrival, no greenlet wakes up until the answer's end.

A greenlet that calls `recv` with a deadline pays for a watcher, a timer and two switches every time. Imported
only where gevent has patched the standard library (`locustfile`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import socket
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.hub import get_hub

from trainyard.bench.exchange import RECEIVE_BYTES, Clock, Sink
from trainyard.bench.stamps import SPACE, stamps

READABLE = 1
# With so many streams something arrives all the time, and waking up for each costs more than reading it.
# Where the kernel stamps, the loop looks once in so many seconds, and takes all that is there by then. Tokens
# of one stream that come closer than that are stamped as one.
MANY_STREAMS = 16
GATHER_SECONDS = 0.0005


def read_in_hub(connection: socket.socket, answer: Sink, deadline: float, clock: Clock) -> None:
    """See `exchange.Reader`. The calling greenlet sleeps until the answer ends."""
    hub = get_hub()
    watcher = hub.loop.io(connection.fileno(), READABLE)
    waiter = gevent.hub.Waiter(hub)
    # gevent's own socket would wait; the one below it does not block, and says so.
    receive = connection._sock.recvmsg  # type: ignore[attr-defined]
    feed, arrival = answer.feed, stamps().arrival

    def arrived() -> None:
        try:
            data, ancillary, _, _ = receive(RECEIVE_BYTES, SPACE)
            if data:
                if not feed(data, arrival(ancillary)):
                    return
            else:
                answer.close()
        except BlockingIOError:
            return
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
        with _gathering(hub.loop):
            failure = waiter.get()
    finally:
        for one in (watcher, timer):
            one.stop()
            one.close()
    if failure is not None:
        raise failure


_streams: dict[int, int] = {}  # being read, by the address of their loop


@contextlib.contextmanager
def _gathering(loop: Any) -> Iterator[None]:
    address = int(loop.ptr)
    count = _streams[address] = _streams.get(address, 0) + 1
    if count == MANY_STREAMS:
        _gather(address, GATHER_SECONDS)
    try:
        yield
    finally:
        count = _streams[address] = _streams[address] - 1
        if count == MANY_STREAMS - 1:
            _gather(address, 0.0)


def _gather(address: int, seconds: float) -> None:
    """How long the loop waits before it looks again (`man 3 ev`, ev_set_io_collect_interval)."""
    if stamps().kernel and (set_interval := _setter()):
        set_interval(address, seconds)


@functools.cache
def _setter() -> Any:
    """libev's own function; None where gevent runs on another loop."""
    try:
        from gevent.libev import corecext

        function = ctypes.CDLL(corecext.__file__).ev_set_io_collect_interval
    except (ImportError, OSError, AttributeError):
        return None
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_double), None
    return function
