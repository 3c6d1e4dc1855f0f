"""From a spec's load to what is sent, and what plan refuses of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import LLAMA, PaperHub, entry, paper_context
from trainyard.bench.workload import Workload
from trainyard.errors import Problem, Refused
from trainyard.load_spec import Load
from trainyard.spec import parse_spec
from trainyard.stages.plan import make_plan
from trainyard.stages.workloads import expected_requests, workload_of

TRACE = [{"timestamp": 500 * number, "input_length": 900, "output_length": 50} for number in range(120)]


def workload(load: dict[str, Any], seconds: float = 10, *, step: bool = False) -> Workload:
    """What the load generators would read."""
    return Workload.from_dict(json.loads(json.dumps(workload_of(Load(**load), seconds, step=step))))


def test_a_load_without_arrivals_is_the_closed_loop_of_its_users() -> None:
    found = workload({"concurrency": 3, "prompt_tokens": 9, "output_tokens": 8, "max_lag_seconds": 0.4})
    assert (found.concurrency, found.prompt_tokens, found.output_tokens) == (3, 9, 8)
    assert (found.max_loop_lag_seconds, found.duration_seconds, found.schedule) == (0.4, 10, None)


def test_every_part_of_a_load_reaches_the_generators() -> None:
    lengths = {"median": 20, "sigma": 0.5, "max": 90, "min": 3}
    found = workload(
        {
            "arrivals": {"process": "gamma", "shape": 0.5, "rate": 4},
            "workload": {"shape": "lognormal", "prompt": lengths, "output": lengths},
            "prefix": {"groups": 2, "tokens": 30},
            "conversation": {"turns": 3, "think_seconds": 1.5},
            "images": {"width": 64, "height": 32},
        }
    )
    assert found.schedule is not None
    assert (found.schedule.process, found.schedule.shape, found.schedule.expected) == ("gamma", 0.5, 40)
    assert found.prompt_lengths == found.output_lengths
    assert found.prompt_lengths is not None
    assert vars(found.prompt_lengths) == lengths
    assert (found.turns, found.prefix and found.prefix.tokens) == (3, 30)
    assert (found.images and found.images.width) == 64


def test_stages_climb_in_the_load_test_and_a_step_keeps_the_first_rate() -> None:
    load = {"arrivals": {"stages": [{"seconds": 20, "rate": 0, "to": 5}, {"seconds": 30, "rate": 40}]}}
    climbing, beside_users = workload(load), workload(load, 60, step=True)
    assert climbing.schedule is not None
    assert climbing.schedule.seconds == Load(**load).seconds == 50
    assert climbing.schedule.expected == expected_requests(Load(**load), 10) == 1250
    assert beside_users.schedule is not None
    assert beside_users.schedule.expected == expected_requests(Load(**load), 60, step=True) == 300


def test_a_trace_goes_by_its_name_in_s3() -> None:
    load = Load(
        arrivals={"process": "trace", "speed": 2}, workload={"shape": "trace", "trace": "s3://b-1/t/a.jsonl"}
    )
    document = workload_of(load, 10)
    assert document["trace"] == "s3://b-1/t/a.jsonl"
    assert document["arrivals"] == {"process": "trace", "speed": 2}


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({"arrivals": {}}, "rate, or stages"),
        ({"arrivals": {"rate": 1, "stages": [{"seconds": 1, "rate": 1}]}}, "rate, or stages"),
        ({"arrivals": {"stages": [{"seconds": 1, "rate": 0}]}}, "sends nothing"),
        ({"arrivals": {"process": "trace"}}, r"needs workload\.trace"),
        ({"arrivals": {"process": "uniform", "rate": 1}}, "constant"),
        ({"workload": {"shape": "lognormal"}}, "prompt or output"),
        ({"workload": {"shape": "trace"}}, "go together"),
        ({"workload": {"trace": "t/a.jsonl"}}, "go together"),
        ({"workload": {"prompt": {"median": 5, "sigma": 1, "max": 9}}}, "shape: lognormal"),
        (
            {"workload": {"shape": "lognormal", "prompt": {"median": 50, "sigma": 1, "max": 9}}},
            "median <= max",
        ),
        ({"workload": {"shape": "trace", "trace": "s3://UP/a"}}, "pattern"),
        ({"workload": {"shape": "trace", "trace": "a"}, "conversation": {"turns": 2}}, "leave prefix"),
        ({"conversation": {"turns": 1}}, "greater than or equal to 2"),
        ({"images": {"width": 99_999, "height": 16}}, "less than or equal"),
        ({"images": {"width": 16, "height": 4000}}, "200 times the other"),
    ],
)
def test_a_load_that_contradicts_itself_is_refused(load: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        parse_spec(entry(rollout={"load": load}), "here")


def problems(
    folder: Path, load: dict[str, Any], trace: list[Any] | None = None, **changes: Any
) -> dict[str, Problem]:
    """What plan says; the trace lies at `traces/a.jsonl`."""
    hub = PaperHub({**LLAMA, **changes.pop("config", {})}, {"model.safetensors": 16 * 10**9})
    ctx = paper_context(folder, hub)
    if trace is not None:
        ctx.objects.put("traces/a.jsonl", "\n".join(json.dumps(row) for row in trace).encode())
    steps = changes.pop("steps", [{"weight": 10, "observe_seconds": 60}])
    try:
        make_plan(ctx, parse_spec(entry(rollout={"load": load, "steps": steps}, **changes), "here"))
    except Refused as error:
        return {problem.field: problem for problem in error.problems}
    return {}


def replayed(trace: str = "traces/a.jsonl", **more: Any) -> dict[str, Any]:
    return {"arrivals": {"process": "trace"}, "workload": {"shape": "trace", "trace": trace}, **more}


def test_plan_reads_the_trace_and_takes_a_good_one(tmp_path: Path) -> None:
    assert problems(tmp_path, replayed(), TRACE) == {}


def test_plan_refuses_a_trace_that_is_not_there_or_broken_by_its_line(tmp_path: Path) -> None:
    assert problems(tmp_path, replayed())["trace"].rule == "is not there"
    found = problems(tmp_path, replayed(), [*TRACE, {"input_length": -1}])
    assert set(found) == {"traces/a.jsonl:121: input_length"}
    (moment,) = problems(tmp_path, replayed(), [{"input_length": 9}] * 99).values()
    assert "have no moments" in moment.rule


def test_plan_refuses_requests_that_are_longer_than_what_is_compiled(tmp_path: Path) -> None:
    long = [*TRACE, {"timestamp": 0, "input_length": 4000, "output_length": 49}]
    (problem,) = problems(tmp_path, replayed(), long).values()
    assert "needs 4097 tokens" in problem.rule
    talk = {"conversation": {"turns": 20}}
    (problem,) = problems(tmp_path, talk).values()
    assert (problem.field, problem.value) == ("rollout.load", 20 * (256 + 64))
    assert problems(tmp_path, {"conversation": {"turns": 12}}) == {}


def test_plan_refuses_pictures_for_an_engine_that_shows_the_model_none(tmp_path: Path) -> None:
    found = problems(tmp_path, {"images": {"width": 224, "height": 224}})
    assert found["rollout.load.images"].value == "llama"


QWEN3_VL = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "text_config": {
        **{name: LLAMA[name] for name in LLAMA if name not in ("architectures", "torch_dtype")},
        "dtype": "bfloat16",
        "head_dim": 128,
        "intermediate_size": 12288,
        "model_type": "qwen3_vl_text",
    },
    "vision_config": {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 16},
}


def seen(folder: Path, load: dict[str, Any], **changes: Any) -> dict[str, Problem]:
    """What plan says of a model with eyes; other parts as for `problems`."""
    hub = PaperHub(dict(QWEN3_VL), {"model.safetensors": 16 * 10**9})
    document = entry(rollout={"load": load, "steps": []}, **{"engine": "native", **changes})
    try:
        make_plan(paper_context(folder, hub), parse_spec(document, "here"))
    except Refused as error:
        return {problem.field: problem for problem in error.problems}
    return {}


def test_plan_shows_pictures_to_a_qwen3_vl_on_the_native_engine_and_nowhere_else(tmp_path: Path) -> None:
    shown = {"images": {"width": 512, "height": 512}}
    assert seen(tmp_path, shown) == {}
    assert "rollout.load.images" in seen(tmp_path, shown, engine="optimum")
    assert "rollout.load.images" in problems(tmp_path, shown, engine="native")


def test_plan_adds_pictures_to_what_a_request_needs(tmp_path: Path) -> None:
    small = {"width": 64, "height": 64}  # 102 tokens each, as a model enlarges them
    room = {"compile": {"batch_size": 8, "sequence_length": 470, "memory": "64Gi"}}
    assert seen(tmp_path, {"images": small}, **room) == {}
    found = seen(tmp_path, {"images": {**small, "count": 2}}, **room)
    assert {name: problem.value for name, problem in found.items()} == {"rollout.load": 256 + 64 + 2 * 102}


def test_an_open_loop_that_could_never_be_judged_is_refused(tmp_path: Path) -> None:
    slow = {"arrivals": {"rate": 0.2}, "duration_seconds": 60}
    found = problems(tmp_path, slow, steps=[{"weight": 10, "observe_seconds": 600}])
    # 12 in the load test, thrice with two extensions; 360 in the step.
    assert {key: problem.value for key, problem in found.items()} == {"rollout.load": 36.0}
    assert "min_samples is 50" in found["rollout.load"].rule
    assert problems(tmp_path, {**slow, "conversation": {"turns": 3}}, steps=[]) == {}
    found = problems(tmp_path, replayed(duration_seconds=6), TRACE)
    assert {key: problem.value for key, problem in found.items()} == {"rollout.load": 39.0}
    huge = {"arrivals": {"rate": 1000}, "duration_seconds": 7200}
    assert "more than 1000000" in problems(tmp_path, huge)["rollout.load"].rule
