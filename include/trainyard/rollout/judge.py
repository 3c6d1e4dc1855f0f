"""Samples in, verdict out.

How it decides:

- Failing needs evidence, passing needs data. What is missing, not a number, or contradicts the summary is
  inconclusive.
- What spoils the measurement itself (the generator was too slow, the baseline is down, the split is wrong, a
  device is ill) is an infrastructure fault and outranks whatever was measured: it is never the model's fault.
- Latencies are judged in `latency`; errors here, by exact tests against the allowed and the baseline's rate.
- `watch` may fail a canary at any size and any time. Only the rest can pass it: a load test that was stopped
  early has not reached the size that was declared, and never passes.
- The servers' own figures (`live`) stand beside the samples, or alone where no load was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainyard.bench.samples import Sample
from trainyard.rollout import watch
from trainyard.rollout.chance import binomial_at_least, binomial_two_sided, fisher_more
from trainyard.rollout.latency import check_slos, compare
from trainyard.rollout.live import Live, check_live
from trainyard.rollout.measured import Arm, disagreement, split_arms
from trainyard.rollout.verdict import Check, Objectives, Outcome, Verdict, conclude, say_time

MAX_CENSORED = 0.05
SPLIT_ALPHA = 0.001  # a healthy split is checked at every step of every release: rarely wrong is too often


def judge(
    summary: Mapping[str, Any] | None,
    samples: Sequence[Sample] | None,
    objectives: Objectives,
    *,
    baseline_expected: bool,
    expected_share: float | None = None,
    device: Mapping[str, Any] | None = None,
    device_expected: bool = False,
    live: Live | None = None,
    seed: int = 0,
) -> Verdict:
    """Judge one phase of a release.

    summary, samples: as the load test wrote them; None if there are none. A summary with `synthetic` false is
    of a phase without a load of ours: real traffic was observed, and `live` is all there is. One with
    `stopped` was ended early by an alarm.
    baseline_expected: a stable release serves, so its absence from the data is a gap in the data.
    expected_share: of the gateway's requests that the canary should get, 0 to 1; None: no split to check.
    device: `{"state": "healthy" | "unhealthy" | "unknown", "text": why}` of the canary's Neuron devices.
    live: what the servers' own metrics say; None: they were not recorded.
    """
    checks = [*_check_device(device, device_expected)]
    observed_only = summary is not None and summary.get("synthetic") is False
    if live is not None or observed_only:
        checks += check_live(
            live or Live(()),
            objectives,
            baseline_expected=baseline_expected,
            beside=summary is not None and not observed_only,
            seed=seed,
        )
    if observed_only or (live is not None and summary is None and samples is None):
        checks += _check_split((summary or {}).get("split"), expected_share, objectives)
        return conclude((*checks, *_check_stop((summary or {}).get("stopped"), checks)))
    if not summary or samples is None:
        checks.append(_gap("the load test left no results"))
        return conclude(tuple(checks))
    arms = split_arms(samples)
    checks += [_check_generator(summary)]
    checks += _check_split(summary.get("split"), expected_share, objectives)
    wrong = disagreement(summary, arms)
    if wrong:  # rows that were lost or came twice prove nothing, for or against anybody
        checks.append(_gap(wrong))
        return conclude(tuple(checks))
    canary, baseline = arms.get("canary"), arms.get("baseline")
    if canary is None:
        checks.append(_gap("nothing was measured on the canary"))
        return conclude(tuple(checks))
    if baseline is None and baseline_expected:
        checks.append(_gap("nothing was measured on the baseline, though a stable release serves"))
    stopped = summary.get("stopped")
    watched = watch.check(watch.observe(samples, objectives), stopped)
    checks += _check_stop(stopped, watched)
    checks += _check_samples(canary, baseline, objectives)
    # Their size has to be declared before: one that an alarm chose would bend them.
    declared = not stopped or any(check.outcome == "fail" for check in watched)
    if declared:
        checks += _check_errors(canary, baseline, objectives)
    if declared and canary.succeeded >= objectives.min_samples:
        random = np.random.default_rng(seed)
        checks += check_slos(canary, objectives, random)
        if baseline and baseline.succeeded >= objectives.min_samples:
            checks += compare(canary, baseline, objectives, random)
    return conclude((*checks, *watched))


def _check_stop(stopped: Mapping[str, Any] | None, found: Sequence[Check]) -> list[Check]:
    """A phase that was stopped has to fail by what it left; else it is too short to say anything."""
    if not stopped or any(check.outcome == "fail" for check in found):
        return []
    why = ", ".join(stopped.get("reasons") or ["no reason given"])
    return [
        _gap(
            f"stopped after {stopped.get('at', 0):.0f} s by an alarm ({why}) that its data do not raise now: "
            "too short to judge"
        )
    ]


def _gap(text: str) -> Check:
    return Check(metric="samples", statistic="count", kind="samples", outcome="inconclusive", text=text)


def _check_device(device: Mapping[str, Any] | None, expected: bool) -> list[Check]:
    if device is None and not expected:
        return []
    state = (device or {}).get("state", "unknown")
    outcomes: dict[str, Outcome] = {
        "healthy": "pass",
        "unhealthy": "infrastructure_fault",
        "sick": "infrastructure_fault",  # in the words of `neuron.health`
    }
    text = (device or {}).get("text") or f"the canary's Neuron devices: {state}"
    outcome = outcomes.get(state, "inconclusive")
    return [Check(metric="device", statistic="state", kind="device", outcome=outcome, text=text)]


def _check_generator(summary: Mapping[str, Any]) -> Check:
    generator = summary.get("generator") or {}
    lag = generator.get("loop_lag_p99_seconds")
    if generator.get("valid") is True:
        outcome: Outcome = "pass"
        text = f"the load generator kept up (p99 {say_time(lag)} late)" if lag is not None else "it kept up"
    else:
        outcome = "infrastructure_fault"
        reasons = "; ".join(generator.get("reasons") or ["it says nothing about itself"])
        text = f"the load generator's figures are not valid: {reasons}"
    return Check(
        metric="generator", statistic="lag p99", kind="generator", outcome=outcome, text=text, arm_value=lag
    )


def _check_split(
    split: Mapping[str, Any] | None, expected: float | None, objectives: Objectives
) -> list[Check]:
    if expected is None:
        return []

    def check(outcome: Outcome, text: str, share: float | None = None) -> list[Check]:
        return [
            Check(
                metric="split", statistic="share", kind="split", outcome=outcome, text=text, arm_value=share,
                limit=expected,
            )
        ]  # fmt: skip

    if not split or not split.get("probes"):
        return check("inconclusive", "the gateway's split was not observed")
    probes, answered, canary = split["probes"], split.get("answered", 0), split.get("canary", 0)
    if binomial_at_least(probes - answered, probes, objectives.max_error_rate) < SPLIT_ALPHA:
        seen = {**(split.get("statuses") or {}), **(split.get("errors") or {})}
        return check(
            "infrastructure_fault", f"{probes - answered} of {probes} probes of the gateway failed: {seen}"
        )
    if not answered:
        return check("inconclusive", "the gateway answered no probe")
    if probes < split.get("wanted", probes):
        return check("inconclusive", f"the gateway is slow: {probes} of {split['wanted']} probes were made")
    share = canary / answered
    text = f"{canary} of {answered} probes reached the canary ({share:.1%}; asked for {expected:.1%})"
    wrong = binomial_two_sided(canary, answered, expected) < SPLIT_ALPHA
    return check("infrastructure_fault" if wrong else "pass", text, share)


def _check_samples(canary: Arm, baseline: Arm | None, objectives: Objectives) -> list[Check]:
    checks = []
    for name, arm in (("canary", canary), ("baseline", baseline)):
        if arm is None:
            continue
        few = arm.succeeded < objectives.min_samples
        down = name == "baseline" and arm.ended > 0 and not arm.succeeded
        outcome: Outcome = "infrastructure_fault" if down else "inconclusive" if few else "pass"
        text = f"{arm.succeeded} successful requests of the {name}; {objectives.min_samples} are needed"
        if down:
            text = f"all {arm.ended} requests of the baseline failed: there is nothing to compare with"
        checks.append(_samples_check(name, outcome, text, arm.succeeded, objectives.min_samples))
        if arm.censored > MAX_CENSORED * len(arm.samples):
            text = f"{arm.censored} of {len(arm.samples)} requests of the {name} outlasted the run"
            checks.append(_samples_check(name, "inconclusive", text, arm.censored, None))
    return checks


def _samples_check(name: str, outcome: Outcome, text: str, value: float, limit: float | None) -> Check:
    return Check(
        metric=f"{name} samples", statistic="count", kind="samples", outcome=outcome, text=text,
        arm_value=value, limit=limit,
    )  # fmt: skip


def _check_errors(canary: Arm, baseline: Arm | None, objectives: Objectives) -> list[Check]:
    """The rate against what is allowed, and against the baseline's, both by exact tests."""
    if not canary.ended:
        return [_gap("no request of the canary came to an end")]
    alpha, allowed = objectives.alpha, objectives.max_error_rate
    rate = canary.failed / canary.ended
    worse_than_allowed = binomial_at_least(canary.failed, canary.ended, allowed) < alpha
    base_rate = baseline.failed / baseline.ended if baseline and baseline.ended else None
    worse_than_baseline = (
        baseline is not None
        and fisher_more(canary.failed, canary.ended, baseline.failed, baseline.ended) < alpha
    )
    text = f"{canary.failed} of {canary.ended} requests failed ({rate:.1%}; allowed {allowed:.1%})"
    if base_rate is not None and baseline:
        text += f", the baseline's {baseline.failed} of {baseline.ended} ({base_rate:.1%})"
    outcome: Outcome = "pass"
    if rate > allowed:
        outcome = "fail" if worse_than_allowed or worse_than_baseline else "inconclusive"
        alike = (
            baseline is not None
            and worse_than_allowed
            and not worse_than_baseline
            and binomial_at_least(baseline.failed, baseline.ended, allowed) < alpha
        )
        if alike:  # what they share (network, gateway, node) is the likelier cause
            outcome = "infrastructure_fault"
            text += ": both fail alike"
    return [
        Check(
            metric="errors", statistic="rate", kind="errors", outcome=outcome, text=text, arm_value=rate,
            baseline_value=base_rate, limit=allowed,
        )
    ]  # fmt: skip
