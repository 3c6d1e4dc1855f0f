"""How a phase is measured and judged: the load test before any traffic, and every step after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainyard.bench.samples import Sample, unpack
from trainyard.bench.summary import summarize
from trainyard.errors import CorruptArtifact, Inconclusive, Undecided, VerdictFailed
from trainyard.kube.addresses import gateway_url, urls_of
from trainyard.kube.cluster import Object
from trainyard.kube.pods import cpu_job
from trainyard.release import Release
from trainyard.rollout.judge import judge
from trainyard.rollout.verdict import COMPARED, Objectives, Verdict
from trainyard.stages.context import Context
from trainyard.stages.figures import limits_of, with_economy
from trainyard.stages.workloads import workload_of
from trainyard.store.objects import Objects

CANARY, BASELINE = "canary", "baseline"
_SPLIT_PROBES = 200
_RECORDED = ("schema", "workload", "generator", "split", "sweep")  # of a summary, beside its arms


@dataclass(frozen=True)
class Measured:
    """All parts of a phase together: a part is one run of the load test, an extension adds another."""

    samples: tuple[Sample, ...]
    summary: dict[str, Any]
    parts: int


def prefix(release: Release, phase: str) -> str:
    return f"measurements/{release.model}/{release.id}/{phase}/"


def load_pod(ctx: Context, release: Release, phase: str, seconds: float, *, split: bool) -> Object:
    """The pod of one part. Canary and baseline are asked in turn, through their own Services."""
    load, part = release.spec.rollout.load, len(list(_summaries(ctx.objects, release, phase)))
    arms = {CANARY: urls_of(ctx.cluster, ctx.settings, release.id)}
    if release.previous:
        arms[BASELINE] = urls_of(ctx.cluster, ctx.settings, release.previous)
    job: dict[str, Any] = {
        "bucket": ctx.settings.bucket,
        "output": f"{prefix(release, phase)}{part}/",
        "phase": phase,
        "seed": part + 1,
        "model": release.spec.served_name,
        "arms": arms,
        "workload": workload_of(load, seconds, step=split),
        "objectives": limits_of(release).to_dict(),
    }
    if split:
        job["split"] = {
            "url": gateway_url(ctx.settings, release.model),
            "probes": _SPLIT_PROBES,
            "canary_name": release.id,
        }
    return cpu_job(
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


def measured(ctx: Context, release: Release, phase: str) -> Measured:
    """Adds the phase's valid parts up. Raises Inconclusive where there is none."""
    return gather(ctx.objects, release, phase)


def gather(objects: Objects, release: Release, phase: str) -> Measured:
    """`measured`, for whoever only has the bucket. Raises Inconclusive, CorruptArtifact."""
    samples: list[Sample] = []
    good: list[dict[str, Any]] = []
    found = list(_summaries(objects, release, phase))
    for part, summary in found:
        if summary["generator"]["valid"]:
            rows = unpack(objects.get(f"{part}samples.ndjson.gz").body)
            _check_rows(part, rows, summary)
            samples += rows
            good.append(summary)
    if not found:
        raise Inconclusive(f"The load test of {phase} left no result.")
    base = good[-1] if good else found[-1][1]
    if good:
        base = {**base, "arms": summarize(samples, list(base["arms"]), limits_of(release))}
    return Measured(tuple(samples), base, len(found))


def _check_rows(part: str, rows: list[Sample], summary: dict[str, Any]) -> None:
    """Pooling counts anew, so rows that were lost on the way have to be missed here. Raises
    CorruptArtifact."""
    for arm, figures in summary["arms"].items():
        count = sum(row.arm == arm for row in rows)
        if count != figures["requests"]:
            raise CorruptArtifact(
                f"{part}samples.ndjson.gz has {count} rows of {arm}, its summary says {figures['requests']}."
            )


def judged(ctx: Context, release: Release, phase: str, weight: int | None = None) -> Verdict:
    """Judges a phase, writes the verdict into the record and returns it.

    weight: percent of the traffic that the gateway should give the canary; None where it gets none yet.
    """
    data = measured(ctx, release, phase)
    verdict = judge(
        data.summary,
        data.samples,
        objectives_of(release),
        baseline_expected=release.previous is not None,
        expected_share=weight / 100 if weight is not None else None,
    )

    figures = {key: data.summary[key] for key in _RECORDED if key in data.summary}
    figures["arms"] = with_economy(ctx, release, data.summary["arms"])

    def change(document: dict[str, Any]) -> None:
        document["verdicts"][phase] = {
            **verdict.to_dict(),
            "summary_text": verdict.summary,
            "summary": figures,
            "parts": data.parts,
        }

    ctx.change(release, change)
    return verdict


def may_extend(ctx: Context, release: Release, phase: str) -> bool:
    """Whether another part may be measured: the first one and the spec's extensions are not used up."""
    return len(list(_summaries(ctx.objects, release, phase))) <= release.spec.rollout.extensions


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


def _summaries(objects: Objects, release: Release, phase: str) -> Iterator[tuple[str, dict[str, Any]]]:
    start = prefix(release, phase)
    for info in sorted(objects.list(start), key=lambda item: item.key):
        if info.key.endswith("/summary.json"):
            yield info.key.removesuffix("summary.json"), json.loads(objects.get(info.key).body)
