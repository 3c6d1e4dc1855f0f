"""What a load test sends: how many at once, how long, prompts and lengths. The same seed asks the same."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from trainyard.bench.arrivals import Arrivals
from trainyard.bench.checking import Number, is_number, shown
from trainyard.bench.shapes import MOST_TOKENS, SHAPES, Conversation, Images, Lengths, Prefix, read_shapes
from trainyard.bench.trace import Trace, read_trace
from trainyard.errors import Problem, Refused

MOST_REQUESTS = 1_000_000  # of an open loop, an arm: a schedule is held in memory
# The most of each: an input error of a digit or two must not eat the machine that measures.
_WHOLE = {
    "concurrency": 100_000,
    "requests": 1_000_000_000,
    "prompt_tokens": MOST_TOKENS,
    "output_tokens": MOST_TOKENS,
    "processes": 64,
}
_SECONDS = ("duration_seconds", "timeout_seconds", "max_loop_lag_seconds", "max_cpu_share")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A closed loop of `concurrency` users, each asking the arms in turn; or with `arrivals` (see
    `arrivals.Arrivals.from_dict`) an open loop, whose every arrival asks all arms at once.

    prompt_tokens, output_tokens: of every request; prompt_lengths, output_lengths: drawn instead.
    trace: path of a JSONL file, see `trace`; what it says of a request goes before all other fields.
    prefix, conversation, images: see `shapes`.
    processes: load generators to share the work among. continuous_usage: ask for token counts with every
    chunk, which vLLM and its kin offer.
    requests: cap an arm; None: only the time ends the run. drain_seconds: how long requests in flight at the
    end may still take, by default as long as any request. extra: more fields of the request body.
    """

    concurrency: int = 4
    duration_seconds: float = 8.0
    requests: int | None = None
    prompt_tokens: int = 64
    output_tokens: int = 32
    prompt_lengths: Lengths | None = None
    output_lengths: Lengths | None = None
    trace: str | None = None
    prefix: Prefix | None = None
    conversation: Conversation | None = None
    images: Images | None = None
    stream: bool = True
    chat: bool = True
    continuous_usage: bool = True
    timeout_seconds: float = 60.0
    drain_seconds: float | None = None
    max_loop_lag_seconds: float = 0.1
    max_cpu_share: float = 0.9
    processes: int = 1
    arrivals: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=lambda: {"ignore_eos": True})

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Workload:
        """Raises `Refused` with every broken rule."""
        known = {item.name for item in fields(cls)}
        problems = []
        for key, value in document.items():
            rule, remedy = "", "Leave it out for the default"
            if key not in known:
                rule, remedy = "is not a field of a workload", f"Known: {', '.join(sorted(known))}"
            elif value is None and key in ("requests", "drain_seconds"):
                continue
            elif key in _WHOLE and not Number(1, _WHOLE[key]).takes(value):
                rule = Number(1, _WHOLE[key]).words
            elif key in _SECONDS and not _positive(value):
                rule = "must be a number above zero"
            elif key == "drain_seconds" and not (is_number(value) and value >= 0):
                rule = "must be a number of zero or more"
            elif key == "trace" and not (value is None or isinstance(value, str)):
                rule = "must name a file"
            if rule:
                problems.append(Problem(f"workload.{key}", shown(value), rule, remedy))
        if problems:
            raise Refused(problems)
        plain = {key: value for key, value in document.items() if key not in SHAPES}
        shapes: dict[str, Any] = dict(read_shapes(document))
        workload = cls(**plain, **shapes)
        if problems := workload._contradictions():
            raise Refused(problems)
        # Refuse now what cannot be laid out.
        schedule = workload.schedule
        if schedule is not None and schedule.expected > MOST_REQUESTS:
            rule = f"asks for more than {MOST_REQUESTS} requests"
            raise Refused(
                Problem("workload.arrivals", round(schedule.expected), rule, "Lower rate or seconds")
            )
        return workload

    def _contradictions(self) -> list[Problem]:
        found = []
        if self.images and not self.chat:
            found.append(
                Problem("workload.images", "", "can be shown in a chat only", "Leave images out, or use chat")
            )
        if self.trace is not None:
            for name in ("prefix", "conversation"):
                if getattr(self, name) is not None:
                    rule, remedy = (
                        "does not go with a trace, which says what is shared",
                        "Leave one of them out",
                    )
                    found.append(Problem(f"workload.{name}", "", rule, remedy))
        return found

    @property
    def schedule(self) -> Arrivals | None:
        """The arrivals of an open loop. Raises `Refused`."""
        if self.arrivals is None:
            return None
        return Arrivals.from_dict(self.arrivals, self.duration_seconds, self.read_trace)

    @property
    def seconds(self) -> float:
        """How long requests are sent."""
        schedule = self.schedule
        return self.duration_seconds if schedule is None else schedule.seconds

    @property
    def turns(self) -> int:
        """Questions of a conversation."""
        return self.conversation.turns if self.conversation else 1

    def most_requests(self, seed: object) -> int | None:
        """How many an arm can get at most; None: a closed loop without a cap, where the server decides."""
        schedule = self.schedule
        most = None if schedule is None else len(schedule.schedule(seed)) * self.turns
        given = [number for number in (most, self.requests) if number is not None]
        return min(given, default=None)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest question, with its prefix."""
        own = self.prompt_lengths.max if self.prompt_lengths else self.prompt_tokens
        if trace := self.read_trace():
            own = trace.longest_prompt(own)
        return own + (self.prefix.tokens if self.prefix else 0)

    def read_trace(self) -> Trace | None:
        """Raises `Refused`."""
        return None if self.trace is None else read_trace(self.trace)

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat else "/v1/completions"

    @property
    def drain(self) -> float:
        return self.timeout_seconds if self.drain_seconds is None else self.drain_seconds

    def payload(
        self, model: str, prompt: str | Sequence[Mapping[str, Any]], output_tokens: int | None = None
    ) -> dict[str, Any]:
        return payload(
            model,
            prompt,
            output_tokens=self.output_tokens if output_tokens is None else output_tokens,
            stream=self.stream,
            chat=self.chat,
            continuous_usage=self.continuous_usage,
            extra=self.extra,
        )


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def payload(
    model: str,
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    output_tokens: int,
    stream: bool = True,
    chat: bool = True,
    continuous_usage: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Body of a request to an OpenAI-compatible server, greedy, with token counts asked for.

    prompt: a text, or the messages so far.
    """
    body: dict[str, Any] = {"model": model, "max_tokens": output_tokens, "temperature": 0.0}
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if chat:
        body["messages"] = messages
    else:
        body["prompt"] = "\n".join(str(message["content"]) for message in messages)
    if stream:
        wanted = {"include_usage": True} | ({"continuous_usage_stats": True} if continuous_usage else {})
        body |= {"stream": True, "stream_options": wanted}
    return body | dict(extra or {})


def order(arms: list[str], seed: object) -> list[str]:
    """The order in which one pair asks the arms: random, so that neither is always the warmed-up one."""
    return random.Random(str(seed)).sample(arms, k=len(arms))
