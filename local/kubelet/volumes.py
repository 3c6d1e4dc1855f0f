"""Volumes as folders of the pod: emptyDir, configMap, secret, downwardAPI, projected, and hostPath below our
root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from local.client.kinds import Obj
from local.kubelet.environment import (
    ConfigError,
    Sources,
    configmap_data,
    expand,
    field_value,
    resource_value,
    secret_data,
)
from local.kubelet.paths import safe_join

SERVED = ("emptyDir", "configMap", "secret", "downwardAPI", "projected", "hostPath")


def make_volumes(
    pod: Obj, folder: Path, host_root: Path, sources: Sources, pod_ip: str, host_ip: str
) -> dict[str, Path]:
    """Create every volume of the pod below `folder`; returns name -> host path; raises ConfigError."""
    result = {}
    for volume in pod["spec"].get("volumes") or []:
        name = volume["name"]
        if "hostPath" in volume:
            result[name] = _host_path(volume["hostPath"], host_root, name)
            continue
        path = result[name] = folder / name
        path.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume or not any(kind in volume for kind in SERVED):
            if not any(kind in volume for kind in SERVED):
                kinds = ", ".join(key for key in volume if key != "name")
                raise ConfigError(f'volume "{name}": {kinds} is not served by this node')
            continue
        try:
            files = _files(volume, pod, sources, pod_ip, host_ip)
        except ConfigError as error:
            raise ConfigError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
        for relative, (content, mode) in files.items():
            target = safe_join(path, relative)
            target.parent.mkdir(parents=True, exist_ok=True)
            # By rename, so that a reader never sees half a file.
            draft = target.with_name(f".{target.name}.new")
            draft.write_bytes(content)
            draft.chmod(mode)
            os.replace(draft, target)
    return result


def _host_path(source: Obj, host_root: Path, name: str) -> Path:
    path = source["path"]
    if not path.startswith("/mnt/"):
        raise ConfigError(f'volume "{name}": hostPath {path} is refused: this node lends out /mnt/... only')
    try:
        target = safe_join(host_root, path)
    except ValueError as error:
        raise ConfigError(f'volume "{name}": {error}') from error
    if source.get("type", "") in ("", "DirectoryOrCreate"):
        target.mkdir(parents=True, exist_ok=True)
    elif source["type"] == "Directory" and not target.is_dir():
        raise ConfigError(
            f'MountVolume.SetUp failed for volume "{name}" : hostPath type check failed: '
            f"{path} is not a directory"
        )
    return target


Files = dict[str, tuple[bytes, int]]


def _files(volume: Obj, pod: Obj, sources: Sources, pod_ip: str, host_ip: str) -> Files:
    if "configMap" in volume:
        source = volume["configMap"]
        return _keyed(source, source.get("name", ""), sources.configmaps, configmap_data, "configmap", 0o644)
    if "secret" in volume:
        source = volume["secret"]
        return _keyed(source, source.get("secretName", ""), sources.secrets, secret_data, "secret", 0o644)
    if "downwardAPI" in volume:
        return _downward(volume["downwardAPI"], pod, pod_ip, host_ip)
    result: Files = {}
    projected = volume["projected"]
    default = projected.get("defaultMode", 0o644)
    for source in projected.get("sources") or []:
        if "configMap" in source:
            inner = source["configMap"]
            result.update(
                _keyed(inner, inner.get("name", ""), sources.configmaps, configmap_data, "configmap", default)
            )
        elif "secret" in source:
            inner = source["secret"]
            result.update(
                _keyed(inner, inner.get("name", ""), sources.secrets, secret_data, "secret", default)
            )
        elif "downwardAPI" in source:
            result.update(_downward({"defaultMode": default, **source["downwardAPI"]}, pod, pod_ip, host_ip))
        # serviceAccountToken: pods here are no API clients, so no token is projected; the file is
        # simply absent.
    return result


def _keyed(
    source: Obj,
    name: str,
    objects: Mapping[str, Obj],
    data: Callable[[Obj], dict[str, bytes]],
    kind: str,
    default: int,
) -> Files:
    found = objects.get(name)
    # The cluster's root certificate is published by a controller that may not run; no pod here needs it.
    optional = bool(source.get("optional")) or name == "kube-root-ca.crt"
    if found is None:
        if optional:
            return {}
        raise ConfigError(f'{kind} "{name}" not found')
    content = data(found)
    mode = source.get("defaultMode", default)
    items = source.get("items")
    if items is None:
        return {key: (value, mode) for key, value in content.items()}
    result: Files = {}
    for item in items:
        if item["key"] in content:
            result[item["path"]] = (content[item["key"]], item.get("mode", mode))
        elif not optional:
            raise ConfigError(f"references non-existent {kind} key: {item['key']}")
    return result


def _downward(source: Obj, pod: Obj, pod_ip: str, host_ip: str) -> Files:
    result: Files = {}
    mode = source.get("defaultMode", 0o644)
    for item in source.get("items") or []:
        if "fieldRef" in item:
            text = field_value(pod, item["fieldRef"]["fieldPath"], pod_ip, host_ip)
        else:
            text = resource_value(pod, pod["spec"]["containers"][0], item["resourceFieldRef"], {})
        result[item["path"]] = (text.encode(), item.get("mode", mode))
    return result


def mount_paths(container: Obj, volumes: dict[str, Path], environment: dict[str, str]) -> dict[str, Path]:
    """Container path -> host path of every mount; sub-paths are created; raises ConfigError."""
    result: dict[str, Path] = {}
    for mount in container.get("volumeMounts") or []:
        root = volumes.get(mount["name"])
        if root is None:
            # The service account's token volume that a real API server adds is not made here.
            continue
        inner = mount.get("subPath") or expand(mount.get("subPathExpr") or "", environment)
        if inner:
            try:
                root = safe_join(root, inner)
            except ValueError as error:
                raise ConfigError(
                    f'failed to prepare subPath for volumeMount "{mount["name"]}": {error}'
                ) from error
            if not root.exists():
                root.mkdir(parents=True)
        result[mount["mountPath"].rstrip("/") or "/"] = root
    _link_nested(result)
    return result


def _link_nested(mounts: dict[str, Path]) -> None:
    """Show a mount that lies inside another one there, for programs that walk down from outside."""
    for inner, target in mounts.items():
        outers = [outer for outer in mounts if outer != "/" and inner.startswith(outer + "/")]
        if outers:
            outer = max(outers, key=len)
            place = mounts[outer] / inner[len(outer) + 1 :]
            if not place.exists() and not place.is_symlink():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(target)


def source_names(pod: Obj) -> tuple[set[str], set[str]]:
    """Names of all ConfigMaps and Secrets that the pod mentions in volumes or environment."""
    configmaps: set[str] = set()
    secrets: set[str] = set()
    for volume in pod["spec"].get("volumes") or []:
        parts = [volume, *((volume.get("projected") or {}).get("sources") or [])]
        for part in parts:
            if "configMap" in part:
                configmaps.add(part["configMap"].get("name", ""))
            if "secret" in part:
                secrets.add(part["secret"].get("secretName") or part["secret"].get("name", ""))
    for container in [*(pod["spec"].get("initContainers") or []), *(pod["spec"].get("containers") or [])]:
        for entry in container.get("envFrom") or []:
            configmaps.update(filter(None, [(entry.get("configMapRef") or {}).get("name")]))
            secrets.update(filter(None, [(entry.get("secretRef") or {}).get("name")]))
        for entry in container.get("env") or []:
            source = entry.get("valueFrom") or {}
            configmaps.update(filter(None, [(source.get("configMapKeyRef") or {}).get("name")]))
            secrets.update(filter(None, [(source.get("secretKeyRef") or {}).get("name")]))
    return configmaps, secrets
