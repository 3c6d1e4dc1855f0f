"""What is served: one `Resource` per (group, version, plural), and the table of the built-in ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from local.apiserver.errors import Object, Subject

METADATA_FIELDS = {"metadata.name": "metadata.name", "metadata.namespace": "metadata.namespace"}
VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, eq=False)
class Resource:
    """One resource of one API version.

    `schema` is an OpenAPI v3 schema (see schemas.py), `subresources` the names below an object, `fields` the
    known field selectors (name to path), `definition` the CustomResourceDefinition of a custom resource and
    `columns` its additionalPrinterColumns. `storage` names the collection, which versions share.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS
    fields: Mapping[str, str] = field(default_factory=lambda: METADATA_FIELDS)
    generation: bool = False
    model: str = ""
    schema: Object = field(default_factory=dict)
    stored_as: tuple[str, str] | None = None
    list_kind: str = ""
    custom: bool = False
    columns: tuple[Object, ...] = ()
    scale: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def storage(self) -> tuple[str, str]:
        return self.stored_as or (self.group, self.plural)

    def subject(self, name: str = "") -> Subject:
        return Subject(self.group, self.plural, self.kind, name)


def _fields(*paths: str, **renamed: str) -> dict[str, str]:
    return {**METADATA_FIELDS, **{p: p for p in paths}, **renamed}


_POD_FIELDS = _fields(
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)
_EVENT_FIELDS = _fields(
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "type",
)
_EVENT_FIELDS["source"] = "source.component"
_REGARDING_FIELDS = {k.replace("involvedObject", "regarding"): v for k, v in _EVENT_FIELDS.items()}
_REGARDING_FIELDS["reportingController"] = _REGARDING_FIELDS.pop("reportingComponent")

_ALL = ("all",)
_POD_SUBRESOURCES = ("binding", "eviction", "exec", "log", "status")
_WORKLOAD = ("scale", "status")


def _core(plural: str, kind: str, **more: object) -> Resource:
    return Resource("", "v1", plural, kind, model=f"V1{kind}", **more)  # type: ignore[arg-type]


def _of(group: str, plural: str, kind: str, **more: object) -> Resource:
    return Resource(group, "v1", plural, kind, **{"model": f"V1{kind}", **more})  # type: ignore[arg-type]


def _review(group: str, kind: str, namespaced: bool = False) -> Resource:
    """What is asked and answered, but never kept."""
    return _of(group, kind.lower() + "s", kind, namespaced=namespaced, verbs=("create",))


BUILT_IN: tuple[Resource, ...] = (
    _core("configmaps", "ConfigMap", short_names=("cm",)),
    _core(
        "events",
        "Event",
        short_names=("ev",),
        fields=_EVENT_FIELDS,
    ),
    _core(
        "namespaces",
        "Namespace",
        namespaced=False,
        short_names=("ns",),
        subresources=("finalize", "status"),
        fields=_fields("status.phase"),
        verbs=tuple(v for v in VERBS if v != "deletecollection"),
    ),
    _core(
        "nodes",
        "Node",
        namespaced=False,
        short_names=("no",),
        subresources=("status",),
        fields=_fields("spec.unschedulable"),
    ),
    _core(
        "pods",
        "Pod",
        short_names=("po",),
        categories=_ALL,
        subresources=_POD_SUBRESOURCES,
        fields=_POD_FIELDS,
        generation=True,
    ),
    _core("secrets", "Secret", fields=_fields("type")),
    _core("serviceaccounts", "ServiceAccount", short_names=("sa",)),
    _core(
        "services",
        "Service",
        short_names=("svc",),
        categories=_ALL,
        subresources=("status",),
        fields=_fields("spec.clusterIP", "spec.type"),
    ),
    _of(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        namespaced=False,
        short_names=("crd", "crds"),
        categories=("api-extensions",),
        subresources=("status",),
        generation=True,
    ),
    _of(
        "apps",
        "daemonsets",
        "DaemonSet",
        short_names=("ds",),
        categories=_ALL,
        subresources=("status",),
        generation=True,
    ),
    _of(
        "apps",
        "deployments",
        "Deployment",
        short_names=("deploy",),
        categories=_ALL,
        subresources=_WORKLOAD,
        generation=True,
    ),
    _of(
        "apps",
        "replicasets",
        "ReplicaSet",
        short_names=("rs",),
        categories=_ALL,
        subresources=_WORKLOAD,
        fields=_fields("status.replicas"),
        generation=True,
    ),
    _of(
        "batch",
        "jobs",
        "Job",
        categories=_ALL,
        subresources=("status",),
        fields=_fields("status.successful"),
        generation=True,
    ),
    _of("coordination.k8s.io", "leases", "Lease"),
    _of("discovery.k8s.io", "endpointslices", "EndpointSlice", generation=True),
    _of(
        "events.k8s.io",
        "events",
        "Event",
        short_names=("ev",),
        model="EventsV1Event",
        stored_as=("", "events"),
        fields=_REGARDING_FIELDS,
    ),
    _of("networking.k8s.io", "networkpolicies", "NetworkPolicy", short_names=("netpol",), generation=True),
    _of("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    _of("rbac.authorization.k8s.io", "clusterroles", "ClusterRole", namespaced=False),
    _of("rbac.authorization.k8s.io", "rolebindings", "RoleBinding"),
    _of("rbac.authorization.k8s.io", "roles", "Role"),
    _of("scheduling.k8s.io", "priorityclasses", "PriorityClass", namespaced=False, short_names=("pc",)),
    _review("authentication.k8s.io", "SelfSubjectReview"),
    _review("authorization.k8s.io", "LocalSubjectAccessReview", namespaced=True),
    _review("authorization.k8s.io", "SelfSubjectAccessReview"),
    _review("authorization.k8s.io", "SelfSubjectRulesReview"),
    _review("authorization.k8s.io", "SubjectAccessReview"),
)

CRDS = ("apiextensions.k8s.io", "customresourcedefinitions")
NAMESPACES = ("", "namespaces")
PODS = ("", "pods")


class Registry:
    """The resources served now; custom ones come and go."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._served: dict[tuple[str, str, str], Resource] = {}
        for resource in resources:
            self.add(resource)

    def add(self, resource: Resource) -> None:
        self._served[resource.group, resource.version, resource.plural] = resource

    def remove(self, group: str, plural: str) -> None:
        gone = [k for k, r in self._served.items() if r.custom and (k[0], k[2]) == (group, plural)]
        for key in gone:
            del self._served[key]

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._served.get((group, version, plural))

    def all(self) -> list[Resource]:
        return list(self._served.values())

    def versions(self) -> dict[str, list[str]]:
        """Groups with their versions, the preferred one first, in the order in which they are announced."""
        found: dict[str, list[str]] = {}
        for group, version, _ in self._served:
            versions = found.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return {g: sorted(v, key=version_rank, reverse=True) for g, v in found.items()}

    def of_version(self, group: str, version: str) -> list[Resource]:
        return sorted(
            (r for r in self._served.values() if (r.group, r.version) == (group, version)),
            key=lambda r: r.plural,
        )


def version_rank(version: str) -> tuple[int, int, int]:
    """Kubernetes' order of versions: v2 before v1 before v1beta2 before v1alpha1, as a sort key."""
    for stage, word in ((1, "beta"), (0, "alpha")):
        head, found, tail = version.removeprefix("v").partition(word)
        if found and head.isdigit():
            return stage, int(head), int(tail) if tail.isdigit() else 0
    digits = version.removeprefix("v")
    return 2, int(digits) if digits.isdigit() else 0, 0
