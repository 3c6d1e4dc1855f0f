"""ready: every replica of the canary has answered a real generation, and used the published bundle."""

from __future__ import annotations

import json

from trainyard.errors import CanaryNotReady, Inconclusive
from trainyard.kube.pods import TOOLS_DIR
from trainyard.kube.servers import PORT, SERVER
from trainyard.neuron.engines import engine
from trainyard.neuron.engines.base import Evidence
from trainyard.release import Release
from trainyard.stages.build import build_of, bundle_dir
from trainyard.stages.context import Context, Done, Skip, Watch
from trainyard.stages.damaged import understand
from trainyard.store.bundles import read_bundle

__all__ = ["finish", "server_pods", "understand", "watch"]

_ASKING_SECONDS = 20.0


def watch(ctx: Context, release: Release) -> Watch | Skip:
    return Watch(
        "servers_ready",
        {
            "namespace": ctx.settings.serving_namespace,
            "name": release.workload,
            "labels": f"trainyard.dev/release={release.id}",
            "container": SERVER,
        },
        release.spec.serving.ready_deadline_minutes * 60,
        "CanaryNotReady",
    )


def finish(ctx: Context, release: Release, note: str, data: dict[str, object]) -> Done:
    """Asks every server for proof: one that compiled again ignored the bundle, and would do so at every
    restart."""
    chosen, build = engine(release.spec.engine), build_of(release)
    published = frozenset(file.path for file in read_bundle(ctx.objects, release.plan.fingerprint).files)
    for pod in server_pods(ctx, release.id):
        doubts = chosen.doubts(evidence_of(ctx, pod, bundle_dir(release), published), build)
        if doubts:
            raise CanaryNotReady(
                f"Pod {pod} is not proven to use bundle {release.plan.fingerprint[:12]}: "
                f"{'; '.join(doubts)}. Most likely the bundle does not match the server's image or shapes, "
                "and it compiled again."
            )
    return Done(f"{note}; nothing was compiled again", data)


def evidence_of(ctx: Context, pod: str, folder: str, published: frozenset[str]) -> Evidence:
    """What the server says, counts and has on its disk. Raises Inconclusive where it could not be asked."""
    log = ctx.cluster.log(pod, ctx.settings.serving_namespace, SERVER, tail=10_000)
    argv = ["python3", f"{TOOLS_DIR}/trainyard.pyz", "evidence", "--port", str(PORT), "--folder", folder]
    out = ctx.cluster.execute(pod, ctx.settings.serving_namespace, SERVER, argv, seconds=_ASKING_SECONDS)
    try:
        told = json.loads(out)
        return Evidence(log, str(told["metrics"]), frozenset(told["files"]), published)
    except (ValueError, LookupError, TypeError):
        raise Inconclusive(f"Pod {pod} could not be asked for its cache and metrics: {out[:200]!r}") from None


def server_pods(ctx: Context, release_id: str) -> list[str]:
    """Names of the running server pods of a release."""
    pods = ctx.cluster.list(
        "Pod", ctx.settings.serving_namespace, labels=f"trainyard.dev/release={release_id}"
    )
    return sorted(
        pod["metadata"]["name"]
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Running"
        and not pod["metadata"].get("deletionTimestamp")
    )
