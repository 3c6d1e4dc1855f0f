"""load_test: canary and baseline under the same load, side by side, before any user sees the canary."""

from __future__ import annotations

from trainyard.errors import Inconclusive
from trainyard.kube.cluster import Object
from trainyard.release import Release
from trainyard.stages.context import Context, Done, Skip
from trainyard.stages.measure import judged, load_pod, may_extend

PHASE = "load"


def pod(ctx: Context, release: Release) -> Object | Skip | None:
    return load_pod(ctx, release, PHASE, release.spec.rollout.load.seconds, split=False)


def finish(ctx: Context, release: Release) -> Done:
    """Too little to judge measures more, as often as the spec allows; what there is then is judged."""
    verdict, data = judged(ctx, release, PHASE)
    if verdict.outcome in ("inconclusive", "infrastructure_fault") and may_extend(release, data):
        raise Inconclusive(f"{verdict.summary}. Measuring on.")
    return Done(
        "; ".join(
            f"{arm}: {figures['requests']} requests, {figures['failed']} failed, "
            f"ttft p95 {_ms(figures['ttft'])}, itl p95 {_ms(figures['itl'])}, e2e p95 {_ms(figures['e2e'])}, "
            f"{figures['output_tokens_per_second']:.0f} tokens/s"
            for arm, figures in data.summary["arms"].items()
        )
    )


def _ms(figures: dict[str, float]) -> str:
    return f"{figures['p95'] * 1000:.1f} ms" if "p95" in figures else "unknown"
