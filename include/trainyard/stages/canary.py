"""canary: Deployment and Service of the new release. It gets no traffic yet."""

from __future__ import annotations

from trainyard.errors import NotFound
from trainyard.kube.cluster import guard_token
from trainyard.kube.servers import deployment, service
from trainyard.kube.traffic import set_weights
from trainyard.release import Release
from trainyard.stages.build import servers_of
from trainyard.stages.context import Context, Done
from trainyard.stages.sealing import pinned
from trainyard.store.bundles import read_bundle


def run(ctx: Context, release: Release) -> Done:
    """Raises NotFound (no bundle), LeaseLost, CorruptArtifact."""
    ctx.hold(release)
    try:
        bundle = read_bundle(ctx.objects, release.plan.fingerprint)
    except NotFound as error:
        raise NotFound(f"{error} Nothing can be served: run the compile again (clear that task).") from None
    servers = pinned(ctx, servers_of(release, ctx.settings))
    live = ctx.cluster.find("Deployment", servers.release, servers.namespace)
    if live is not None:
        guard_token(live, release.lease_token)
    if release.previous:
        # Says once more what is true already, so that every later change is a shift and nothing else.
        set_weights(
            ctx.cluster,
            model=release.model,
            namespace=ctx.settings.serving_namespace,
            gateway=ctx.settings.gateway_name,
            gateway_namespace=ctx.settings.gateway_namespace,
            weights={release.previous: 100},
            token=release.lease_token,
        )
    ctx.cluster.apply(service(servers))
    ctx.cluster.apply(deployment(servers))
    size = sum(file.size for file in bundle.files)
    return Done(
        f"Deployment and Service {servers.release}: {servers.replicas} replica(s) of {release.plan.chips} "
        f"chip(s), "
        f"bundle {release.plan.fingerprint[:12]} ({size / 1e6:.1f} MB), no traffic yet"
    )
