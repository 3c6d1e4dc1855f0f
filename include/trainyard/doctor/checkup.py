"""All checks in their order. What one cannot look at, the others still do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trainyard import catalogue
from trainyard.doctor import capacity, gateway, kinds, objects, outside, rights
from trainyard.doctor.findings import Finding, Part
from trainyard.errors import ClusterUnavailable, Forbidden, TrainyardError
from trainyard.hub import Hub
from trainyard.kube.cluster import Cluster
from trainyard.settings import Settings
from trainyard.spec import Request, Spec
from trainyard.store.objects import Objects

_CATALOGUE = Part("catalogue")


@dataclass(frozen=True)
class Seams:
    """How to reach things; each is made when it is first needed, and may raise.

    cluster: to look around. account: the same cluster as Airflow's account sees it, for its rights; `who`
    names it.
    """

    settings: Settings
    cluster: Callable[[], Cluster]
    account: Callable[[], Cluster]
    who: str
    objects: Callable[[], Objects]
    hub: Callable[[], Hub]


def examine(seams: Seams) -> Iterator[Finding]:
    settings = seams.settings
    specs, broken = read_catalogue(settings)
    yield from broken
    api = Part("api")
    try:
        cluster = seams.cluster()
        yield from kinds.version(cluster)
    except Forbidden as error:
        yield api.warning(
            "server", f"it does not tell its version: {error}", "Bind system:public-info-viewer."
        )
    except (TrainyardError, OSError) as error:
        yield api.failed(
            "server",
            str(error),
            "Check the address, credentials and way to the API server; nothing else was asked.",
        )
        yield from _outside(seams, specs)
        return
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("kinds", lambda: kinds.served(cluster)),
        ("namespaces", lambda: objects.namespaces(cluster, settings)),
        ("accounts", lambda: objects.accounts(cluster, settings)),
        ("priorities", lambda: objects.priorities(cluster)),
        ("capacity", lambda: capacity.pools(cluster, specs)),
        ("devices", lambda: capacity.devices(cluster)),
        ("gateway", lambda: gateway.gateway(cluster, settings)),
        ("rights", lambda: rights.rights(seams.account(), settings, seams.who)),
        ("secrets", lambda: objects.secrets(cluster, settings, specs)),
    )
    for name, check in checks:
        yield from _guarded(name, check)
    yield from _outside(seams, specs)


def read_catalogue(settings: Settings) -> tuple[list[Spec], list[Finding]]:
    """The entries that can be read; findings about the others."""
    specs, findings = [], []
    for name in catalogue.names(settings.releases_dir):
        try:
            specs.append(catalogue.resolve(settings.releases_dir, Request(release=name)))
        except TrainyardError as error:
            findings.append(_CATALOGUE.failed(name, str(error), f"Mend {settings.releases_dir / name}.yaml."))
    if not specs and not findings:
        findings.append(
            _CATALOGUE.warning(
                str(settings.releases_dir), "no entry", "Write one, or set TRAINYARD_RELEASES_DIR."
            )
        )
    return specs, findings


def _outside(seams: Seams, specs: list[Spec]) -> Iterator[Finding]:
    yield from _guarded("bucket", lambda: outside.bucket(seams.objects()))
    yield from _guarded("hub", lambda: outside.hub(seams.hub(), specs))


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    part = Part(name)
    try:
        yield from check()
    except Forbidden as error:
        yield part.unknown(
            "rest",
            f"this account may not look: {str(error).partition('. Grant it')[0]}",
            "Ask as an administrator of the cluster: trainyard doctor --kubeconfig FILE --context NAME",
        )
    except ClusterUnavailable as error:
        yield part.failed("rest", str(error), "Ask again; if it stays so, look at the API server.")
    except (TrainyardError, OSError) as error:
        yield part.failed("rest", str(error), "Mend what it says, and ask again.")
