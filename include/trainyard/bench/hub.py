"""Reads answers in gevent's hub: no greenlet wakes up until an answer's end.

A greenlet that calls `recv` with a deadline pays for a watcher, a timer and two switches every time, and a
watcher for every stream still pays gevent's way to a callback for every token. So all streams share one
`epoll`, and what has arrived is read in one go. Imported only where gevent has patched the standard library
(`locustfile`).
"""

from __future__ import annotations

import functools
import socket
import time
from collections import deque
from typing import Any

import gevent
from gevent.hub import get_hub
from gevent.monkey import get_original

from trainyard.bench.answer import PLAIN_END, Answer
from trainyard.bench.exchange import RECEIVE_BYTES, Clock, Sink
from trainyard.bench.stamps import SPACE, stamps

READABLE = 1
# With so many streams something arrives all the time, and waking up for each costs more than reading it.
# Where the kernel stamps, we look every so many seconds, and take all that is there by then. Tokens of one
# stream that come closer than that are stamped as one.
MANY_STREAMS = 16
LOOK_SECONDS = 0.002
# Greenlets whose answers have ended make and send their next requests. After so long of that we look again:
# of tokens that meet in the kernel's buffer only the last one's stamp is left.
BUSY_SECONDS = 0.002
BATCH = 64  # pieces of a stream that are kept back to be read together


def read_in_hub(connection: socket.socket, answer: Sink, deadline: float, clock: Clock) -> None:
    """See `exchange.Reader`. The calling greenlet sleeps until the answer ends."""
    left = deadline - clock()
    if left <= 0:
        raise TimeoutError
    hub = get_hub()
    stream, streams = _Stream(connection, answer, gevent.hub.Waiter(hub)), _streams(hub)
    timer = hub.loop.timer(left)
    timer.start(streams.fail, stream, TimeoutError())
    streams.add(stream)
    try:
        failure = stream.waiter.get()
    finally:
        timer.stop()
        timer.close()
        streams.remove(stream)
        malformed = stream.take()  # what came before the end counts, whatever the end was
    if failure := malformed or failure:
        raise failure


class _Stream:
    """One answer that is being read. failure: what ended it."""

    __slots__ = ("_answer", "_pieces", "_stamps", "failure", "file", "receive", "sink", "waiter")

    def __init__(self, connection: socket.socket, sink: Sink, waiter: Any) -> None:
        self.file, self.sink, self.waiter = connection.fileno(), sink, waiter
        # gevent's own socket would wait; the one below it does not block, and says so.
        self.receive = connection._sock.recvmsg  # type: ignore[attr-defined]
        self.failure: Exception | None = None
        # Kept back for it; what TLS seals shows nothing of its kind.
        self._answer = sink if isinstance(sink, Answer) else None
        self._pieces: list[bytes] = []
        self._stamps: list[bytes] = []

    def read(self) -> bool:
        """What there is; true when nothing more has to be read."""
        try:
            data, ancillary, _, _ = self.receive(RECEIVE_BYTES, SPACE)
            answer = self._answer
            if answer and ancillary and answer.plain and data.endswith(PLAIN_END):
                self._pieces.append(data)
                self._stamps.append(ancillary[0][2])
                if len(self._pieces) == BATCH:
                    self.failure = self.take()
                return self.failure is not None
            now = stamps().arrival(ancillary)
            self.failure = self.take()
            if self.failure:
                return True
            if data:
                return self.sink.feed(data, now)
            self.sink.close()
        except BlockingIOError:
            return False
        except Exception as error:  # for the greenlet that asked: the hub would only print it
            self.failure = error
        return True

    def take(self) -> Exception | None:
        """Hands on what was kept back. Returns what is wrong with it."""
        pieces, arrived = self._pieces, self._stamps
        self._pieces, self._stamps = [], []
        try:
            if pieces and self._answer:
                self._answer.feed_each(pieces, stamps().arrivals(arrived))
        except Exception as error:
            return error
        return None


class _Streams:
    """All answers that the greenlets of one hub read."""

    def __init__(self, hub: Any) -> None:
        self._loop = hub.loop
        self._poll = get_original("select", "epoll")()  # gevent takes it out of `select`
        self._open: dict[int, _Stream] = {}
        self._ended: deque[_Stream] = deque()
        self._arrivals = hub.loop.io(self._poll.fileno(), READABLE)
        self._looks = hub.loop.timer(LOOK_SECONDS, LOOK_SECONDS)
        self._waking: Any = None  # one of these two, or neither

    def add(self, stream: _Stream) -> None:
        self._open[stream.file] = stream
        self._poll.register(stream.file, READABLE)
        self._pace()

    def remove(self, stream: _Stream) -> None:
        """Before its connection is closed: the file's number may be another one's then."""
        if self._open.get(stream.file) is stream:
            self._close(stream)
        self._pace()

    def fail(self, stream: _Stream, failure: Exception) -> None:
        if self._open.get(stream.file) is stream:
            self._close(stream)
            stream.waiter.switch(failure)

    def _close(self, stream: _Stream) -> None:
        del self._open[stream.file]
        self._poll.unregister(stream.file)

    def _pace(self) -> None:
        """Wake up when something arrives, or every so often, or not at all."""
        waking = None
        if self._open:
            many = len(self._open) >= MANY_STREAMS and stamps().kernel
            waking = self._looks if many else self._arrivals
        if waking is not self._waking:
            if self._waking is not None:
                self._waking.stop()
            if waking is not None:
                waking.start(self._look)
            self._waking = waking

    def _look(self) -> None:
        for file, _ in self._poll.poll(0):
            stream = self._open[file]
            if stream.read():
                self._close(stream)
                self._ended.append(stream)
        until = time.monotonic() + BUSY_SECONDS
        while self._ended:
            stream = self._ended.popleft()
            stream.waiter.switch(stream.failure)
            if time.monotonic() > until:
                break
        if self._ended:
            self._loop.run_callback(self._look)


@functools.cache
def _streams(hub: Any) -> _Streams:
    return _Streams(hub)
