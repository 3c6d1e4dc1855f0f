"""What stages add to the figures of a load test, because the spec is known here: limits, cores, dollars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard.bench.cost import Hardware, economy
from trainyard.bench.goodput import Limits
from trainyard.errors import PermanentError, Refused
from trainyard.neuron.instances import Instance, instance
from trainyard.neuron.prices import TABLE
from trainyard.neuron.rent import rent
from trainyard.release import Release
from trainyard.stages.context import Context


def limits_of(release: Release) -> Limits:
    """What one request may take under the SLOs of the spec."""
    wanted = release.spec.rollout.objectives
    return Limits(ttft=wanted.ttft_p95_seconds, itl=wanted.itl_p95_seconds, e2e=wanted.e2e_p95_seconds)


def hardware_of(release: Release) -> Hardware | None:
    """None where the instance type is none that Trainyard knows."""
    spec = release.spec
    try:
        kind = instance(spec.hardware.instance_type)
    except Refused:
        return None
    return rented(
        kind,
        tensor_parallel=spec.hardware.tensor_parallel,
        replicas=spec.serving.replicas,
        lnc=release.plan.lnc,
    )


def rented(
    kind: Instance, *, tensor_parallel: int, lnc: int, replicas: int = 1, dollars: float | None = None
) -> Hardware:
    """What servers of that size take of their instances. dollars: for an hour of one, if not the table's."""
    found = rent(
        kind, tensor_parallel=tensor_parallel, replicas=replicas, lnc=lnc, prices=TABLE, dollars=dollars
    )
    return Hardware(
        cores=found.cores,
        instance_type=kind.name,
        dollars_per_hour=found.dollars_per_hour,
        price=found.words,
    )


def with_economy(ctx: Context, release: Release, arms: Mapping[str, Any]) -> dict[str, Any]:
    """The arms with `economy`, each of its own release's hardware. The price is kept with the figures: a
    later table must not change what a release cost."""
    releases = {"canary": release}
    if release.previous:
        try:
            releases["baseline"] = ctx.load(release.model, release.previous)
        except PermanentError:
            pass  # its record is gone or not signed: the figures stand without its price
    found = {arm: dict(figures) for arm, figures in arms.items()}
    for arm, owner in releases.items():
        hardware = hardware_of(owner)
        if arm in found and hardware is not None:
            found[arm]["economy"] = economy(found[arm], hardware)
    return found
