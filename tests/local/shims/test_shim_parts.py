"""The pure parts: tokens, stop strings, timing, devices, versions, shards."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.shims.compiler.shards import _part
from local.shims.faults import faults
from local.shims.server.app import Share
from local.shims.server.engine import Sequence
from local.shims.server.metrics import Histogram, Series
from local.shims.server.options import dashes, human_number
from local.shims.server.text import completion, tokens
from local.shims.server.timing import TimingModel
from local.shims.silicon import Silicon, silicon
from local.shims.versions import NATIVE, NXDI, OPTIMUM, stack

from .conftest import NO_WAIT, PATIENCE, environment, export_command

words = st.lists(st.text("ab ", min_size=1, max_size=4), min_size=1, max_size=20)


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text


@given(words, st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3), st.integers(1, 25), st.booleans())
def test_what_is_shown_ends_before_the_first_stop_string(
    pieces: list[str], stops: list[str], most: int, include: bool
) -> None:
    sequence = Sequence(1, iter(pieces), most, stop=tuple(stops), include_stop=include)
    deltas = []
    while not deltas or deltas[-1].finish is None:
        deltas.append(sequence.advance())
    shown = "".join(delta.text for delta in deltas)
    whole = "".join(pieces[:most])
    assert whole.startswith(shown)
    if deltas[-1].stop is None:
        assert shown == whole
        assert not any(stop in whole for stop in stops)
    else:
        assert whole[len(shown) - (len(deltas[-1].stop) if include else 0) :].startswith(deltas[-1].stop)
    assert sequence.generated <= most


@given(st.text(), st.integers(0, 5), st.integers(0, 500))
def test_a_completion_depends_on_weights_prompt_and_seed_alone(prompt: str, seed: int, shortest: int) -> None:
    one = list(completion("w", prompt, seed, shortest=shortest))
    assert one == list(completion("w", prompt, seed, shortest=shortest))
    assert len(one) >= max(24, shortest)
    assert one[:20] != list(itertools.islice(completion("v", prompt, seed), 20))
    assert all(len(tokens(piece)) == 1 for piece in one)


@given(st.integers(1, 64), st.integers(0, 5000))
def test_time_grows_with_load_and_prompt(running: int, prompt: int) -> None:
    model = TimingModel()
    assert model.decode(running + 1) > model.decode(running)
    assert model.encode(prompt + 100) > model.encode(prompt)
    assert TimingModel(slow=3).decode(running) == pytest.approx(3 * model.decode(running))


@pytest.mark.parametrize(
    ("instance", "devices", "settings", "cores"),
    [
        ("trn2.48xlarge", 16, {}, 64),
        ("trn2.3xlarge", 1, {}, 4),
        ("inf2.xlarge", 1, {}, 2),
        ("trn2.48xlarge", 1, {"NEURON_RT_NUM_CORES": "2"}, 2),
        ("trn2.48xlarge", 1, {"NEURON_RT_VISIBLE_CORES": "0-2", "NEURON_RT_NUM_CORES": "1"}, 3),
        ("trn2.48xlarge", 1, {"NEURON_RT_VISIBLE_CORES": "3"}, 1),
        ("trn2.48xlarge", 1, {"NEURON_RT_VISIBLE_CORES": "0,2-3"}, 3),
        ("", 0, {}, 0),
    ],
)
def test_cores_are_logical_and_visible_ones_win(
    instance: str, devices: int, settings: dict[str, str], cores: int
) -> None:
    assert Silicon(instance, tuple(range(devices))).available_cores(settings) == cores


def test_without_the_variable_there_is_no_device() -> None:
    assert not silicon({}).present


def test_an_image_decides_the_versions() -> None:
    ecr = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-vllm-inference-neuronx"
    public = "public.ecr.aws/neuron/pytorch-inference-vllm-neuronx"
    same = f"{ecr}:0.11.0-optimum0.4.5-neuronx-py310-sdk2.26.1-ubuntu22.04"
    assert stack(environment={"LOCAL_IMAGE": same}) == OPTIMUM
    newer = stack(environment={"LOCAL_IMAGE": same.replace("0.4.5", "0.4.6").replace("2.26.1", "2.27.0")})
    assert (newer.optimum, newer.sdk, newer.neuronxcc != OPTIMUM.neuronxcc) == ("0.4.6", "2.27.0", True)
    nxdi = f"{public}:0.16.0-neuronx-py312-sdk2.31.1-ubuntu24.04"
    native = f"{public}:0.24.0.1.1.0-neuronx-py313-sdk2.32.0-ubuntu24.04"
    assert stack(environment={"LOCAL_IMAGE": nxdi}) == NXDI
    assert stack(environment={"LOCAL_IMAGE": native}) == NATIVE
    assert stack(environment={"LOCAL_IMAGE": "busybox:1"}) == OPTIMUM


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 1))
def test_parts_joined_are_the_tensor_and_zeros(size: int, degree: int, axis: int) -> None:
    shape = (size, 3) if axis == 0 else (3, size)
    tensor = np.arange(1, 1 + 3 * size, dtype=np.uint16).reshape(shape)
    parts = [_part(tensor, axis, rank, degree) for rank in range(degree)]
    assert len({part.shape for part in parts}) == 1
    joined = np.concatenate(parts, axis=axis)
    kept = joined.take(range(size), axis=axis)
    assert (kept == tensor).all()
    assert joined.sum() == tensor.sum()


@given(st.floats(0, 1), st.integers(1, 300))
def test_a_share_is_kept_to_within_one(rate: float, requests: int) -> None:
    share = Share(rate)
    hits = sum(share.hit() for _ in range(requests))
    assert abs(hits - rate * requests) <= 1


def test_series_render_as_prometheus_reads_them() -> None:
    histogram = Histogram("h", "help", (1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    lines = list(histogram.render({"model_name": 'a"b'}))
    assert lines[2:] == [
        'h_bucket{model_name="a\\"b",le="1.0"} 2.0',
        'h_bucket{model_name="a\\"b",le="2.0"} 3.0',
        'h_bucket{model_name="a\\"b",le="+Inf"} 4.0',
        'h_count{model_name="a\\"b"} 4.0',
        'h_sum{model_name="a\\"b"} 12.0',
    ]
    counter = Series("counter", "c", "help")
    counter.inc(1, reason="x")
    counter.inc(2, reason="x")
    assert list(counter.render({}))[-1] == 'c{reason="x"} 3.0'


def test_flags_may_be_written_with_underscores_and_numbers_with_suffixes() -> None:
    assert dashes("--served_model_name=a_b") == "--served-model-name=a_b"
    assert [human_number(text) for text in ("4096", "4k", "4K", "1.5k")] == [4096, 4000, 4096, 1500]


def test_a_knob_that_does_not_exist_ends_the_process() -> None:
    assert faults({"LOCAL_FAULTS": '{"slow": 2}'}).slow == 2
    with pytest.raises(SystemExit, match="unknown knob slwo"):
        faults({"LOCAL_FAULTS": '{"slwo": 2}'})


def test_a_lock_that_a_killed_compiler_left_is_waited_for(checkpoint: Path, tmp_path: Path) -> None:
    settings = environment(tmp_path, faults=NO_WAIT)
    command = export_command(checkpoint, tmp_path / "a")
    subprocess.run(command, env=settings, check=True, capture_output=True, timeout=PATIENCE)
    for entry in tmp_path.glob("neuron-compile-cache/*/MODULE_*"):
        (entry / "model.hlo_module.pb.lock").touch()
    waiting = subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True)
    assert waiting.stderr is not None
    line = next(line for line in waiting.stderr if "Another process must be compiling" in line)
    assert "been waiting for: 0.0 minutes" in line
    for lock in tmp_path.glob("neuron-compile-cache/*/MODULE_*/*.lock"):
        lock.unlink()
    waiting.stderr.read()
    assert waiting.wait(PATIENCE) == 0
