"""The engine: one loop that steps all sequences, as vLLM's does, instead of a timer for each stream.

A step encodes the oldest waiting prompt if a slot is free, else generates a token for every running sequence;
encoding and generating alternate, so that a burst of prompts does not stop the streams that run.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from local.shims.server.metrics import Metrics
from local.shims.server.timing import TimingModel


@dataclass(frozen=True)
class Delta:
    """What one step adds to a sequence; `finish` is set with the last one ("length", "stop", "abort")."""

    text: str
    tokens: int
    finish: str | None = None
    stop: str | None = None


@dataclass
class Sequence:
    """One generation on its way. Times are those of `time.monotonic`."""

    prompt_tokens: int
    source: Iterator[str]
    max_tokens: int
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    arrived: float = field(default_factory=time.monotonic)
    scheduled: float = 0.0
    first: float = 0.0
    last: float = 0.0
    generated: int = 0
    text: str = ""
    shown: int = 0
    aborted: bool = False
    deltas: asyncio.Queue[Delta] = field(default_factory=asyncio.Queue)

    def advance(self) -> Delta:
        """Take the next token: what can be shown of it, and whether the sequence ends."""
        token = next(self.source, None)
        finish: str | None = None if token is not None else "stop"
        stop: str | None = None
        if token is not None:
            self.generated += 1
            self.text += token
            if self.generated >= self.min_tokens:
                for string in self.stop:
                    # The match may have begun in an earlier token, whose end was held back for this.
                    place = self.text.find(string, max(0, self.shown))
                    if place >= 0:
                        self.text = self.text[: place + (len(string) if self.include_stop else 0)]
                        finish, stop = "stop", string
                        break
            if finish is None and self.generated >= self.max_tokens:
                finish = "length"
        held = 0 if finish else max((len(string) - 1 for string in self.stop), default=0)
        visible = max(self.shown, len(self.text) - held)
        text, self.shown = self.text[self.shown : visible], visible
        return Delta(text, self.generated, finish, stop)


class Engine:
    """Sequences that wait and run, and the loop over them."""

    def __init__(
        self, timing: TimingModel, metrics: Metrics, *, max_num_seqs: int, max_model_len: int
    ) -> None:
        self.timing = timing
        self.metrics = metrics
        self.max_num_seqs = max_num_seqs
        self.max_model_len = max_model_len
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.stuck = False  # the knob never_ready: work is taken and never done
        self.busy_seconds = 0.0
        self.steps = 0
        self.step_seconds: deque[float] = deque(maxlen=2048)
        self._wake = asyncio.Event()

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; its deltas arrive in `sequence.deltas`."""
        self.waiting.append(sequence)
        self._gauges()
        self._wake.set()

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence whose client has gone."""
        sequence.aborted = True
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
            self._observe(sequence, "abort")
        self._gauges()

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.running)

    async def run(self) -> None:
        """Step for ever. The schedule is kept by deadlines: a late wake-up shortens the next wait."""
        deadline = time.monotonic()
        encoded = False
        while True:
            if self.idle or self.stuck:
                self._wake.clear()
                await self._wake.wait()
                deadline = time.monotonic()
                continue
            encode = bool(self.waiting) and len(self.running) < self.max_num_seqs
            encode = encode and not (encoded and self.running)
            if encode:
                sequence = self.waiting.popleft()
                sequence.scheduled = time.monotonic()
                self.running.append(sequence)
                stepped, duration = [sequence], self.timing.encode(sequence.prompt_tokens)
            else:
                stepped, duration = list(self.running), self.timing.decode(len(self.running))
            encoded = encode
            self._gauges()
            deadline = max(deadline + duration, time.monotonic())
            await asyncio.sleep(deadline - time.monotonic())
            self._account(duration)
            if encode:
                self.metrics.stepped("encode", stepped[0].prompt_tokens)
            else:
                self.metrics.stepped("decode", len(stepped))
            for sequence in stepped:
                if not sequence.aborted:
                    self._deliver(sequence)

    def _deliver(self, sequence: Sequence) -> None:
        now = time.monotonic()
        before = sequence.generated
        delta = sequence.advance()
        if sequence.first == 0.0:
            sequence.first = now
            self.metrics.prompt_tokens.inc(sequence.prompt_tokens)
            self.metrics.first_token.observe(now - sequence.arrived)
        else:
            self.metrics.inter_token.observe(now - sequence.last)
        self.metrics.generation_tokens.inc(sequence.generated - before)
        sequence.last = now
        sequence.deltas.put_nowait(delta)
        if delta.finish is not None:
            self.running.remove(sequence)
            self._observe(sequence, delta.finish)
            self._gauges()

    def _observe(self, sequence: Sequence, finish: str) -> None:
        now = time.monotonic()
        self.metrics.success.inc(1, finished_reason=finish)
        self.metrics.end_to_end.observe(now - sequence.arrived)
        self.metrics.queue.observe(sequence.scheduled - sequence.arrived)
        if sequence.first:
            self.metrics.prefill.observe(sequence.first - sequence.scheduled)
            self.metrics.decode.observe(now - sequence.first)
        self.metrics.request_prompt_tokens.observe(sequence.prompt_tokens)
        self.metrics.request_generation_tokens.observe(sequence.generated)

    def _account(self, duration: float) -> None:
        self.busy_seconds += duration
        self.steps += 1
        self.step_seconds.append(duration)

    def _gauges(self) -> None:
        self.metrics.running.set(len(self.running))
        self.metrics.waiting.set(len(self.waiting))
        used = sum(sequence.prompt_tokens + sequence.generated for sequence in self.running)
        self.metrics.kv_cache.set(round(used / (self.max_num_seqs * self.max_model_len), 6))
