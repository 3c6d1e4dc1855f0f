"""How a phase is measured and judged: the load test before any traffic, and every step after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard.errors import Inconclusive, Undecided, VerdictFailed
from trainyard.kube.addresses import gateway_url, servers_of, urls_of
from trainyard.kube.cluster import Object
from trainyard.kube.pods import cpu_job
from trainyard.release import Release
from trainyard.report.text import render_summary
from trainyard.rollout.judge import judge
from trainyard.rollout.verdict import COMPARED, Objectives, Verdict
from trainyard.stages.context import Context
from trainyard.stages.figures import limits_of, with_economy
from trainyard.stages.health import sickness
from trainyard.stages.measured import Measured, gather, prefix, summaries
from trainyard.stages.workers import dismiss, leads, muster
from trainyard.stages.workloads import workload_of

CANARY, BASELINE = "canary", "baseline"
_SPLIT_PROBES = 200
# Of a summary, beside its arms.
_RECORDED = ("schema", "workload", "generator", "split", "sweep", "live", "stopped", "synthetic")


def load_pod(
    ctx: Context, release: Release, phase: str, seconds: float, *, split: bool, synthetic: bool = True
) -> Object | None:
    """The pod of one part. Canary and baseline are asked in turn, through their own Services. None: what an
    earlier try measured has to be judged first, or is enough.

    synthetic: false only watches what the servers say of the real traffic.
    """
    load, parts = release.spec.rollout.load, list(summaries(ctx.objects, release, phase))
    if nothing_to_measure(release, phase, len(parts)) and not leads(ctx, release, phase):
        return None
    releases = {CANARY: release.id} | ({BASELINE: release.previous} if release.previous else {})
    arms = {arm: urls_of(ctx.cluster, ctx.settings, name) for arm, name in releases.items()}
    job: dict[str, Any] = {
        "bucket": ctx.settings.bucket,
        "output": f"{prefix(release, phase)}{len(parts)}/",
        "phase": phase,
        "seed": len(parts) + 1,
        "model": release.spec.served_name,
        "arms": arms,
        "workload": workload_of(load, seconds, step=split),
        "objectives": limits_of(release).to_dict(),
        "servers": {arm: servers_of(ctx.cluster, ctx.settings, name) for arm, name in releases.items()},
        # All parts are judged together, so the watch of this one goes on where the last one's ended.
        "watch": {
            "objectives": objectives_of(release).to_dict(),
            "earlier": [place for place, summary in parts if summary["generator"]["valid"]],
        },
    }
    if not synthetic:
        job["observe_seconds"] = seconds
    if split:
        job["split"] = {
            "url": gateway_url(ctx.settings, release.model),
            "probes": _SPLIT_PROBES,
            "canary_name": release.id,
        }
    leader = cpu_job(
        name=f"{phase}-{release.id}",
        namespace=ctx.settings.jobs_namespace,
        job_name="loadtest",
        job=job,
        image=ctx.settings.jobs_image,
        service_account="trainyard-loadtest",
        model=release.model,
        release=release.id,
        deadline_seconds=int(seconds * 2 + 600),
    )
    return muster(ctx, release, phase, leader)


def judged(ctx: Context, release: Release, phase: str, weight: int | None = None) -> tuple[Verdict, Measured]:
    """Judges a phase, writes the verdict into the record and the figures into the log; returns it and what it
    was judged by.

    weight: percent of the traffic that the gateway should give the canary; None where it gets none yet.
    """
    data = gather(ctx.objects, release, phase)
    dismiss(ctx, release, phase)
    verdict, device = verdict_on(release, data, objectives_of(release), weight), None
    if verdict.outcome != "infrastructure_fault":
        device = sickness(ctx, release, thorough=verdict.outcome == "fail")
    if device is not None:
        verdict = verdict_on(release, data, objectives_of(release), weight, device)

    figures = {key: data.summary[key] for key in _RECORDED if data.summary.get(key) is not None}
    figures["arms"] = with_economy(ctx, release, data.summary["arms"])
    ctx.log.info("%s\n%s", verdict.summary, "\n".join(render_summary(figures)))

    def change(document: dict[str, Any]) -> None:
        document["verdicts"][phase] = {
            **verdict.to_dict(),
            "summary_text": verdict.summary,
            "summary": figures,
            "parts": data.parts,
            **({"device": device} if device is not None else {}),
        }

    ctx.change(release, change)
    return verdict, data


def verdict_on(
    release: Release,
    data: Measured,
    objectives: Objectives,
    weight: int | None = None,
    device: Mapping[str, Any] | None = None,
) -> Verdict:
    """device: what was wrong with the canary's devices when it was judged; None: nothing was seen."""
    return judge(
        data.summary,
        data.samples,
        objectives,
        baseline_expected=release.previous is not None,
        expected_share=weight / 100 if weight is not None else None,
        device=device,
        live=data.live,
    )


def nothing_to_measure(release: Release, phase: str, parts: int) -> bool:
    """Whether a try has nothing to measure: the one before it had, and failed on its way to the verdict, or
    between the verdict and its own end."""
    verdict = release.verdicts.get(phase) or {}
    if parts > verdict.get("parts", 0):
        return True
    return parts > 0 and (
        verdict.get("outcome") in ("pass", "fail") or parts > release.spec.rollout.extensions
    )


def may_extend(release: Release, data: Measured) -> bool:
    """Whether another part may be measured: the first one and the spec's extensions are not used up."""
    return data.parts <= release.spec.rollout.extensions


def objectives_of(release: Release) -> Objectives:
    wanted = release.spec.rollout.objectives
    return Objectives(
        ttft_p95_seconds=wanted.ttft_p95_seconds,
        itl_p95_seconds=wanted.itl_p95_seconds,
        e2e_p95_seconds=wanted.e2e_p95_seconds,
        max_error_rate=wanted.max_error_rate,
        min_samples=wanted.min_samples,
        max_ratio=dict.fromkeys(COMPARED, wanted.max_ratio),
        looks=release.spec.rollout.extensions + 1,
    )


def enforce(verdict: Verdict, phase: str, *, extend: bool = False) -> str:
    """Only a pass goes on. Raises VerdictFailed; Inconclusive, which measures on; Undecided, which does not.

    extend: whether the phase may still be prolonged.
    """
    if verdict.outcome == "pass":
        return verdict.summary
    reasons = "\n".join(f"  - {reason}" for reason in verdict.reasons)
    if verdict.outcome == "fail":
        raise VerdictFailed(f"{phase} {verdict.summary}\n{reasons}")
    if extend:
        raise Inconclusive(f"{phase} {verdict.summary}. Measuring on.\n{reasons}")
    raise Undecided(f"{phase} {verdict.summary}. Nothing was decided for or against the model.\n{reasons}")
