"""Judging by the servers' own histograms, written as vLLM writes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.bench.metrics import parse_metrics
from trainyard.rollout.histograms import Histogram, between, beyond, quantile_bounds, read_scrape
from trainyard.rollout.judge import judge
from trainyard.rollout.live import Live, check_live, live_of
from trainyard.rollout.verdict import Objectives, Verdict

EDGES = {
    "vllm:time_to_first_token_seconds": (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5),
    "vllm:inter_token_latency_seconds": (0.01, 0.025, 0.05, 0.1, 0.2),
    "vllm:e2e_request_latency_seconds": (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0),
}
MEDIANS = {
    "vllm:time_to_first_token_seconds": 0.08,
    "vllm:inter_token_latency_seconds": 0.02,
    "vllm:e2e_request_latency_seconds": 0.7,
}
OBJECTIVES = Objectives(ttft_p95_seconds=0.5, itl_p95_seconds=0.1, min_samples=50)


class Server:
    """Counts as vLLM does."""

    def __init__(self, random: np.random.Generator, slow: float = 1.0, errors: float = 0.0) -> None:
        self.random, self.slow, self.errors = random, slow, errors
        self.tail = 0.0
        self.started = 1000.0
        self.forget()

    def forget(self) -> None:
        self.counts = {name: np.zeros(len(edges) + 1) for name, edges in EDGES.items()}
        self.sums = dict.fromkeys(EDGES, 0.0)
        self.finished = {"stop": 0, "length": 0, "abort": 0, "error": 0}

    def serve(self, requests: int, shared: float = 1.0) -> None:
        for name, edges in EDGES.items():
            seen = MEDIANS[name] * self.slow * shared * np.exp(self.random.normal(0, 0.4, requests))
            seen[self.random.random(requests) < self.tail] *= 5
            self.counts[name] += np.bincount(np.searchsorted(edges, seen), minlength=len(edges) + 1)
            self.sums[name] += float(seen.sum())
        failed = int(self.random.binomial(requests, self.errors))
        self.finished["error"] += failed
        self.finished["stop"] += requests - failed

    def text(self) -> str:
        lines = [f"process_start_time_seconds {self.started}"]
        for name, edges in EDGES.items():
            upto = np.cumsum(self.counts[name])
            lines += [
                f'{name}_bucket{{engine="0",le="{edge}"}} {count}'
                for edge, count in zip([*edges, "+Inf"], upto, strict=True)
            ]
            lines += [f'{name}_sum{{engine="0"}} {self.sums[name]}', f"{name}_count {upto[-1]}"]
        lines += [
            f'vllm:request_success_total{{finished_reason="{reason}"}} {count}'
            for reason, count in self.finished.items()
        ]
        return "\n".join(lines)


def traffic(
    seed: int, *, spans: int = 40, share: float = 0.25, restart: int = -1, tail: float = 0.0, **canary: float
) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    servers = {"canary": Server(random, **canary), "baseline": Server(random)}
    servers["canary"].tail = tail
    rows, shared = [], 1.0
    for moment in range(spans + 1):
        if moment == restart:
            servers["canary"].forget()
            servers["canary"].started += 60
        rows += [
            {"at": moment * 15.0, "arm": arm, "server": f"{arm}-0", "text": server.text()}
            for arm, server in servers.items()
        ]
        shared *= math.exp(random.normal(0, 0.05))
        servers["canary"].serve(int(random.poisson(80 * share)), shared)
        servers["baseline"].serve(int(random.poisson(80 * (1 - share))), shared)
    return rows


def judged(rows: list[dict[str, Any]], objectives: Objectives = OBJECTIVES) -> Verdict:
    return judge(None, None, objectives, baseline_expected=True, live=live_of(rows))


def test_equal_servers_under_real_traffic_pass_without_a_load_test() -> None:
    found = [judged(traffic(seed)).outcome for seed in range(20)]
    assert found.count("pass") >= 18
    assert "fail" not in found


def test_a_slower_canary_fails_by_its_mean() -> None:
    verdict = judged(traffic(1, slow=2.0))
    assert verdict.outcome == "fail"
    assert any("mean" in reason and "x the baseline's" in reason for reason in verdict.reasons)


def test_a_slow_tail_fails_where_the_mean_would_not_have_shown_it() -> None:
    loose = Objectives(ttft_p95_seconds=5, itl_p95_seconds=5, max_ratio={"ttft": 2.0}, min_samples=50)
    checks = check_live(live_of(traffic(2, spans=60, tail=0.15)), loose, baseline_expected=True)
    outcomes = {(check.metric, check.statistic): check.outcome for check in checks}
    assert outcomes["ttft", "tail"] == "fail"
    assert outcomes["ttft", "mean"] != "fail"


def test_a_limit_inside_a_bucket_decides_nothing() -> None:
    verdict = judged(traffic(3), Objectives(ttft_p95_seconds=0.15, itl_p95_seconds=0.1, min_samples=50))
    assert verdict.outcome == "inconclusive"
    assert "between 100 ms and 250 ms" in verdict.summary


def test_an_objective_below_every_bucket_of_the_tail_fails() -> None:
    verdict = judged(traffic(3), Objectives(ttft_p95_seconds=0.06, itl_p95_seconds=0.1, min_samples=50))
    assert verdict.outcome == "fail"


def test_a_restart_is_inconclusive_and_its_counters_are_not_subtracted() -> None:
    rows = traffic(4, restart=20)
    live = live_of(rows)
    assert sum(span.restarts for span in live.canary) == 1
    assert all((h.counts >= 0).all() for span in live.canary for h in span.histograms.values())
    verdict = judged(rows)
    assert verdict.outcome == "inconclusive"
    assert "1 server(s) of the canary started anew" in verdict.reasons


def test_failed_requests_fail_unless_the_baseline_fails_alike() -> None:
    assert judged(traffic(5, errors=0.1)).outcome == "fail"
    rows = traffic(5, errors=0.1)
    alike = [row | {"text": canary["text"]} for row, canary in zip(rows[1::2], rows[::2], strict=True)]
    both = [*rows[::2], *alike]
    assert judged(both).outcome == "infrastructure_fault"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text.replace("vllm:time_to_first", "other:time_to_first"),
        lambda text: text.replace('finished_reason="error"', 'finished_reason="other"'),
        lambda text: "\n".join(
            line.rsplit(" ", 1)[0] + " NaN" if "_sum" in line else line for line in text.splitlines()
        ),
        lambda text: text.replace('le="+Inf"', 'le="9"'),
        lambda text: "<html>",
    ],
)
@pytest.mark.parametrize("arm", ["canary", "baseline"])
def test_what_is_missing_or_spoilt_never_passes_and_never_fails(spoil: Any, arm: str) -> None:
    rows = [row | {"text": spoil(row["text"])} if row["arm"] == arm else row for row in traffic(6, spans=20)]
    if arm == "baseline" and "other" in spoil('finished_reason="error"'):
        return  # only the canary's errors are judged
    assert judged(rows).outcome == "inconclusive"


def silenced(rows: list[dict[str, Any]], arm: str, begin: float, end: float) -> list[dict[str, Any]]:
    """The same, where the arm's server did not answer from one moment on, before another."""

    def said(row: dict[str, Any]) -> dict[str, Any]:
        if row["arm"] != arm or not begin <= row["at"] / 15 < end:
            return row
        return {key: value for key, value in row.items() if key != "text"} | {"error": "ConnectionRefused"}

    return [said(row) for row in rows]


@pytest.mark.parametrize("arm", ["canary", "baseline"])
def test_servers_that_were_heard_for_a_part_of_the_time_do_not_pass(arm: str) -> None:
    """Its pod crashed, and the next one has another address: what was good before says little."""
    rows = traffic(3, spans=60)
    for begin, end in ((20, 99), (0, 20)):
        verdict = judged(silenced(rows, arm, begin, end))
        assert verdict.outcome == "inconclusive"
        assert any("all servers together were heard for " in reason for reason in verdict.reasons)
    # A gap in the middle loses nothing, and one at the end may be chance.
    assert judged(silenced(rows, arm, 20, 40)).outcome == "pass"
    assert judged(silenced(rows, arm, 60, 99)).outcome == "pass"


def test_nothing_at_all_and_too_little_are_inconclusive() -> None:
    assert judged([]).outcome == "inconclusive"
    assert judged(traffic(7, spans=1)).outcome == "inconclusive"
    assert judged(traffic(7, spans=5)).outcome == "inconclusive"


def test_an_ill_device_outranks_the_servers_own_figures() -> None:
    live = live_of(traffic(8, slow=3.0))
    device = {"state": "sick", "text": "1 uncorrected ECC error"}
    found = judge(
        None, None, OBJECTIVES, baseline_expected=True, live=live, device=device, device_expected=True
    )
    assert found.outcome == "infrastructure_fault"


def test_a_canary_without_a_baseline_is_judged_by_its_objectives() -> None:
    live = live_of([row for row in traffic(9) if row["arm"] == "canary"])
    assert judge(None, None, OBJECTIVES, baseline_expected=False, live=live).outcome == "pass"
    assert judge(None, None, OBJECTIVES, baseline_expected=True, live=live).outcome == "inconclusive"
    assert judge(None, None, OBJECTIVES, baseline_expected=False, live=Live([])).outcome == "inconclusive"


@given(st.lists(st.floats(0.001, 3.0), min_size=1, max_size=80), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_bucket_holds_the_quantile_of_the_values_that_it_counted(values: list[float], q: float) -> None:
    edges = (0.01, 0.1, 0.5, 1.0, math.inf)
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges)).astype(np.float64)
    histogram = Histogram(edges, counts, sum(values))
    low, high = quantile_bounds(histogram, q)
    assert low < np.quantile(values, q, method="inverted_cdf") <= high
    for limit in (0.005, 0.1, 0.3, 2.0):
        least, most = beyond(histogram, limit)
        assert least <= sum(value > limit for value in values) <= most
        assert limit != 0.1 or least == most


def test_spans_add_up_to_what_was_served_and_older_names_are_read() -> None:
    random = np.random.default_rng(1)
    server = Server(random)
    server.serve(10)
    before = read_scrape(parse_metrics(server.text()), 0.0)
    server.serve(7)
    older = server.text().replace("inter_token_latency", "time_per_output_token")
    span = between(before, read_scrape(parse_metrics(older), 15.0))
    assert {metric: found.count for metric, found in span.histograms.items()} == {
        "ttft": 7.0,
        "itl": 7.0,
        "e2e": 7.0,
    }
    assert span.finished["stop"] == 7
    assert span.restarts == 0
