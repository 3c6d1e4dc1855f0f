"""`trainyard doctor`: is the cluster ready? With Airflow's own connections, or with a kubeconfig."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from trainyard.doctor.checkup import Seams, examine
from trainyard.doctor.findings import Finding, State, healthy
from trainyard.errors import PermanentError, TrainyardError
from trainyard.settings import Settings

if TYPE_CHECKING:
    from trainyard.hub import Hub
    from trainyard.kube.cluster import Cluster
    from trainyard.store.objects import Objects

T = TypeVar("T")
# What deploy/airflow/values.yaml runs tasks as; the RoleBindings name it.
AIRFLOWS_ACCOUNT = "system:serviceaccount:airflow:airflow-scheduler"
_STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "red", "unknown": "cyan"}


def run(
    console: Console,
    *,
    kubeconfig: Path | None = None,
    context: str | None = None,
    account: str = AIRFLOWS_ACCOUNT,
    as_json: bool = False,
) -> int:
    """Examines and shows; the exit code: 0 where nothing is broken."""
    outside = kubeconfig is not None or context is not None
    seams = by_kubeconfig(kubeconfig, context, account) if outside else by_connections()
    findings = []
    for finding in examine(seams):
        findings.append(finding)
        if not as_json:
            show(console, finding)
    fine = healthy(findings)
    if as_json:
        document = {"healthy": fine, "findings": [each.to_json() for each in findings]}
        console.out(json.dumps(document, indent=2), highlight=False)
    else:
        console.print(summary(findings), style="green" if fine else "red", markup=False)
    return 0 if fine else 1


def show(console: Console, finding: Finding) -> None:
    console.print(f"{finding.state:8}", style=_STYLES[finding.state], end="", markup=False)
    console.print(
        f"{finding.part:11}{finding.about}: {finding.says}", soft_wrap=True, markup=False, highlight=False
    )
    if finding.mend:
        console.print(f"{'':19}to do: {finding.mend}", soft_wrap=True, markup=False, highlight=False)


def summary(findings: list[Finding]) -> str:
    counts = {state: sum(each.state == state for each in findings) for state in _STYLES}
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{'ready' if healthy(findings) else 'not ready'}: {words}"


def by_connections() -> Seams:
    """As the pipeline reaches things: through Airflow's connections and hooks."""
    # Its hooks tell on stdout what they found credentials in: no part of an answer in JSON.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    settings = Settings()

    def cluster() -> Cluster:
        from trainyard_airflow import seams

        return seams.cluster(settings.kubernetes_conn_id)

    def objects() -> Objects:
        from trainyard_airflow import seams

        return seams.objects(settings)

    def hub() -> Hub:
        from trainyard.hub import Hub
        from trainyard_airflow import seams

        return Hub(settings.hub_endpoint, seams.hub_token(settings))

    connection = f"connection {settings.kubernetes_conn_id}"
    reach = _plainly(cluster, f"{connection} leads to no cluster")
    return Seams(
        settings,
        cluster=reach,
        account=reach,
        who=f"Airflow's account ({connection})",
        objects=_plainly(objects, f"connection {settings.aws_conn_id} leads to no S3"),
        hub=_plainly(hub, f"connection {settings.hub_conn_id} cannot be used"),
    )


def by_kubeconfig(kubeconfig: Path | None, context: str | None, account: str) -> Seams:
    """As a person who is let into the cluster. account: whose rights to ask for; "": one's own."""
    settings = Settings()

    def connect(acting_as: str) -> Cluster:
        from kubernetes import config

        from trainyard.kube.cluster import Cluster

        api = config.new_client_from_config(str(kubeconfig) if kubeconfig else None, context)
        if acting_as:
            api.set_default_header("Impersonate-User", acting_as)
        return Cluster(api)

    def objects() -> Objects:
        from trainyard.store.objects import Objects, client

        return Objects(client(attempts=2), settings.bucket)

    def hub() -> Hub:
        from trainyard.hub import Hub

        return Hub(settings.hub_endpoint, os.environ.get("HF_TOKEN"))

    return Seams(
        settings,
        cluster=_plainly(lambda: connect(""), "the kubeconfig cannot be used"),
        account=_plainly(lambda: connect(account), "the kubeconfig cannot be used"),
        who=account or "you",
        objects=_plainly(objects, "no S3 client can be made from the environment"),
        hub=hub,
    )


def _plainly(make: Callable[[], T], what: str) -> Callable[[], T]:
    """Errors of other people's libraries, while a client is made, as one of ours."""

    def made() -> T:
        try:
            return make()
        except TrainyardError:
            raise
        except Exception as error:
            raise PermanentError(f"{what} ({type(error).__name__}: {error}).") from error

    return made
