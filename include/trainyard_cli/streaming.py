"""A client that streams all the time through the gateway, and counts what failed or was cut."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field

import httpx

_PROMPT = "Tell me about trains, in a few words, please."


@dataclass
class Tally:
    """Requests by how they ended. cut: a stream without its [DONE]."""

    complete: int = 0
    failed: list[str] = field(default_factory=list)
    tokens: int = 0

    @property
    def total(self) -> int:
        return self.complete + len(self.failed)


class Streamer:
    """A few threads, each asking again as soon as its stream has ended, until it is stopped."""

    def __init__(self, base_url: str, model: str, *, streams: int = 2, max_tokens: int = 48) -> None:
        self._url, self._model, self._max_tokens = f"{base_url}/v1/chat/completions", model, max_tokens
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.tally = Tally()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(streams)]

    def __enter__(self) -> Streamer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def _run(self) -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not self._stop.is_set():
                problem, tokens = self._ask(client)
                with self._lock:
                    self.tally.tokens += tokens
                    if problem:
                        self.tally.failed.append(problem)
                    else:
                        self.tally.complete += 1
                # A steady stream of requests, not a load test: two cores carry all else too.
                time.sleep(0.05)

    def _ask(self, client: httpx.Client) -> tuple[str, int]:
        """(what went wrong or "", tokens seen)."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": _PROMPT}],
            "max_tokens": self._max_tokens,
            "stream": True,
            "ignore_eos": True,
        }
        tokens, ended = 0, False
        try:
            with client.stream("POST", self._url, json=body) as answer:
                if answer.status_code != 200:
                    return f"HTTP {answer.status_code}", 0
                for line in answer.iter_lines():
                    if line == "data: [DONE]":
                        ended = True  # read on to the end, as OpenAI's own client does
                    elif line.startswith("data: "):
                        found = json.loads(line[6:])
                        if "error" in found:
                            return f"error in the stream: {found['error']}", tokens
                        choices = found.get("choices") or [{}]
                        tokens += bool((choices[0].get("delta") or {}).get("content"))
        # Whatever came instead of a stream is a failure: a thread that died of it would count none.
        except (httpx.HTTPError, ValueError, TypeError, AttributeError, LookupError) as error:
            return f"{type(error).__name__}: {error}", tokens
        if not ended:
            return "cut: the stream ended without [DONE]", tokens
        return "" if tokens else "empty: no token came", tokens
