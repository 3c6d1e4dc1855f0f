"""A request, taken apart: what it addresses, its options, and what the verbs need to answer it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from local.apiserver.errors import Object, bad_request
from local.apiserver.resources import Registry, Resource
from local.apiserver.store import Collection, Store, key_of


@dataclass
class Cluster:
    """Everything the server holds."""

    registry: Registry
    store: Store
    kubelet_token: str = ""
    service_ips: set[str] = field(default_factory=set)

    def collection(self, resource: Resource) -> Collection:
        return self.store.collection(resource.storage)


@dataclass(frozen=True)
class Target:
    """A path: /api/v1/namespaces/NS/PLURAL/NAME/SUB or /apis/GROUP/VERSION/…"""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse_path(path: str) -> Target | None:
    """The target of a resource path; None for any other path."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if (
        rest[0] == "namespaces"
        and len(rest) > 2
        and not (len(rest) == 3 and rest[2] in ("status", "finalize"))
    ):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        return Target(group, version, rest[0], namespace, rest[1], "/".join(rest[2:]))
    return Target(group, version, rest[0], namespace, *rest[1:])


def _whatever(*_: object) -> None:
    """Inside the server everything is allowed."""


@dataclass(frozen=True)
class Call:
    """One request for a resource, in process.

    `require` is for what turns out to need another verb than the request's own, `vet` for what the content of
    an object (the new one, and the old one if any) demands of its writer: both raise ApiError 403.
    """

    cluster: Cluster
    resource: Resource
    target: Target
    query: Mapping[str, str] = field(default_factory=dict)
    user_agent: str = ""
    content_type: str = ""
    raw: bytes = b""
    require: Callable[[str], None] = _whatever
    vet: Callable[[Call, Object, Object | None], None] = _whatever

    @property
    def dry_run(self) -> bool:
        return bool(self.query.get("dryRun"))

    @property
    def manager(self) -> str:
        return self.query.get("fieldManager") or self.user_agent.split("/")[0] or "unknown"

    @property
    def collection(self) -> Collection:
        return self.cluster.collection(self.resource)

    @property
    def namespace(self) -> str | None:
        """The namespace of a list; None means all of them."""
        return self.target.namespace or None if self.resource.namespaced else None

    def key(self, name: str = "") -> str:
        return key_of(self.target.namespace if self.resource.namespaced else "", name or self.target.name)

    def body(self) -> Any:
        return parse_body(self.raw, self.resource.kind)


def parse_body(raw: bytes, kind: str) -> Any:
    """JSON, or YAML as `kubectl apply --server-side` may send it; ApiError 400 for neither."""
    try:
        return json.loads(raw)
    except ValueError as error:
        reason = str(error)
    try:
        value = yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError):
        value = None
    if isinstance(value, dict) and not raw.lstrip().startswith(b"{"):
        return json.loads(json.dumps(value, default=lambda d: d.isoformat().replace("+00:00", "Z")))
    text = raw.decode(errors="replace")[:200]
    raise bad_request(
        f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
        f"json parse error: {reason} ({text})"
    )


def now() -> str:
    """The time as metav1.Time prints it: UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_uid() -> str:
    return str(uuid.uuid4())
