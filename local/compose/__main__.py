"""`python -m local.compose local-target | local-setup | eks-target | password`: the one-off services."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from local.compose import steps
from local.compose.targets import LocalTarget, write


def local_target(given: Mapping[str, str]) -> LocalTarget:
    """From the variables that docker-compose.yaml sets. Raises ValueError for one that is missing."""

    def value(name: str) -> str:
        if not given.get(name):
            raise ValueError(f"{name} is not set: `python3 -m local.compose.dotenv` writes .env")
        return given[name]

    return LocalTarget(
        api_server=value("LOCAL_API_SERVER"),
        gateway=value("LOCAL_GATEWAY"),
        hub=value("LOCAL_HUB"),
        s3=value("LOCAL_S3"),
        s3_access_key=value("S3_ACCESS_KEY"),
        s3_secret_key=value("S3_SECRET_KEY"),
        token=value("CLUSTER_TOKEN"),
    )


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 when done, 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="python -m local.compose", description=__doc__)
    parser.add_argument("step", choices=("local-target", "local-setup", "eks-target", "password"))
    parser.add_argument(
        "--target", type=Path, default=Path("/srv/target"), help="folder of the target's files"
    )
    parser.add_argument(
        "--cluster", type=Path, default=Path("/srv/cluster"), help="folder of the local cluster"
    )
    parser.add_argument(
        "--kubeconfig", type=Path, default=Path("/run/kubeconfig"), help="eks-target: what is mounted"
    )
    parser.add_argument("--passwords", type=Path, default=Path("/opt/airflow/auth/passwords.json"))
    given = parser.parse_args(argv)
    os.umask(0o007)
    try:
        match given.step:
            case "local-target":
                target = local_target(os.environ)
                steps.write_local(
                    target, given.target, given.cluster, urlsplit(target.api_server).hostname or ""
                )
            case "local-setup":
                target = local_target(os.environ)
                steps.create_bucket(target)
                port = urlsplit(target.gateway).port or 80
                steps.apply_manifests(given.cluster / "kubeconfig", given.cluster, port)
            case "eks-target":
                steps.write_eks(given.kubeconfig, given.target, os.environ)
            case _:
                write(given.passwords, json.dumps({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}) + "\n")
    except (steps.StepError, ValueError, OSError) as error:
        print(f"local.compose {given.step}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
