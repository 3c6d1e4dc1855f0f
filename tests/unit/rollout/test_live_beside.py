"""The servers' own figures beside a load test, of engines that tell less, of little traffic, and watched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.unit.rollout.simulated import simulate, summary_of
from tests.unit.rollout.test_live import OBJECTIVES, judged, silenced, traffic
from trainyard.bench.metrics import parse_metrics
from trainyard.rollout import evidence
from trainyard.rollout.histograms import between, failed_and_ended, read_scrape
from trainyard.rollout.judge import judge
from trainyard.rollout.live import Live, Spans, alarms, joined, live_of
from trainyard.rollout.verdict import Objectives, Verdict

Rows = list[dict[str, Any]]


def synthetic(rows: Rows) -> Rows:
    return [row | {"synthetic": row["at"] > 0} for row in rows]


def beside(rows: Rows, objectives: Objectives = OBJECTIVES) -> Verdict:
    """With samples of a load test that passes."""
    samples = simulate(3, pairs=120, tokens=4)[1]
    return judge(
        summary_of(samples), samples, objectives, baseline_expected=True, live=live_of(synthetic(rows))
    )


def test_beside_samples_a_limit_inside_a_bucket_hinders_nothing_and_arms_are_not_compared() -> None:
    inside = replace(OBJECTIVES, ttft_p95_seconds=0.15, max_ratio=dict.fromkeys(OBJECTIVES.max_ratio, 2.0))
    assert judged(traffic(3), inside).outcome == "inconclusive"
    verdict = beside(traffic(3), inside)
    assert verdict.outcome == "pass"
    assert [check.text for check in verdict.checks if check.metric == "servers"] == [
        "servers: nothing against the canary in 40 spans of their own figures"
    ]
    # The baseline serves users as well: their prompts are others than ours.
    assert beside(traffic(3, slow=1.6), replace(inside, ttft_p95_seconds=0.5)).outcome == "pass"


def test_beside_samples_the_servers_can_still_fail_a_canary() -> None:
    slow = beside(traffic(4, slow=12.0))
    assert slow.outcome == "fail"
    assert "servers: ttft p95 between 1.00 s and 2.50 s" in slow.reasons[0]
    assert beside(traffic(4, errors=0.1)).outcome == "fail"
    restarted = beside(traffic(4, restart=20))
    assert restarted.outcome == "inconclusive"
    assert restarted.reasons == ("1 server(s) of the canary started anew",)
    # One that was replaced started anew as well, where nobody looked. The baseline's is not the canary's.
    gone = beside(silenced(traffic(4), "canary", 20, 99))
    assert gone.outcome == "inconclusive"
    assert gone.reasons == ("1 server(s) of the canary did not answer any more",)
    assert beside(silenced(traffic(4), "baseline", 20, 99)).outcome == "pass"
    assert beside(silenced(traffic(4), "canary", 0, 99)).outcome == "pass"


@pytest.mark.parametrize("gap", ["", "<html>"])
def test_beside_samples_what_cannot_be_read_is_not_judged(gap: str) -> None:
    rows = traffic(5, spans=12)
    broken = [row | {"text": gap} for row in rows]
    silent = [{key: row[key] for key in ("at", "arm", "server")} | {"error": "refused"} for row in rows]
    for spoilt in (broken, silent):
        verdict = beside(spoilt)
        assert verdict.outcome == "pass"
        assert any("they told nothing" in check.text for check in verdict.checks)
        assert judged(spoilt).outcome == "inconclusive"  # alone, nothing is shown by it


def without(rows: Rows, *names: str) -> Rows:
    def cut(text: str) -> str:
        return "\n".join(line for line in text.splitlines() if not line.startswith(names))

    return [row | {"text": cut(row["text"])} for row in rows]


def test_what_an_engine_never_tells_is_not_judged_and_named() -> None:
    verdict = judged(without(traffic(6), "vllm:time_to_first", "vllm:inter_token"))
    assert verdict.outcome == "pass"
    assert "servers: ttft, itl is not judged, neither arm's servers tell it" in [
        check.text for check in verdict.checks
    ]
    assert judged(without(traffic(6, slow=2.0), "vllm:time_to_first", "vllm:inter_token")).outcome == "fail"
    nothing = judged(without(traffic(6), "vllm:time_to_first", "vllm:inter_token", "vllm:e2e"))
    assert nothing.outcome == "inconclusive"
    assert "the servers tell no latency at all" in nothing.reasons


def test_a_page_of_tgis_is_read_and_its_clients_mistakes_are_not_its_failures() -> None:
    def page(requests: int, failed: int) -> str:
        good = requests - failed
        lines = [
            f"tgi_request_count {requests}",
            f"tgi_request_success {good}",
            'tgi_request_failure{err="validation"} 7',
            f'tgi_request_duration_bucket{{le="0.5"}} {good}',
            f'tgi_request_duration_bucket{{le="+Inf"}} {good}',
            f"tgi_request_duration_sum {good * 0.3}",
        ]
        return "\n".join(lines + [f'tgi_request_failure{{err="generation"}} {failed}'] * (failed > 0))

    first, last = (
        read_scrape(parse_metrics(page(*counts)), at) for at, counts in enumerate([(5, 0), (45, 4)])
    )
    span = between(first, last)
    assert failed_and_ended(span) == (4, 40)
    assert span.histograms["e2e"].count == 36
    assert set(span.histograms) == {"e2e"}


def test_answers_of_5xx_count_where_vllm_knows_no_error_reason_yet() -> None:
    def page(stop: int, refused: int, reason: int | None) -> str:
        name = 'http_requests_total{handler="/v1/chat/completions",method="POST",status='
        lines = [f'vllm:request_success_total{{finished_reason="stop"}} {stop}', f'{name}"2xx"}} {stop}']
        lines += [f'{name}"5xx"}} {refused}'] * (refused > 0)
        lines.append('http_requests_total{handler="/v1/models",status="5xx"} 99')
        return "\n".join(
            lines + [f'vllm:request_success_total{{finished_reason="error"}} {reason}'] * (reason is not None)
        )

    def span(*pages: str) -> Any:
        first, last = (read_scrape(parse_metrics(text), at) for at, text in enumerate(pages))
        return between(first, last)

    assert failed_and_ended(span(page(1, 0, None), page(81, 20, None))) == (20, 100)
    # A failure may be in both counts, so the larger one is what is sure.
    assert failed_and_ended(span(page(1, 0, 0), page(81, 20, 19))) == (20, 100)
    assert failed_and_ended(span("vllm:x 1", "vllm:x 2")) is None


def test_a_twentieth_of_little_traffic_is_put_together_until_it_can_be_judged() -> None:
    found = [judged(traffic(seed, spans=240, share=0.02)).outcome for seed in range(4)]  # 1.6 a span
    assert found.count("pass") >= 3
    assert judged(traffic(1, spans=240, share=0.02, slow=2.0)).outcome == "fail"
    assert judged(traffic(1, spans=40, share=0.005)).outcome == "inconclusive"


def test_real_traffic_is_watched_span_by_span_without_false_alarms() -> None:
    def alarm(seed: int, **canary: Any) -> tuple[int, list[str]]:
        rows = traffic(seed, spans=60, **canary)
        spans = Spans({(row["arm"], row["server"]) for row in rows})
        for moment in range(0, len(rows), 2):
            spans.add(rows[moment : moment + 2])
            if reasons := alarms(spans.live, OBJECTIVES):
                return moment // 2, reasons
        return 0, []

    assert not any(alarm(seed)[1] for seed in range(6))
    at, reasons = alarm(1, slow=2.0)
    assert 10 <= at < 20
    assert "ttft (mean)" in reasons
    assert alarm(2, errors=0.2)[1] == ["errors"]


def test_failures_in_spans_are_no_evidence_at_the_allowed_rate() -> None:
    random = np.random.default_rng(1)
    ended = random.integers(1, 30, size=(2000, 100)).astype(np.float64)
    failed = random.binomial(ended.astype(int), 0.01).astype(np.float64)
    worth = evidence.failures(failed, ended, 0.01)
    assert (worth.max(axis=-1) >= np.log(20)).mean() < 0.05


def test_an_alarm_under_real_traffic_fails_and_a_stop_without_one_is_too_short() -> None:
    observed = {"synthetic": False, "stopped": {"at": 200, "reasons": ["ttft (mean)"]}, "split": None}
    slow = judge(observed, (), OBJECTIVES, baseline_expected=True, live=live_of(traffic(1, slow=2.0)))
    assert slow.outcome == "fail"
    equal = judge(observed, (), OBJECTIVES, baseline_expected=True, live=live_of(traffic(1)))
    assert equal.outcome == "inconclusive"
    assert "too short to judge" in equal.summary


def test_a_phase_without_a_load_needs_its_servers_and_its_split() -> None:
    observed: dict[str, Any] = {"synthetic": False, "split": None}
    live = live_of(traffic(2))
    blind = judge(observed, (), OBJECTIVES, baseline_expected=True, expected_share=0.25, live=live)
    assert blind.outcome == "inconclusive"
    split = {"probes": 200, "answered": 200, "canary": 50}
    seen = judge(
        observed | {"split": split}, (), OBJECTIVES, baseline_expected=True, expected_share=0.25, live=live
    )
    assert seen.outcome == "pass"
    wrong = judge(
        observed | {"split": split}, (), OBJECTIVES, baseline_expected=True, expected_share=0.75, live=live
    )
    assert wrong.outcome == "infrastructure_fault"
    assert judge(observed, (), OBJECTIVES, baseline_expected=True).outcome == "inconclusive"


def test_parts_are_joined_and_one_that_lacks_an_arm_is_left_out() -> None:
    whole = live_of(traffic(3, spans=20))
    lame = live_of([row for row in traffic(4, spans=20) if row["arm"] == "canary"])
    both = joined([whole, lame, whole])
    assert (len(both.canary), len(both.baseline)) == (40, 40)
    assert joined([lame, lame]).baseline == []
    assert joined([Live(())]).canary == []


def test_a_moment_that_one_server_missed_ends_no_span_and_loses_nothing() -> None:
    rows = traffic(5, spans=20)
    total = sum(span.finished["stop"] for span in live_of(rows).canary)
    rows[12] = {**{key: rows[12][key] for key in ("at", "arm", "server")}, "error": "timed out"}
    live = live_of(rows)
    assert len(live.canary) == len(live.baseline) == 19
    assert sum(span.finished["stop"] for span in live.canary) == total
