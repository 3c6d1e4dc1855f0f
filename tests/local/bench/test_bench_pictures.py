"""`trainyard bench --images` against stand-ins of vLLM: a model that has eyes, and one that has none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from local.checkpoints.checkpoint import write_checkpoint
from local.checkpoints.shape import Shape
from tests.local.shims.clients import metric
from tests.local.shims.conftest import NO_WAIT, Served, starting_servers
from trainyard.bench.samples import Sample, unpack
from trainyard_cli.main import app

IMAGE = "pytorch-inference-vllm-neuronx:0.24.0.1.1.0-neuronx-py313-sdk2.32.0-ubuntu24.04"
PICTURE = 64 + 2  # tokens of 64 x 64 pixels, and of the marks around
QUICK = ["--prompt-tokens", "20", "--output-tokens", "4", "--max-lag", "30", "--concurrency", "2"]
QUICK += ["--requests", "12"]
Serve = Callable[..., Served]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with starting_servers() as begin:

        def _serve(architecture: str, *flags: str) -> Served:
            folder = tmp_path_factory.mktemp(architecture)
            model = write_checkpoint(folder / "model", seed=1, shape=Shape(architecture=architecture))
            command: list[str | Path] = ["vllm", "serve", model, "--served-model-name", "tiny"]
            command += ["--max-model-len", "1024", "--max-num-seqs", "2", *flags]
            cache = str(folder / "cache")
            return begin(command, folder, faults=NO_WAIT, LOCAL_IMAGE=IMAGE, VLLM_CACHE_ROOT=cache)

        yield _serve


@pytest.fixture(scope="module")
def seeing(serve: Serve) -> Served:
    return serve("qwen3_vl", "--limit-mm-per-prompt", '{"image": 1}')


def bench(url: str, out: Path, *words: str) -> tuple[int, dict[str, Any], list[Sample]]:
    done = CliRunner().invoke(app, ["bench", url, *QUICK, *words, "--json", "--out", str(out)])
    summary = json.loads((out / "summary.json").read_text())
    return done.exit_code, summary, unpack((out / "samples.ndjson.gz").read_bytes())


def test_a_model_with_eyes_answers_every_question_with_a_picture_and_counts_it(
    seeing: Served, tmp_path: Path
) -> None:
    words = ["--no-warm-up", "--seed", "7"]
    _, _, plain = bench(seeing.url, tmp_path / "plain", *words)
    code, summary, shown = bench(seeing.url, tmp_path / "shown", *words, "--images", "64x64")
    arm = summary["arms"]["server"]
    assert (code, arm["failures"]) == (0, {})
    assert arm["succeeded"] == arm["requests"] == len(shown) > 1
    # The same seed asks the same words.
    of_words = {sample.pair: sample.prompt_tokens for sample in plain}
    both = [sample for sample in shown if sample.pair in of_words]
    assert both
    assert all(sample.prompt_tokens == of_words[sample.pair] + PICTURE for sample in both)


def test_the_warm_up_shows_pictures_too(seeing: Served, tmp_path: Path) -> None:
    def asked(**labels: str) -> float:
        return metric(seeing.url, "vllm:request_prompt_tokens_bucket", model_name="tiny", **labels)

    short, before = asked(le="50.0"), asked(le="+Inf")
    done = CliRunner().invoke(app, ["bench", seeing.url, *QUICK, "--images", "64x64", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    samples = unpack((tmp_path / "samples.ndjson.gz").read_bytes())
    assert asked(le="+Inf") - before > len(samples)
    assert asked(le="50.0") == short  # a question without its picture has fewer tokens


def test_pictures_fail_where_the_server_takes_none(serve: Serve, tmp_path: Path) -> None:
    url = serve("qwen3").url
    code, summary, _ = bench(url, tmp_path, "--no-warm-up", "--images", "64x64")
    assert code == 1
    assert set(summary["arms"]["server"]["failures"]) == {"http_4xx"}
