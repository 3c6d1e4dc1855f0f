"""What a person asks for: one YAML file of the catalogue, or one request over it.

Every model refuses unknown fields, so that a misspelt one is an error and not a silent default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from trainyard.errors import Problem, Refused
from trainyard.load_spec import Load
from trainyard.parts import Part, Positive

# The DAG has one task for each step that a spec can have, so the number is fixed here. A test holds the
# catalogue to it.
MAX_STEPS = 4
# A try of the task each, and Airflow wants to know how many tries there can be.
MAX_EXTENSIONS = 5

# What an entry is, and what it is held to, cannot be overridden for a single release.
FIXED = ("name", "bedrock")

NAME = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
# Deployments and Services are named after the model, and a Service's name begins with a letter (RFC 1035).
MODEL_NAME = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
REPO = r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*/[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$"
REVISION = r"^[A-Za-z0-9][A-Za-z0-9_-]*([./][A-Za-z0-9_-]+)*$"
SOURCE = r"^(hf|s3|file)://[^\s]+$"
COMMIT = r"^[0-9a-f]{40}$"
_QUANTITY = re.compile(r"^([0-9]+)(Ki|Mi|Gi|Ti)$")
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

Quantity = Annotated[str, Field(pattern=_QUANTITY.pattern, description="Memory, such as 64Gi.")]


def bytes_of(quantity: str) -> int:
    """'64Gi' -> bytes."""
    match = _QUANTITY.match(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is no quantity such as 64Gi")
    return int(match[1]) * _UNITS[match[2]]


def plain_source(model: Mapping[str, Any]) -> dict[str, Any]:
    """`source: hf://org/name@revision` is another way to write repo and revision: here it becomes that.

    Raises ValueError where they are given, too, and say something else.
    """
    plain, source = dict(model), model.get("source")
    if not isinstance(source, str) or not source.startswith("hf://"):
        return plain
    repo, _, revision = source.removeprefix("hf://").partition("@")
    for name, said in (("repo", repo), ("revision", revision)):
        if said and plain.setdefault(name, said) != said:
            raise ValueError(
                f"source names the {name} {said}, and {name} is {plain[name]}: leave one of them out"
            )
    return {**plain, "source": None}


class ModelSource(Part):
    repo: str = Field(
        pattern=REPO, max_length=96, description="Repository on the Hub: org/name; the model's name in S3."
    )
    source: str | None = Field(
        None,
        pattern=SOURCE,
        max_length=1024,
        description="Where the files are, if not on the Hub: s3://bucket/prefix, or file:///folder.",
    )
    revision: str = Field(
        "main", pattern=REVISION, max_length=128, description="Branch, tag or commit that is followed."
    )
    token_secret: str | None = Field(
        None, pattern=NAME, description="Kubernetes Secret with the Hub token under the key `token`."
    )

    @model_validator(mode="before")
    @classmethod
    def _hub_by_name(cls, value: Any) -> Any:
        return plain_source(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _no_branches_elsewhere(self) -> ModelSource:
        if self.source is not None and self.revision != "main" and not re.match(COMMIT, self.revision):
            raise ValueError(
                f"{self.source} has no branches or tags such as {self.revision}: leave revision out, or name "
                "the 40 digits that a plan or `trainyard store add` printed"
            )
        return self


class Hardware(Part):
    instance_type: str = Field("trn2.48xlarge", pattern=r"^[a-z0-9]+\.[a-z0-9]+$")
    nodepool: str = Field(
        "neuron-trn2", pattern=NAME, description="Karpenter NodePool that brings the nodes."
    )
    tensor_parallel: int = Field(ge=1, le=128, description="Logical NeuronCores that share the model.")
    lnc: Literal[1, 2] | None = Field(
        None, description="Physical cores that make one logical core; default: the engine's (2 on trn2)."
    )


class Bundling(Part):
    """What the compiled set holds."""

    holds: Literal["graph", "weights"] | None = Field(
        None,
        description="`weights`: sharded for this TP, larger, servers start faster; `graph`: a revision that "
        "changes weights only is not compiled again. Default: the engine's.",
    )
    reason: str = Field("", max_length=500, description="Why; for those who read the spec later.")


class Compile(Part):
    batch_size: int = Field(4, ge=1, le=512)
    sequence_length: int = Field(4096, ge=64, le=1_048_576, description="Tokens, prompt and answer together.")
    cpu: int = Field(8, ge=1, le=192)
    memory: Quantity = "64Gi"
    deadline_minutes: int = Field(115, ge=1, le=600, description="Then the pod is stopped.")
    quantization: Literal["fp8_e4m3", "int8"] | None = Field(
        None, description="Quantize BF16 or FP16 weights while compiling, where the engine can."
    )
    bundle: Bundling = Bundling()
    annotations: dict[str, str] = Field(default_factory=dict, description="Added to the compile pod.")


class Serving(Part):
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,95}$",
        description="Model name in the API; default: the repo.",
    )
    replicas: int = Field(1, ge=1, le=64)
    cpu: int = Field(8, ge=1, le=192)
    memory: Quantity = "64Gi"
    ready_deadline_minutes: int = Field(
        30, ge=1, le=240, description="From the Deployment to a real generation."
    )
    grace_seconds: int = Field(120, ge=1, le=3600, description="For streams in flight when a server goes.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Added to the server pods.")


class Objectives(Part):
    """What must hold. Latencies in seconds at the client; ratios are canary over baseline."""

    ttft_p95_seconds: Positive = 1.0
    itl_p95_seconds: Positive = 0.1
    e2e_p95_seconds: Positive | None = None
    max_error_rate: float = Field(0.01, ge=0, lt=1)
    max_ratio: float = Field(
        1.25, ge=1.0, le=10, description="How much slower than the baseline is still good."
    )
    min_samples: int = Field(50, ge=5, le=1_000_000, description="Requests an arm; fewer are never judged.")


class Step(Part):
    weight: int = Field(ge=1, le=99, description="Percent of live traffic for the canary.")
    observe_seconds: float = Field(300, gt=0, le=86_400)
    synthetic: bool = Field(
        True,
        description="Whether a load test runs beside the real traffic; else that alone is judged.",
    )


class Rollout(Part):
    load: Load = Load()
    objectives: Objectives = Objectives()
    steps: tuple[Step, ...] = Field((Step(weight=5), Step(weight=25), Step(weight=50)), max_length=MAX_STEPS)
    extensions: int = Field(
        2, ge=0, le=MAX_EXTENSIONS, description="How often a step is prolonged when it measured too little."
    )
    smoke_prompts: tuple[str, ...] = Field(("Say hello.", "Count to three."), min_length=1, max_length=50)

    @model_validator(mode="after")
    def _weights_rise(self) -> Rollout:
        weights = [step.weight for step in self.steps]
        if any(later <= earlier for earlier, later in pairwise(weights)):
            raise ValueError(f"weights must rise from step to step, got {weights}")
        return self


class Bedrock(Part):
    """The model of Amazon Bedrock that this release must stay in step with."""

    model_id: str = Field(
        pattern=r"^[a-z0-9-]+\.[a-z0-9][a-z0-9.-]*$",
        max_length=128,
        description="Without its version, such as meta.llama3-1-8b-instruct.",
    )
    version: str = Field(
        pattern=r"^v?[0-9]+(:[0-9]+)?$", description="The version of the id that is served there: v1:0."
    )
    region: str | None = Field(
        None, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$", description="Where it is asked for; default: ours."
    )
    revision: str | None = Field(
        None, pattern=r"^[0-9a-f]{40}$", description="The Hub's commit that equals this version."
    )


class Spec(Part):
    """A release, as asked for."""

    name: str = Field(
        pattern=MODEL_NAME, description="The model's name in Trainyard: channel, Deployments, ledger."
    )
    description: str = ""
    model: ModelSource
    engine: str = Field("optimum", pattern=NAME)
    image: str | None = Field(
        None,
        pattern=r"^[a-z0-9][A-Za-z0-9._/:@-]{0,254}$",
        description="Instead of the engine's own image: a mirror of it, with the same versions inside.",
    )
    hardware: Hardware
    compile: Compile = Compile()
    serving: Serving = Serving()
    rollout: Rollout = Rollout()
    bedrock: Bedrock | None = Field(None, description="Reported by the refresh when it gets out of step.")

    @property
    def served_name(self) -> str:
        return self.serving.name or self.model.repo


class Request(Part):
    """One request for a release: what the DAG's Params say. `request` tells two equal requests apart on
    purpose."""

    release: str = Field(pattern=MODEL_NAME, description="An entry of the catalogue.")
    revision: str | None = Field(None, pattern=REVISION, max_length=128)
    overrides: dict[str, Any] = Field(default_factory=dict)
    request: str = Field("", pattern=r"^[A-Za-z0-9_.-]{0,64}$")


def parse_spec(document: Any, source: str) -> Spec:
    """Validates a document. Raises Refused with every problem; `source` names it in the message."""
    try:
        return Spec.model_validate(document)
    except ValidationError as error:
        raise Refused(problems_of(error, source)) from None


def parse_request(document: Any) -> Request:
    try:
        return Request.model_validate(document)
    except ValidationError as error:
        raise Refused(problems_of(error, "request")) from None


def problems_of(error: ValidationError, source: str) -> list[Problem]:
    """pydantic's findings in our words."""
    return [
        Problem(
            ".".join(str(part) for part in item["loc"]) or "(whole document)",
            item["input"] if isinstance(item["input"], str | int | float | bool | None) else "…",
            item["msg"],
            _REMEDIES.get(item["type"], f"Correct it in {source}; docs/spec.md lists the fields."),
        )
        for item in error.errors()
    ]


_REMEDIES = {
    "extra_forbidden": "No such field: check the spelling against docs/spec.md, or remove it.",
    "missing": "Add the field.",
}


def merge(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Lays overrides over a document: objects are merged, everything else is replaced."""
    out = dict(base)
    for key, value in overrides.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out
