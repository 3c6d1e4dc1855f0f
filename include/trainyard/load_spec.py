"""The part of a spec that says what its load tests send. docs/load-test.md explains the choices."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from trainyard.parts import Part, Positive

# Nobody can know what a picture costs before the model's own processor cuts it up: a token for a square of so
# many pixels is what the dense ones take (Qwen2.5-VL: 28 x 28; Qwen3-VL: 32 x 32). Qwen3-VL enlarges what has
# fewer pixels than 256 x 256, refuses what is over 200 times as long as wide, and marks both ends of each.
PIXELS_A_TOKEN = 28
LEAST_PIXELS = 65536
MARKS = 2
MOST_OBLONG = 200


class Stage(Part):
    seconds: float = Field(gt=0, le=7200)
    rate: float = Field(ge=0, le=1000, description="Requests a second where it begins.")
    to: float | None = Field(None, ge=0, le=1000, description="Where it ends, if that is another rate.")

    @property
    def ends_at(self) -> float:
        return self.rate if self.to is None else self.to

    @model_validator(mode="after")
    def _sends(self) -> Stage:
        if self.rate + self.ends_at <= 0:
            raise ValueError("a stage from 0 to 0 requests a second sends nothing: give it a rate")
        return self


class Arrivals(Part):
    """An open loop: requests are sent on schedule, whatever the server does."""

    process: Literal["poisson", "constant", "gamma", "trace"] = Field(
        "poisson", description="How irregular; trace: at the moments of the workload's trace."
    )
    rate: float | None = Field(None, gt=0, le=1000, description="Requests a second, to each arm.")
    stages: tuple[Stage, ...] = Field((), max_length=50, description="Instead of rate: one after the other.")
    shape: float = Field(1.0, ge=0.01, le=100, description="Of gamma: below 1 in bursts, above 1 steadier.")
    speed: float = Field(1.0, ge=0.001, le=1000, description="Of trace: so many times as fast.")

    @model_validator(mode="after")
    def _says_how_many(self) -> Arrivals:
        given = (self.rate is not None) + bool(self.stages)
        if self.process == "trace" and given:
            raise ValueError("the moments of a trace leave no room for rate or stages: give either")
        if self.process != "trace" and given != 1:
            raise ValueError("say how many requests come: rate, or stages")
        return self


class Lengths(Part):
    """Tokens, log-normal."""

    median: int = Field(ge=1, le=131_072, description="Half are shorter.")
    sigma: float = Field(ge=0, le=5, description="Spread of the logarithm: 0.5 is moderate, 1 is wide.")
    max: int = Field(ge=1, le=131_072, description="Longer ones are cut to it.")
    min: int = Field(1, ge=1, le=131_072, description="Shorter ones are brought to it.")

    @model_validator(mode="after")
    def _in_order(self) -> Lengths:
        if not self.min <= self.median <= self.max:
            raise ValueError(f"min <= median <= max, got {self.min}, {self.median}, {self.max}")
        return self


class Workload(Part):
    shape: Literal["fixed", "lognormal", "trace"] = Field("fixed", description="Where lengths come from.")
    prompt: Lengths | None = None
    output: Lengths | None = None
    trace: str | None = Field(
        None,
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/)?[^\s/:]([^\s:]*[^\s/:])?$",
        max_length=1024,
        description="JSONL in S3: s3://bucket/key, or a key in our own bucket such as traces/friday.jsonl.",
    )

    @model_validator(mode="after")
    def _agrees(self) -> Workload:
        drawn = self.prompt is not None or self.output is not None
        if (self.shape == "trace") != (self.trace is not None):
            raise ValueError("shape: trace and the field trace go together")
        if self.shape == "lognormal" and not drawn:
            raise ValueError("log-normal lengths need prompt or output, with median, sigma and max")
        if self.shape == "fixed" and drawn:
            raise ValueError("fixed lengths are prompt_tokens and output_tokens: give shape: lognormal")
        return self


class Prefix(Part):
    """Conversations begin with a shared text, as system prompts and documents do."""

    groups: int = Field(ge=1, le=100_000, description="So many texts; each conversation begins with one.")
    tokens: int = Field(ge=1, le=131_072, description="Of each; the prompt's own tokens follow.")


class Conversation(Part):
    """Each turn asks with all that was said before, with the server's own answers."""

    turns: int = Field(ge=2, le=100)
    think_seconds: float = Field(0.0, ge=0, le=600, description="Mean pause before a turn, exponential.")


class Images(Part):
    """Pictures in the first turn, each another one. Only for engines that take the model's images."""

    width: int = Field(ge=16, le=4096, description="Pixels.")
    height: int = Field(ge=16, le=4096, description="Pixels.")
    count: int = Field(1, ge=1, le=16)

    @model_validator(mode="after")
    def _is_a_picture(self) -> Images:
        sides = self.width, self.height
        if max(sides) > MOST_OBLONG * min(sides):
            raise ValueError(f"one side may be {MOST_OBLONG} times the other at most: models refuse the rest")
        return self

    @property
    def tokens(self) -> int:
        """At most as many, of the models that are shown pictures."""
        larger = max(1.0, math.sqrt(LEAST_PIXELS / (self.width * self.height)))
        across, down = (math.ceil(side * larger / PIXELS_A_TOKEN) for side in (self.width, self.height))
        return self.count * (across * down + MARKS)


class Load(Part):
    """What is asked of canary and baseline, in the load test and in every step."""

    concurrency: int = Field(8, ge=1, le=512)
    duration_seconds: float = Field(60, gt=0, le=7200)
    prompt_tokens: int = Field(256, ge=1, le=131_072)
    output_tokens: int = Field(64, ge=1, le=32_768)
    max_lag_seconds: Positive = Field(
        0.1, description="How late (p99) the load generator may be before its run counts as invalid."
    )
    processes: int = Field(1, ge=1, le=16, description="Load generators in a pod; each keeps one core busy.")
    workers: int = Field(
        1,
        ge=1,
        le=16,
        description="Pods that share the load; they begin together. In a closed loop at most one a user.",
    )
    arrivals: Arrivals | None = Field(None, description="Absent: a closed loop of `concurrency` users.")
    workload: Workload = Workload()
    prefix: Prefix | None = None
    conversation: Conversation | None = None
    images: Images | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Load:
        replayed = self.workload.trace is not None
        if self.arrivals and self.arrivals.process == "trace" and not replayed:
            raise ValueError("arrivals.process: trace needs workload.trace")
        if replayed and (self.prefix or self.conversation):
            raise ValueError("a trace says itself what is shared: leave prefix and conversation out")
        return self

    @property
    def seconds(self) -> float:
        """Of the load test before any traffic: stages say it themselves."""
        stages = self.arrivals.stages if self.arrivals else ()
        return sum(stage.seconds for stage in stages) if stages else self.duration_seconds

    @property
    def turns(self) -> int:
        return self.conversation.turns if self.conversation else 1

    @property
    def longest_prompt(self) -> int:
        """Tokens of a question's own words; a trace may say otherwise."""
        return self.workload.prompt.max if self.workload.prompt else self.prompt_tokens

    @property
    def longest_output(self) -> int:
        return self.workload.output.max if self.workload.output else self.output_tokens

    @property
    def longest_request(self) -> int:
        """Tokens that a request can need, answer included: the last turn repeats all before it. 0: a trace
        says it."""
        if self.workload.trace is not None:
            return 0
        shared = (self.prefix.tokens if self.prefix else 0) + (self.images.tokens if self.images else 0)
        return shared + self.turns * (self.longest_prompt + self.longest_output)
