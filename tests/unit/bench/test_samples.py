"""What is kept of a request, and what is added up of many."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.bench.health import judge_generator
from trainyard.bench.metrics import parse_metrics
from trainyard.bench.samples import FAILURES, Sample, pack, parse, unpack
from trainyard.bench.summary import quantile, summarize, values
from trainyard.bench.warmup import settled
from trainyard.bench.words import prompt
from trainyard.bench.workload import Workload, order, payload
from trainyard.errors import Refused


def sample(**fields: object) -> Sample:
    values = {"arm": "canary", "started": 1.0, "e2e": 0.5, "ok": True, "ttft": 0.1, "output_tokens": 4}
    return Sample(**(values | fields))  # type: ignore[arg-type]


def test_rows_come_back_as_they_were_written() -> None:
    samples = [sample(chunk_times=(0.1, 0.2), chunk_tokens=(1, 3), pair=7), sample(ok=False, error="cut")]
    assert unpack(pack(samples)) == samples
    assert pack(samples) == pack(samples)


@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(1, 9)), max_size=5))
def test_a_line_says_what_the_row_says_to_a_tenth_of_a_microsecond(chunks: list[tuple[float, int]]) -> None:
    times, counts = tuple(time for time, _ in chunks), tuple(count for _, count in chunks)
    one = sample(chunk_times=times, chunk_tokens=counts, detail='"quoted"\n', pair=3)
    (back,) = parse(one.to_line() + "\n")
    assert back.chunk_times == pytest.approx(times, rel=0, abs=1e-7)
    assert replace(back, chunk_times=times) == one


def test_a_row_that_its_writer_could_not_finish_is_left_out() -> None:
    line = json.dumps(sample().to_row())
    assert list(parse(f"{line}\n{line[:20]}")) == [sample()]
    with pytest.raises(ValueError):
        list(parse(f"{line[:20]}\n{line}\n"))


def test_a_row_of_a_newer_version_is_read() -> None:
    assert Sample.from_row(sample().to_row() | {"colour": "red"}) == sample()


def test_a_chunk_of_several_tokens_counts_as_as_many_gaps() -> None:
    packed = sample(chunk_times=(0.10, 0.18, 0.20), chunk_tokens=(2, 4, 1))
    assert packed.gaps() == pytest.approx([0.02] * 5)
    assert packed.tpot == pytest.approx(0.02)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_percentiles_are_exact_and_were_really_seen(numbers: list[float], q: float) -> None:
    ordered = sorted(numbers)
    value = quantile(ordered, q)
    assert value in numbers
    assert sum(number <= value for number in numbers) >= q * len(numbers) - 1e-6
    assert value == np.quantile(numbers, q, method="inverted_cdf")


def test_every_kind_of_failure_is_counted_and_censored_ones_apart() -> None:
    kinds = [kind for number, kind in enumerate(FAILURES) for _ in range(number + 1)]
    random.Random(1).shuffle(kinds)
    samples = [sample(ok=False, error=kind, ttft=None) for kind in kinds] + [sample()]
    figures = summarize(samples, ["canary", "baseline"])
    canary = figures["canary"]
    assert canary["failures"] == {
        kind: number + 1 for number, kind in enumerate(FAILURES) if kind != "censored"
    }
    assert (canary["censored"], canary["succeeded"]) == (len(FAILURES), 1)
    assert canary["requests"] == canary["succeeded"] + canary["failed"] + canary["censored"]
    assert figures["baseline"]["requests"] == 0
    assert figures["baseline"]["ttft"] == {"count": 0}


def test_failures_do_not_enter_the_latencies() -> None:
    figures = summarize([sample(), sample(ok=False, error="cut", ttft=9.0)], ["canary"])
    assert figures["canary"]["ttft"]["max"] == 0.1
    assert values([sample(), sample(ok=False, error="cut", ttft=9.0)], "ttft") == [0.1]


def generator(**reading: float) -> list[str]:
    values = {"loop_lag_p99_seconds": 0.001, "cpu_share": 0.1, "seconds": 5.0} | reading
    figures = judge_generator(values, [sample()], max_lag=0.1, max_cpu_share=0.9)
    assert figures["valid"] == (not figures["reasons"])
    return list(figures["reasons"])


def test_a_generator_that_could_not_keep_up_says_so() -> None:
    assert generator() == []
    assert "250 ms late" in generator(loop_lag_p99_seconds=0.25)[0]
    assert "97%" in generator(cpu_share=0.97)[0]
    assert (
        "ran 20% of the time and waited for a core for 75%" in generator(cpu_share=0.2, waiting_share=0.75)[0]
    )
    assert "wall clock was set by 40 ms" in generator(clock_step_seconds=0.04)[0]
    assert generator(loop_lag_p99_seconds=float("inf"))
    assert generator(loop_lag_p99_seconds=float("nan"))


def test_a_run_without_a_request_is_invalid() -> None:
    figures = judge_generator({"loop_lag_p99_seconds": 0.0, "cpu_share": 0.0}, [], max_lag=1, max_cpu_share=1)
    assert figures["reasons"] == ["not a single request was sent"]
    assert not judge_generator(None, [sample()], max_lag=1, max_cpu_share=1)["valid"]


def test_the_same_seed_asks_the_same_and_another_shares_no_prefix() -> None:
    assert prompt(50, "1/2") == prompt(50, "1/2")
    assert len(prompt(50, "1/2").split()) == 50
    assert prompt(50, "1/2")[:20] != prompt(50, "1/3")[:20]
    firsts = {order(["a", "b"], f"1/{pair}")[0] for pair in range(20)}
    assert firsts == {"a", "b"}


def test_token_counts_are_asked_for_along_with_the_stream() -> None:
    body = payload("m", "hi", output_tokens=8, extra={"ignore_eos": True})
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert body["messages"][0]["content"] == "hi"
    assert body["ignore_eos"] is True
    assert payload("m", "hi", output_tokens=8, stream=False, chat=False).keys() >= {"prompt", "max_tokens"}


@pytest.mark.parametrize(
    "document", [{"concurency": 4}, {"concurrency": 0}, {"duration_seconds": "8"}, {"requests": -1}]
)
def test_a_workload_that_makes_no_sense_is_refused_by_field(document: dict[str, object]) -> None:
    with pytest.raises(Refused, match=rf"workload\.{next(iter(document))}"):
        Workload.from_dict(document)


def test_latency_has_settled_when_the_last_three_are_like_the_three_before() -> None:
    assert not settled([0.1] * 5)
    assert settled([0.9, 0.1, 0.11, 0.1, 0.1, 0.12, 0.1])
    assert not settled([0.9, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_metrics_are_read_with_their_labels() -> None:
    text = '# TYPE a gauge\na{model="x\\"y",le="+Inf"} 3\nb 1.5e3 1700000000\nc NaN\n'
    points = parse_metrics(text)
    assert points[0].labels == (("model", 'x"y'), ("le", "+Inf"))
    assert [point.value for point in points[:2]] == [3.0, 1500.0]


@pytest.mark.parametrize("text", ["<html>", "a{b=c} 1", "a", "a one"])
def test_a_scrape_that_is_none_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        parse_metrics(text)
