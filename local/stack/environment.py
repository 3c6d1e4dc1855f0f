"""The environment of the stack's own processes, and the file that gives it to every client."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from .home import MARKER
from .services import airflow
from .services.seaweed import BUCKET, REGION
from .services.setting import Setting

KEPT = ("HOME", "LANG", "LC_ALL", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
"""What children see of the caller's environment; proxies, profiles and other projects' settings stay out."""


def for_pods(setting: Setting) -> dict[str, str]:
    """What the stand-in of EKS pod identity gives to pods: access to S3."""
    return {
        "AWS_ACCESS_KEY_ID": setting.secrets.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": setting.secrets.s3_secret_key,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_S3": setting.url("s3"),
    }


def for_clients(setting: Setting, caller: Mapping[str, str]) -> dict[str, str]:
    """All that a client of the stack needs.

    `TRAINYARD_*` variables of the caller win, but for those that say where this stack's things are.
    """
    repository = setting.repository
    fixed = {
        "TRAINYARD_HOME": str(setting.home.root),
        "TRAINYARD_BUCKET": BUCKET,
        "TRAINYARD_JOBS_NAMESPACE": "trainyard-jobs",
        "TRAINYARD_SERVING_NAMESPACE": "trainyard-serving",
        "TRAINYARD_GATEWAY_NAME": "trainyard",
        "TRAINYARD_GATEWAY_NAMESPACE": "trainyard-serving",
        "TRAINYARD_GATEWAY_URL": setting.url("gateway"),
        "TRAINYARD_SERVICE_ADDRESSING": "endpoints",
        "TRAINYARD_HUB_ENDPOINT": setting.url("hub"),
        "TRAINYARD_AIRFLOW_URL": setting.url("airflow"),
        "TRAINYARD_AWS_CONN_ID": "aws_default",
        "TRAINYARD_KUBERNETES_CONN_ID": "kubernetes_default",
    }
    defaults = {
        "TRAINYARD_JOBS_IMAGE": "trainyard-jobs:local",
        "TRAINYARD_POLL_SECONDS": "1",
        "TRAINYARD_RETRY_SECONDS": "2",
        "TRAINYARD_DRAIN_SECONDS": "3",
        "TRAINYARD_CAPACITY_WAIT_MINUTES": "5",
        # The local Hub has no other model of the catalogue.
        "TRAINYARD_FOLLOW": "tiny-llama",
        "TRAINYARD_RELEASES_DIR": str(repository / "include" / "releases"),
    }
    own = {
        name: value
        for name, value in caller.items()
        if name.startswith("TRAINYARD_") and name != "TRAINYARD_KUBECONFIG"
    }
    return {
        **airflow.environment(setting),
        **for_pods(setting),
        "HF_ENDPOINT": setting.url("hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **defaults,
        **own,
        **fixed,
    }


def for_children(setting: Setting, clients: Mapping[str, str], caller: Mapping[str, str]) -> dict[str, str]:
    """What every process of the stack gets: the clients' part, this interpreter's PATH, the marker."""
    repository = setting.repository
    programs = str(Path(sys.executable).parent)
    return {
        **{name: caller[name] for name in KEPT if name in caller},
        **clients,
        "PATH": os.pathsep.join((programs, caller.get("PATH", os.defpath))),
        "PYTHONPATH": os.pathsep.join(map(str, (repository, repository / "include", repository / "plugins"))),
        "PYTHONUNBUFFERED": "1",
        # setproctitle would write over the environment that /proc shows, and so over the marker.
        "SPT_NOENV": "1",
        "NO_PROXY": "*",
        MARKER: setting.home.id,
    }


def render(values: Mapping[str, str]) -> str:
    """`KEY=value` lines, unquoted, as Docker and systemd read them.

    Raises ValueError for a value of more than one line, which the format cannot say.
    """
    for name, value in values.items():
        if "\n" in value:
            raise ValueError(f"{name} has a line break: an environment file cannot hold it")
    return "".join(f"{name}={value}\n" for name, value in sorted(values.items()))


def parse(text: str) -> dict[str, str]:
    """The inverse of `render`; blank lines and comments are passed over."""
    pairs = (line.partition("=") for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {name: value for name, separator, value in pairs if separator}
