"""From a container's spec to what is really run: command line, environment, folder."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from local.client.instances import NEURON
from local.client.kinds import Obj
from local.client.placement import container_requests
from local.kubelet import orphans
from local.kubelet.context import PodContext
from local.kubelet.environment import ConfigError, container_environment, expand
from local.kubelet.images import Image
from local.kubelet.paths import PathMap
from local.kubelet.volumes import mount_paths

FAULTS = "local.trainyard.dev/faults"


@dataclass(frozen=True)
class Launch:
    """What is run for one container."""

    argv: list[str]
    environment: dict[str, str]
    folder: Path
    paths: PathMap
    message_file: Path


def container_folder(context: PodContext, container: Obj) -> Path:
    return context.folder / "containers" / str(container["name"])


def prepare(context: PodContext, container: Obj, image: Image, *, init: bool) -> Launch:
    """Resolve everything; raises ConfigError in the kubelet's words."""
    pod, host = context.pod, context.host.settings
    own = container_environment(
        pod, container, context.sources, context.ip, host.address, context.node.allocatable
    )
    folder = container_folder(context, container)
    for inner in ("home", "tmp", "work"):
        (folder / inner).mkdir(parents=True, exist_ok=True)
    message_file = folder / "termination-log"
    mounts = mount_paths(container, context.volumes, own)
    message_path = container.get("terminationMessagePath") or "/dev/termination-log"
    paths = PathMap({**mounts, message_path: message_file})

    environment = _base_environment(context, folder, image, paths)
    environment.update(_neuron(context, container, init=init))
    environment.update(context.identity)
    rewritten = {name: paths.rewrite(value) for name, value in own.items()}
    for name in ("PATH", "PYTHONPATH"):
        # What the image brings stays reachable behind what the pod asks for.
        if name in rewritten and environment.get(name):
            rewritten[name] = f"{rewritten[name]}{os.pathsep}{environment[name]}"
    environment.update(rewritten)

    command = container.get("command") or list(image.entrypoint)
    if not command:
        raise ConfigError(f'no command specified for image "{image.name}"')
    argv = [paths.rewrite(expand(part, own)) for part in [*command, *(container.get("args") or [])]]
    work = folder / "work"
    if container.get("workingDir"):
        work = paths.host(container["workingDir"]) or work / container["workingDir"].lstrip("/")
        work.mkdir(parents=True, exist_ok=True)
    return Launch(argv, environment, work, paths, message_file)


def _base_environment(context: PodContext, folder: Path, image: Image, paths: PathMap) -> dict[str, str]:
    pod, root = context.pod, context.host.settings.root
    search = [*map(str, image.path), str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    inherited = {name: value for name, value in os.environ.items() if name.startswith("LOCAL_")}
    result = {
        **inherited,
        "PATH": os.pathsep.join(search),
        "HOME": str(folder / "home"),
        "TMPDIR": str(paths.host("/tmp") or folder / "tmp"),
        "LANG": "C.UTF-8",
        "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
        "LOCAL_POD_IP": context.ip,
        "LOCAL_IMAGE": image.name,
        orphans.MARKER: orphans.stack_id(root),
        orphans.ROOT: str(root),
    }
    if image.pythonpath:
        result["PYTHONPATH"] = os.pathsep.join(map(str, image.pythonpath))
    faults = (pod["metadata"].get("annotations") or {}).get(FAULTS)
    if faults:
        result["LOCAL_FAULTS"] = faults
    return result


def _neuron(context: PodContext, container: Obj, *, init: bool) -> dict[str, str]:
    chips = int(container_requests(container).get(NEURON, 0))
    if not chips:
        return {}
    node = context.node
    try:
        held = node.devices.allocate(context.pod["metadata"]["uid"], container["name"], chips, init=init)
    except RuntimeError as error:
        raise ConfigError(str(error)) from error
    silicon = {"instance_type": node.instance_type, "devices": held, "node": node.name}
    return {"LOCAL_SILICON": json.dumps(silicon)}
