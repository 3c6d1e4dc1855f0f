"""One row a request: what was measured, before anything is added up.

Times are seconds. `started` is on the generator's monotonic clock; all others count from it. A row is one
line of `samples.ndjson.gz`.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

# What can become of a request, besides success. `censored`: still running when the run had to end.
FAILURES = (
    "connect",  # no connection
    "timeout",  # no complete answer in time
    "http_4xx",
    "http_5xx",
    "malformed",  # not HTTP, or not the JSON that the protocol promises
    "error_event",  # an error object in an answer that began with 200
    "cut",  # the connection ended in the middle
    "empty",  # a complete 200 without a single token of text
    "no_done",  # complete, but the stream lacks its [DONE]
    "no_usage",  # complete, but the token counts are missing
    "censored",
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One request.

    arm: `canary` or `baseline`. pair: the two requests of one pair carry the same prompt, back to back.
    run: tells runs apart whose samples are put together; their clocks and pairs have nothing in common.
    turn: of a conversation, from 0.
    intended: when the schedule wanted it sent, relative to `started` (zero or negative: it was sent late).
    ttft: to the first chunk with text. e2e: to the end of the answer. None: never came.
    chunk_times, chunk_tokens: arrival of every chunk that brought tokens, and how many.
    """

    arm: str
    pair: int | None = None
    run: int = 0
    url: str = ""
    user: int = 0
    turn: int = 0
    started: float
    intended: float = 0.0
    connected: float | None = None
    ttft: float | None = None
    e2e: float | None = None
    status: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    chunks: int = 0
    chunk_times: tuple[float, ...] = ()
    chunk_tokens: tuple[int, ...] = ()
    ok: bool = False
    error: str = ""
    detail: str = ""
    finish_reason: str = ""

    @property
    def censored(self) -> bool:
        return self.error == "censored"

    @property
    def ttft_from_intended(self) -> float | None:
        """From when the schedule wanted it sent: what a stall does to the requests that it held up."""
        return None if self.ttft is None else self.ttft - self.intended

    @property
    def e2e_from_intended(self) -> float | None:
        return None if self.e2e is None else self.e2e - self.intended

    def gaps(self) -> list[float]:
        """Seconds between tokens, one value a token after the first chunk.

        A chunk of k tokens that comes g seconds after the one before it counts as k gaps of g/k: the server
        made them in that time, however it packed them.
        """
        gaps: list[float] = []
        for before, now, tokens in zip(
            self.chunk_times, self.chunk_times[1:], self.chunk_tokens[1:], strict=False
        ):
            gaps.extend([(now - before) / tokens] * tokens)
        return gaps

    @property
    def tpot(self) -> float | None:
        """Mean seconds a token after the first chunk; None with fewer than two chunks."""
        later = sum(self.chunk_tokens[1:])
        return (self.chunk_times[-1] - self.chunk_times[0]) / later if later else None

    def to_row(self) -> dict[str, Any]:
        return dict(vars(self))  # `asdict` would copy every number: half a millisecond for a long stream

    def to_line(self) -> str:
        """The row as JSON, without a line's end; chunks' times to 0.1 us."""
        row = self.to_row()
        times, counts = row.pop("chunk_times"), row.pop("chunk_tokens")
        # json writes numbers one by one, which takes several times as long.
        listed = ("%.7f," * len(times))[:-1] % tuple(times)
        scalars = json.dumps(row, separators=(",", ":"))
        return f'{scalars[:-1]},"chunk_times":[{listed}],"chunk_tokens":[{",".join(map(str, counts))}]}}'

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Sample:
        """Unknown keys are left out, so that older code reads newer rows."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in row.items() if key in known}
        for key in ("chunk_times", "chunk_tokens"):
            values[key] = tuple(values.get(key) or ())
        return cls(**values)


def pack(samples: Iterable[Sample]) -> bytes:
    """Compressed NDJSON. The same samples give the same bytes."""
    lines = "".join(sample.to_line() + "\n" for sample in samples)
    return gzip.compress(lines.encode(), mtime=0)


def unpack(data: bytes) -> list[Sample]:
    return list(one_by_one(data))


def one_by_one(data: bytes) -> Iterator[Sample]:
    """What was packed, without ever holding all: 100,000 rows of 64 chunks take 600 MB at once."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as lines:
        for line in lines:
            yield from parse(line.decode())


def parse(text: str) -> Iterator[Sample]:
    """Rows of NDJSON. A torn last line (its writer was killed) is left out."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError:
            if number == len(lines) - 1:
                return
            raise
        yield Sample.from_row(row)
