"""All parts of a stack, in the order in which people think of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .service import Part
from .services.airflow import airflow
from .services.cluster import control_plane, gateway_is_programmed, nodes
from .services.gateway import gateway
from .services.hub import hub
from .services.postgres import postgres
from .services.seaweed import bucket, seaweed
from .services.setting import Setting


def parts(setting: Setting, environment: Mapping[str, str]) -> tuple[Part, ...]:
    """`environment`: of the stack's processes."""
    return (
        postgres(setting),
        seaweed(setting),
        bucket(setting),
        *control_plane(setting),
        *nodes(setting),
        gateway(setting),
        gateway_is_programmed(setting),
        hub(setting),
        *airflow(setting, dict(environment)),
    )


def facts(setting: Setting) -> dict[str, Any]:
    """What `stack.json` says besides how the parts are doing."""
    return {
        "endpoints": {
            "apiserver": setting.api_server,
            **{name: setting.url(name) for name in ("gateway", "s3", "hub", "airflow")},
        },
        "kubeconfig": str(setting.kubeconfig),
        "env_file": str(setting.home.env_file),
    }
