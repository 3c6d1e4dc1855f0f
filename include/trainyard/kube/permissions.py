"""What Airflow's account must be allowed in the cluster, and why. Pure data.

The Roles of deploy/cluster/base/rbac.yaml grant exactly this, `trainyard doctor` asks for exactly this, and
the end-to-end tests compare it with what the API server's audit log says was used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Scope = Literal["jobs", "serving", "cluster"]


@dataclass(frozen=True)
class Permission:
    """scope: which namespace, or all of them. resource: plural, with `/subresource` where it is one."""

    scope: Scope
    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        where = "in all namespaces" if self.scope == "cluster" else f"in the {self.scope} namespace"
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''} {where}"


@dataclass(frozen=True)
class Need:
    """Verbs on one resource, and what they are for."""

    scope: Scope
    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str

    def permissions(self) -> Iterator[Permission]:
        return (Permission(self.scope, self.group, self.resource, verb) for verb in self.verbs)


GATEWAY, KARPENTER, AWS = "gateway.networking.k8s.io", "karpenter.sh", "karpenter.k8s.aws"

NEEDS: tuple[Need, ...] = (
    Need(
        "jobs", "", "pods", ("create", "get", "patch", "delete"), "fetch, compile, warm-up and load-test pods"
    ),
    Need("jobs", "", "pods/log", ("get",), "their logs, in the task's log and in S3"),
    Need("jobs", "", "events", ("watch",), "what keeps a pod from starting, as it happens"),
    Need(
        "serving", "", "pods/log", ("get",), "proof that a server used the bundle; the log of one that died"
    ),
    # A websocket is a GET; since Kubernetes 1.35 it needs `create` as well.
    Need("serving", "", "pods/exec", ("create", "get"), "neuron-monitor in a server's pod"),
    # Server-side apply is a PATCH, which needs `create` too where it makes the object.
    Need("serving", "", "services", ("create", "get", "patch", "delete"), "one Service a release"),
    Need("serving", "apps", "deployments", ("create", "get", "patch", "delete"), "one Deployment a release"),
    Need("serving", "discovery.k8s.io", "endpointslices", ("list",), "addresses for load tests without DNS"),
    Need("serving", GATEWAY, "httproutes", ("create", "get", "patch"), "the weights of a model"),
    Need("cluster", "", "nodes", ("get", "list"), "free chips, and how far a new node is"),
    Need("cluster", "", "pods", ("list",), "free chips of a node are counted over all its pods"),
    Need("cluster", "", "events", ("list",), "Karpenter writes its events into the namespace default"),
    Need("cluster", KARPENTER, "nodepools", ("get",), "conditions and limits, before chips are asked for"),
    Need("cluster", KARPENTER, "nodeclaims", ("list",), "how far a node is that was bought"),
    Need("cluster", AWS, "ec2nodeclasses", ("get",), "whether nodes can be bought at all"),
)

# For DAGs of others that use the operators of trainyard_airflow: deploy/cluster/components/operators. Reading
# neuron-monitor outside the serving namespace takes pods/exec or pods/proxy there: left to who needs it.
OPERATOR_NEEDS: tuple[Need, ...] = (
    Need("cluster", KARPENTER, "nodeclaims", ("get",), "KarpenterNodeClaimSensor on one claim"),
    Need("cluster", "", "pods", ("get",), "KarpenterNodeClaimSensor on the claim that a pod waits for"),
    Need("cluster", "apps", "daemonsets", ("list",), "why a node has no Neuron device plugin"),
)


def permissions(needs: tuple[Need, ...] = NEEDS) -> tuple[Permission, ...]:
    return tuple(item for need in needs for item in need.permissions())
