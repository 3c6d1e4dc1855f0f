"""The files of a target: `environment` (for the containers' entry point), kubeconfig, what pods may know."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.stack.home import write_private

REGION = "us-east-1"
"""SeaweedFS's own; it does not care."""
USED_BY_GROUP = 0o640
"""Services may run as another user of group 0: see AIRFLOW_UID."""


@dataclass(frozen=True)
class LocalTarget:
    """The local cluster as other containers reach it. URLs have no path."""

    api_server: str
    gateway: str
    hub: str
    s3: str
    s3_access_key: str
    s3_secret_key: str
    token: str
    bucket: str = "trainyard"

    def environment(self, folder: Path) -> dict[str, str]:
        """What Airflow's processes get on top of the compose file; it wins over what that passes on."""
        aws = {
            "conn_type": "aws",
            "login": self.s3_access_key,
            "password": self.s3_secret_key,
            "extra": {"region_name": REGION, "service_config": {"s3": {"endpoint_url": self.s3}}},
        }
        return {
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
            "AIRFLOW_CONN_KUBERNETES_DEFAULT": kubernetes_connection(folder),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            **self.for_pods(),
            "HF_ENDPOINT": self.hub,
            "TRAINYARD_BUCKET": self.bucket,
            "TRAINYARD_GATEWAY_URL": self.gateway,
            "TRAINYARD_HUB_ENDPOINT": self.hub,
            "TRAINYARD_JOBS_IMAGE": "trainyard-jobs:local",
            "TRAINYARD_POLL_SECONDS": "2",
            "TRAINYARD_RETRY_SECONDS": "5",
            # The local Hub has no other model of the catalogue.
            "TRAINYARD_FOLLOW": "tiny-llama",
            # The local cluster has no DNS of its own, and its pods' addresses are good where pods run.
            "TRAINYARD_SERVICE_ADDRESSING": "endpoints",
        }

    def for_pods(self) -> dict[str, str]:
        """What the stand-in of EKS pod identity gives to pods: access to S3."""
        return {
            "AWS_ACCESS_KEY_ID": self.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3_secret_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": self.s3,
        }

    def kubeconfig(self, authority: Path, token: str) -> str:
        """For a client of the local API server. Names the authority's file, in Airflow's volume."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "local",
                "clusters": [
                    {
                        "name": "local",
                        "cluster": {"server": self.api_server, "certificate-authority": str(authority)},
                    }
                ],
                "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
                "users": [{"name": "local", "user": {"token": token}}],
            },
            indent=2,
        )


def kubernetes_connection(folder: Path) -> str:
    """Exactly one way in: this kubeconfig (with KUBECONFIG besides, the triggerer would refuse it)."""
    return json.dumps(
        {
            "conn_type": "kubernetes",
            "extra": {"kube_config_path": str(folder / "kubeconfig"), "in_cluster": False},
        }
    )


def eks_environment(folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Credentials stay where AWS's own chain finds them: variables, profile or the mounted folder.

    Raises ValueError naming every setting that has no sensible default on a real cluster.
    """
    missing = [name for name in ("TRAINYARD_BUCKET", "TRAINYARD_JOBS_IMAGE") if not given.get(name)]
    if missing:
        raise ValueError(
            f"profile eks: set {' and '.join(missing)} in .env (docs/containers.md says to what)"
        )
    region = given.get("TRAINYARD_REGION") or "us-east-2"
    return {
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps({"conn_type": "aws", "extra": {"region_name": region}}),
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": kubernetes_connection(folder),
        # Nothing is released onto a real cluster before somebody switched the DAG on.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AWS_DEFAULT_REGION": region,
    }


def render_shell(values: Mapping[str, str]) -> str:
    """Assignments that a POSIX shell reads back exactly."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))


def render_plain(values: Mapping[str, str]) -> str:
    """`KEY=value` lines as `local.kubelet --pod-identity-env` reads them."""
    return "".join(f"{name}={value}\n" for name, value in sorted(values.items()))


def write(path: Path, text: str) -> None:
    """In one step, for this user and group 0."""
    write_private(path, text)
    path.chmod(USED_BY_GROUP)
