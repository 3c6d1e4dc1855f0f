"""What a load test sends: how many at once, how long, prompts and lengths. The same seed asks the same."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from trainyard.bench.arrivals import Arrivals
from trainyard.errors import Problem, Refused

# Common English words: about one token each in every tokenizer in use, so none has to be downloaded.
WORDS = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an
they which one you were all her she there would their we him been has when who will no more if out
so up said what its about than into them can only other time new some could these two may first then
do any like my now over such our man me even most made after also did many off before must well back
through years much where your way down should because long each just state people those too mr how
little good world make very year still see own work men day get here old between both life being
under three never know same last
""".split()  # noqa: SIM905


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A closed loop of `concurrency` users, each asking the arms in turn; or with `arrivals` (see
    `arrivals.Arrivals.from_dict`) an open loop, whose every arrival asks all arms at once.

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
        numbers = known - {"stream", "chat", "continuous_usage", "extra", "drain_seconds", "arrivals"}
        problems = []
        for key, value in document.items():
            where = f"workload.{key}"
            if key not in known:
                remedy = f"Known: {', '.join(sorted(known))}"
                problems.append(Problem(where, value, "is not a field of a workload", remedy))
            elif key in numbers and not _positive(value) and not (key == "requests" and value is None):
                remedy = "Leave it out for the default"
                problems.append(Problem(where, value, "must be a number above zero", remedy))
        if problems:
            raise Refused(problems)
        workload = cls(**document)
        workload.schedule  # noqa: B018  refuse now what cannot be laid out
        return workload

    @property
    def schedule(self) -> Arrivals | None:
        """The arrivals of an open loop. Raises `Refused`."""
        return None if self.arrivals is None else Arrivals.from_dict(self.arrivals, self.duration_seconds)

    @property
    def seconds(self) -> float:
        """How long requests are sent."""
        schedule = self.schedule
        return self.duration_seconds if schedule is None else schedule.seconds

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat else "/v1/completions"

    @property
    def drain(self) -> float:
        return self.timeout_seconds if self.drain_seconds is None else self.drain_seconds

    def payload(self, model: str, prompt: str) -> dict[str, Any]:
        return payload(
            model,
            prompt,
            output_tokens=self.output_tokens,
            stream=self.stream,
            chat=self.chat,
            continuous_usage=self.continuous_usage,
            extra=self.extra,
        )


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def payload(
    model: str,
    prompt: str,
    *,
    output_tokens: int,
    stream: bool = True,
    chat: bool = True,
    continuous_usage: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Body of a request to an OpenAI-compatible server, greedy, with token counts asked for."""
    body: dict[str, Any] = {"model": model, "max_tokens": output_tokens, "temperature": 0.0}
    body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    if stream:
        wanted = {"include_usage": True} | ({"continuous_usage_stats": True} if continuous_usage else {})
        body |= {"stream": True, "stream_options": wanted}
    return body | dict(extra or {})


def prompt(tokens: int, seed: object) -> str:
    """About `tokens` tokens of words. Different seeds share no prefix, so no prefix cache answers."""
    chosen = random.Random(str(seed))
    return " ".join(chosen.choices(WORDS, k=max(1, tokens)))


def order(arms: list[str], seed: object) -> list[str]:
    """The order in which one pair asks the arms: random, so that neither is always the warmed-up one."""
    return random.Random(str(seed)).sample(arms, k=len(arms))
