"""Discovery: /version, /api, /apis and the resource lists of each version."""

from __future__ import annotations

from local.apiserver.errors import Object
from local.apiserver.resources import Registry, Resource

VERSION: Object = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.2",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}

_SUB: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "binding": ("Binding", "", "v1", ("create",)),
    "eviction": ("Eviction", "policy", "v1", ("create",)),
    "exec": ("PodExecOptions", "", "v1", ("create", "get")),
    "log": ("Pod", "", "v1", ("get",)),
    "scale": ("Scale", "autoscaling", "v1", ("get", "patch", "update")),
    "finalize": ("Namespace", "", "v1", ("update",)),
}


def api_versions(address: str) -> Object:
    clients = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": clients}


def group(name: str, versions: list[str]) -> Object:
    entries = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def groups(registry: Registry) -> Object:
    found = [group(g, v) for g, v in registry.versions().items() if g]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def one_group(registry: Registry, name: str) -> Object | None:
    versions = registry.versions().get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **group(name, versions)} if versions and name else None


def _entry(resource: Resource) -> Object:
    entry: Object = {
        "name": resource.plural,
        "singularName": resource.singular or resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    return entry


def _sub_entry(resource: Resource, sub: str) -> Object:
    entry: Object = {
        "name": f"{resource.plural}/{sub}",
        "singularName": "",
        "namespaced": resource.namespaced,
    }
    if sub not in _SUB:
        return {**entry, "kind": resource.kind, "verbs": ["get", "patch", "update"]}
    kind, group, version, verbs = _SUB[sub]
    if group:
        entry |= {"group": group, "version": version}
    return {**entry, "kind": kind, "verbs": list(verbs)}


def resources(registry: Registry, group: str, version: str) -> Object | None:
    """The APIResourceList of one version; None if it is not served."""
    served = registry.of_version(group, version)
    if not served:
        return None
    entries: list[Object] = []
    for resource in served:
        entries.append(_entry(resource))
        entries += [_sub_entry(resource, s) for s in resource.subresources]
    name = f"{group}/{version}" if group else version
    head = {"kind": "APIResourceList"} | ({"apiVersion": "v1"} if group else {})
    return {**head, "groupVersion": name, "resources": entries}
