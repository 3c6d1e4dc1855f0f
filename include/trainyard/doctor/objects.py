"""What deploy/cluster makes: namespaces, service accounts, priorities; and the secrets that people make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trainyard.doctor.findings import Finding, Part
from trainyard.errors import Forbidden
from trainyard.kube.cluster import Cluster
from trainyard.kube.pods import JOBS_PRIORITY, SERVING_PRIORITY
from trainyard.settings import Settings
from trainyard.spec import Spec

APPLY = "kubectl apply --server-side -k deploy/cluster/overlays/eks"
JOB_ACCOUNTS, SERVER_ACCOUNTS = (
    ("trainyard-fetch", "trainyard-compile", "trainyard-loadtest"),
    ("trainyard-serve",),
)
_ROLE = "eks.amazonaws.com/role-arn"
_LEVEL = "pod-security.kubernetes.io/enforce"
_SPACES, _ACCOUNTS, _PRIORITIES, _SECRETS = map(Part, ("namespaces", "accounts", "priorities", "secrets"))


def namespaces(cluster: Cluster, settings: Settings) -> Iterator[Finding]:
    for name in dict.fromkeys((settings.jobs_namespace, settings.serving_namespace)):
        found = cluster.find("Namespace", name)
        if found is None:
            yield _SPACES.failed(
                name, "it does not exist", f"{APPLY}, or set TRAINYARD_JOBS_NAMESPACE and _SERVING_NAMESPACE."
            )
        elif found["metadata"].get("deletionTimestamp"):
            yield _SPACES.failed(name, "it is being deleted", f"Wait until it is gone, then {APPLY}.")
        elif (found["metadata"].get("labels") or {}).get(_LEVEL) != "restricted":
            yield _SPACES.warning(
                name,
                f"Pod Security is not enforced at level restricted ({_LEVEL})",
                f"{APPLY} sets the label.",
            )
        else:
            yield _SPACES.ok(name, "pods are held to the restricted standard")


def accounts(cluster: Cluster, settings: Settings) -> Iterator[Finding]:
    wanted = [(settings.jobs_namespace, name) for name in JOB_ACCOUNTS]
    wanted += [(settings.serving_namespace, name) for name in SERVER_ACCOUNTS]
    for namespace, name in wanted:
        found, about = cluster.find("ServiceAccount", name, namespace), f"{namespace}/{name}"
        if found is None:
            yield _ACCOUNTS.failed(about, "it does not exist: its pods are refused", f"{APPLY} makes it.")
            continue
        role = (found["metadata"].get("annotations") or {}).get(_ROLE, "")
        if "ACCOUNT" in role:
            yield _ACCOUNTS.warning(
                about,
                f"its role is a placeholder ({role})",
                "Name your account in the eks overlay and apply it.",
            )
        else:
            yield _ACCOUNTS.ok(about, role or "no IAM role named: by EKS Pod Identity, then")


def priorities(cluster: Cluster) -> Iterator[Finding]:
    values = {}
    for name in (SERVING_PRIORITY, JOBS_PRIORITY):
        found = cluster.find("PriorityClass", name)
        if found is None:
            yield _PRIORITIES.failed(
                name, "it does not exist: pods that name it are refused", f"{APPLY} makes it."
            )
        else:
            values[name] = int(found.get("value", 0))
    if len(values) == 2:
        serving, jobs = values[SERVING_PRIORITY], values[JOBS_PRIORITY]
        if serving > jobs:
            yield _PRIORITIES.ok("order", f"servers ({serving}) come before jobs ({jobs})")
        else:
            yield _PRIORITIES.warning(
                "order", f"servers ({serving}) do not come before jobs ({jobs})", f"{APPLY} sets the values."
            )


def secrets(cluster: Cluster, settings: Settings, specs: Iterable[Spec]) -> Iterator[Finding]:
    """Of the catalogue's `model.token_secret`. Asks for their metadata only: what they hold is never read."""
    wanted: dict[str, list[str]] = {}
    for spec in specs:
        if spec.model.token_secret:
            wanted.setdefault(spec.model.token_secret, []).append(spec.name)
    namespace = settings.jobs_namespace
    for name, models in sorted(wanted.items()):
        about, users = f"{namespace}/{name}", f"for {', '.join(models)}"
        look = f"kubectl -n {namespace} get secret {name}"
        try:
            there = cluster.exists("Secret", name, namespace)
        except Forbidden:
            yield _SECRETS.unknown(
                about,
                f"this account may not look at secrets, as it should be ({users})",
                f"Look yourself: {look}",
            )
            continue
        if there:
            yield _SECRETS.ok(about, f"it exists ({users}); its key must be `token`")
        else:
            make = f"kubectl -n {namespace} create secret generic {name} --from-file=token=FILE"
            yield _SECRETS.failed(about, f"it does not exist ({users}): fetch cannot start", make)
    if not wanted:
        yield _SECRETS.ok("catalogue", "no entry names a secret")
