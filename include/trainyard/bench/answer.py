"""What a server answers to one request, pushed in as bytes that were stamped when they arrived.

No I/O: who reads (`exchange`, `hub`) hands over each piece and its stamp, and hears when there is no more to
read. The way of a plain piece, one HTTP chunk with one event in it, is short: at 64 streams there are
thousands of them a second, and a reader that is busy stamps late.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainyard.bench.http1 import MalformedResponse, Response
from trainyard.bench.spoken import Spoken
from trainyard.bench.sse import Events
from trainyard.bench.template import Template

DETAIL_CHARACTERS = 300
PLAIN_END = b"}\n\n\r\n"  # of a piece that is one chunk with one event
UNCODED = ("", "identity", "none")  # the last one is no coding, but keeps proxies from adding one
_DECODER = json.JSONDecoder()


class Answer:
    """One answer. Stamps are on the reader's clock. `stream`: an event stream was asked for.

    first: the first chunk with text. error, detail: a kind of `samples.FAILURES`, and words; empty if none.
    done: the stream's own end was seen. plain: a piece that ends like PLAIN_END is most likely one chunk of
    the usual kind; several of those may be kept back for `feed_each`.
    """

    def __init__(self, *, stream: bool) -> None:
        self.stream = stream
        self.first: float | None = None
        self.last: float | None = None  # the last piece of any kind
        self._usage: dict[str, Any] | None = None
        self.finish_reason = ""
        self.error = ""
        self.detail = ""
        self.done = False
        self._response, self._events = Response(), Events()
        self._is_stream = False  # the answer is one; known with its head
        self._whole = bytearray()  # of an answer that is none
        self._spoken = Spoken()
        self._closed = False
        self._template: Template | None = None
        self.plain = False

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def ended(self) -> float | None:
        """The stamp of its last byte; None where only the end of the connection tells which one that is."""
        return self.last if self.done or (self._response.complete and not self._closed) else None

    @property
    def usage(self) -> dict[str, Any] | None:
        """The last one; its counts go on with chunks that were read the short way."""
        usage, count = self._usage, self._spoken.counted
        if usage is None or usage["completion_tokens"] >= count:
            return usage
        asked = _number(usage.get("prompt_tokens"))
        total = {} if asked is None else {"total_tokens": asked + count}
        return {**usage, "completion_tokens": count, **total}

    @property
    def prompt_tokens(self) -> int | None:
        return _number((self.usage or {}).get("prompt_tokens"))

    @property
    def output_tokens(self) -> int | None:
        return _number((self.usage or {}).get("completion_tokens"))

    @property
    def text(self) -> str:
        return "".join(self._spoken.texts)

    @property
    def chunks(self) -> int:
        return len(self._spoken.stamps)

    def feed(self, data: bytes, now: float) -> bool:
        """Take a piece. True when nothing more has to be read. Raises MalformedResponse."""
        self.last = now
        response = self._response
        if self.plain and self._template:
            at, read, spoken = 0, self._template.read, self._spoken
            while found := read(data, at):
                text, count, at = found
                spoken.texts.append(text)
                spoken.stamps.append(now)
                if count is not None:
                    spoken.count(count, now)
                if at == len(data):
                    return False
            data = data[at:]
        try:
            body = response.feed(data)
        except MalformedResponse as error:  # what stands before that counts, wherever the bytes were split
            if self._take_body(error.body, now):
                return True
            raise
        return self._take_body(body, now) or response.complete

    def _take_body(self, body: bytes, now: float) -> bool:
        """Bytes of the body; true when they say that nothing more has to be read."""
        response = self._response
        if not self._is_stream and response.status:
            kind = response.headers.get("content-type", "").lower()
            self._is_stream = response.status == 200 and kind.startswith("text/event-stream")
        if self._is_stream:
            for event in self._events.feed(body):
                self._take_event(event, now)
                if self.done or self.error:
                    return True
            self.plain = self._template is not None and response.between_chunks and self._events.idle
        else:
            self._whole += body
        return False

    def feed_each(self, pieces: Sequence[bytes], stamps: Sequence[float]) -> bool:
        """`feed` of one piece after the other. A burst of one thing is several times cheaper than as much of
        it in between others."""
        found = self._template.read_each(pieces) if self.plain and self._template else None
        if found is None:
            return any(self.feed(piece, now) for piece, now in zip(pieces, stamps, strict=True))
        texts, counts = found
        spoken = self._spoken
        spoken.texts += texts
        spoken.stamps += stamps
        for count, now in zip(counts, stamps, strict=False):  # or there are none
            spoken.count(count, now)
        self.last = stamps[-1]
        return False

    def close(self) -> None:
        """The peer closed the connection."""
        self._closed = True
        self._response.end()

    def conclude(self) -> None:
        """No more will be read: name what is wrong with the answer, the most telling first."""
        if self.error:
            return
        headers = self._response.headers
        coding, kind = (headers.get(f"content-{name}", "") for name in ("encoding", "type"))
        if self.status not in (0, 200):
            self.fail("http_4xx", "")  # which of them, and with which words, `fail` knows
        elif not self._response.complete and not self.done:
            self.fail("cut", f"the connection ended after {self.chunks} chunks of text")
        elif coding.lower() not in UNCODED:
            self.fail("malformed", f"content-encoding {coding}, but identity was asked for")
        elif self._is_stream and not self.stream:
            self.fail("malformed", "an event stream, but an answer in one piece was asked for")
        elif self._whole and self.stream:
            self.fail("malformed", f"no event stream but {kind or 'untyped'}: {self._words()}")
        elif not self.stream:
            self._conclude_whole()
        elif not self._spoken.texts:
            self.fail("empty", "200, but no text")
        elif not self.done:
            self.fail("no_done", "the stream ended without [DONE]")
        elif self.usage is None:
            self.fail("no_usage", "the stream ended without token counts")

    def fail(self, kind: str, detail: str) -> None:
        """The first failure counts; a status goes before the way in which its body ended."""
        if self.error:
            return
        if self.status not in (0, 200) and kind != "censored":
            kind = "http_5xx" if self.status >= 500 else "http_4xx"
            elsewhere = self._response.headers.get("location")
            detail = f"{self.status}: {f'redirects to {elsewhere}' if elsewhere else self._words()}"
        self.error, self.detail = kind, detail[:DETAIL_CHARACTERS]

    def tokens(self) -> list[tuple[float, int]]:
        """(stamp, tokens) of every chunk that brought tokens, as far as the server tells."""
        return self._spoken.tokens(self.output_tokens, self.finish_reason)

    def _take_event(self, event: bytes, now: float) -> None:
        if event == b"[DONE]":
            self.done = True
            return
        chunk = self._parse(event)
        if chunk.get("error"):
            self.fail("error_event", json.dumps(chunk["error"]))
        choices = chunk.get("choices") or ()
        usage = chunk.get("usage")
        count = _number(usage.get("completion_tokens")) if isinstance(usage, dict) else None
        for choice in choices:
            text = text_of(choice)
            if choice.get("index") or (text and count is None):
                self._spoken.counts_all = False
            if text:
                if self.first is None:
                    self.first = now
                self._spoken.texts.append(text)
                self._spoken.stamps.append(now)
                if self._template is None and len(choices) == 1 and not choice.get("finish_reason"):
                    self._template = Template.learn(event, text, count)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if count is not None:
            self._usage = usage
            if choices:  # the last chunk repeats the total and has none
                self._spoken.count(count, now)

    def _words(self) -> str:
        return self._whole.decode("utf-8", "replace")

    def _conclude_whole(self) -> None:
        """An answer that was asked for in one piece."""
        if not self._whole:
            self.fail("empty", "200, but no body")
            return
        answer = self._parse(bytes(self._whole))
        if answer.get("error"):
            self.fail("error_event", json.dumps(answer["error"]))
        for choice in answer.get("choices") or ():
            self._spoken.texts.append(text_of(choice))
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        usage = answer.get("usage")
        if isinstance(usage, dict) and _number(usage.get("completion_tokens")) is not None:
            self._usage = usage
        if not self.text:
            self.fail("empty", "200, but no text")
        elif self.usage is None:
            self.fail("no_usage", "no token counts")

    def _parse(self, data: bytes) -> dict[str, Any]:
        """A JSON object, or an empty one and a failure."""
        try:
            text = data.decode()
            document, end = _DECODER.raw_decode(text)  # half of what json.loads takes
            if end != len(text):
                raise ValueError
        except ValueError:
            try:
                document = json.loads(data)  # with spaces around it, or in another encoding
            except ValueError:
                document = None
        if isinstance(document, dict):
            return document
        self.fail("malformed", f"not a JSON object: {data[:80]!r}")
        return {}


def _number(value: object) -> int | None:
    """A count, or nothing where a server says something else."""
    return value if type(value) is int and value >= 0 else None


def text_of(choice: Mapping[str, Any]) -> str:
    """What a chunk or an answer adds, of whatever kind. The early chunk that only names the role: nothing."""
    part = choice.get("delta") or choice.get("message") or choice
    text = part.get("content")
    if text:
        return str(text)
    for key in ("text", "reasoning_content", "reasoning"):
        if part.get(key):
            return str(part[key])
    return json.dumps(part["tool_calls"]) if part.get("tool_calls") else ""
