"""The local cluster for tests: API server, controllers, kubelet and Karpenter, started once a session."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from local.client.kinds import EVENTS, NAMESPACES, NODES, PODS, Obj, Resource
from local.client.objects import is_true
from tests.support.certificate import write_certificate
from tests.support.processes import stop

ROOT = Path(__file__).parents[2]
TOKEN, KUBELET_TOKEN = "token-of-the-tests", "kubelet-token-of-the-tests"
PATIENCE = 90.0
"""Seconds for what takes one: other tests, and other people, keep a machine busy for many."""
_numbers = itertools.count(1)


@dataclass
class Cluster:
    """A running cluster and ways to ask it."""

    url: str
    folder: Path
    kubeconfig: Path
    certificate: Path
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.headers["Authorization"] = f"Bearer {TOKEN}"
        self.session.verify = str(self.certificate)
        self.session.trust_env = False

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Obj:
        media = headers.pop("media", "application/json")
        answer = self.session.request(
            method,
            self.url + path,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": media},
            timeout=PATIENCE,
        )
        assert answer.status_code < 400, f"{method} {path}: {answer.text}"
        result: Obj = answer.json()
        return result

    def find(self, resource: Resource, namespace: str | None, name: str) -> Obj | None:
        path = self.url + resource.path(namespace, name)
        answer = self.session.get(path, timeout=PATIENCE)
        return None if answer.status_code == 404 else answer.json()

    def list(self, resource: Resource, namespace: str | None = None, **query: str) -> list[Obj]:
        answer = self.session.get(self.url + resource.path(namespace), params=query, timeout=PATIENCE)
        items: list[Obj] = answer.json()["items"]
        return items

    def create(self, resource: Resource, obj: Obj) -> Obj:
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        return self.request("POST", resource.path(obj["metadata"].get("namespace")), body)

    def patch(self, resource: Resource, namespace: str | None, name: str, body: Obj) -> Obj:
        return self.request(
            "PATCH", resource.path(namespace, name), body, media="application/merge-patch+json"
        )

    def delete(self, resource: Resource, namespace: str | None, name: str, **options: Any) -> None:
        self.request("DELETE", resource.path(namespace, name), options or None)

    def pod(self, namespace: str, name: str, command: list[str] | None, **spec: Any) -> Obj:
        """Create a pod with one container `main`; entries of `container` go into it."""
        container = {"name": "main", "image": "python:3.12", **spec.pop("container", {})}
        if command is not None:
            container["command"] = command
        meta = {"name": name, "namespace": namespace, **spec.pop("metadata", {})}
        body = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 2,
            "containers": [container],
            **spec,
        }
        return self.create(PODS, {"metadata": meta, "spec": body})

    def kubectl(self, *arguments: str, stdin: str | None = None, code: int | None = 0) -> str:
        """Output of kubectl; fails on another exit code than expected (None: any)."""
        binary = Path(sys.executable).parent / "kubectl"
        done = subprocess.run(
            [str(binary), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            env={**os.environ, "HOME": str(self.folder)},
        )
        assert code is None or done.returncode == code, f"{arguments}: {done.returncode} {done.stderr}"
        return done.stdout

    def until(self, what: str, check: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """The first true answer of `check`; fails with its last answer after a generous time."""
        end, last = time.monotonic() + seconds, None
        while time.monotonic() < end:
            last = check()
            if last:
                return last
            time.sleep(0.03)
        raise AssertionError(f"not within {seconds} s: {what}; last answer {last!r}")

    def phase(self, namespace: str, name: str, *wanted: str) -> Obj:
        """The pod once it is in one of these phases."""

        def check() -> Obj | None:
            pod = self.find(PODS, namespace, name)
            return pod if pod and pod["status"].get("phase") in wanted else None

        found: Obj = self.until(f"pod {name} {wanted}", check)
        return found

    def events(self, namespace: str | None, name: str) -> list[tuple[str, str]]:
        """(reason, message) of all events about an object."""
        found = self.list(EVENTS, namespace or "default")
        return [(each["reason"], each["message"]) for each in found if each["involvedObject"]["name"] == name]

    def event(self, namespace: str | None, name: str, reason: str, text: str = "") -> str:
        """Message of the first event with this reason and text, waited for."""

        def check() -> list[str]:
            return [
                message for why, message in self.events(namespace, name) if why == reason and text in message
            ]

        found: list[str] = self.until(f"event {reason} {text} of {name}", check)
        return found[0]


def container_status(pod: Obj, name: str = "main") -> Obj:
    """The container's status entry; empty while there is none."""
    entries = pod["status"].get("containerStatuses") or []
    found: Obj = next((each for each in entries if each["name"] == name), {})
    return found


@contextmanager
def program(
    folder: Path, module: str, *arguments: str, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """A program of ours as a process of its own, its output in a file, stopped at the end."""
    output = folder / f"{module}.log"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
    try:
        yield process
    finally:
        stop(process, PATIENCE)


@contextmanager
def api_server(folder: Path) -> Iterator[Cluster]:
    """An API server alone."""
    cert_file, key_file = write_certificate(folder)
    arguments = ["--listen", "127.0.0.1:0", "--token", TOKEN, "--kubelet-token", KUBELET_TOKEN]
    arguments += ["--tls-cert", str(cert_file), "--tls-key", str(key_file)]
    for path in sorted((ROOT / "local" / "crds").glob("*.yaml")):
        arguments += ["--crd", str(path)]
    with program(folder, "local.apiserver", *arguments) as process:
        output, end = folder / "local.apiserver.log", time.monotonic() + PATIENCE
        while not (found := re.search(r"serving on (\S+)\n", output.read_text())):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < end, output.read_text()
            time.sleep(0.03)
        kubeconfig = folder / "kubeconfig"
        entry = {"server": found[1], "certificate-authority": str(cert_file)}
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "tests",
                    "clusters": [{"name": "tests", "cluster": entry}],
                    "users": [{"name": "tests", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
                }
            )
        )
        yield Cluster(found[1], folder, kubeconfig, cert_file)


def kubelet_arguments(cluster: Cluster, *more: str) -> list[str]:
    return [
        *("--kubeconfig", str(cluster.kubeconfig), "--root", str(cluster.folder / "kubelet")),
        *("--listen", "127.0.0.1:0", "--kubelet-token", KUBELET_TOKEN, "--backoff-base", "0.3"),
        *("--register-seconds", "0.1", "--plugin-seconds", "0.2", *more),
    ]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The whole local cluster, with short times."""
    folder = tmp_path_factory.mktemp("cluster")
    identity = folder / "identity.env"
    identity.write_text("AWS_ACCESS_KEY_ID=pods\nAWS_ENDPOINT_URL_S3=http://127.0.0.1:1\n")
    with ExitStack() as stack:
        found = stack.enter_context(api_server(folder))
        kubeconfig = ("--kubeconfig", str(found.kubeconfig))
        stack.enter_context(program(folder, "local.controllers", *kubeconfig, "--job-backoff-base", "0.1"))
        stack.enter_context(
            program(
                folder,
                "local.kubelet",
                *kubelet_arguments(found, "--pod-identity-env", str(identity)),
                LOCAL_STACK_ID="tests-of-the-cluster",
                KUBELET_SECRET="not for containers",
            )
        )
        stack.enter_context(
            program(
                folder,
                "local.karpenter",
                *kubeconfig,
                *("--launch-seconds", "0.1", "--batch-seconds", "0.05", "--offering-backoff", "0.5"),
            )
        )

        def ready() -> bool:
            node = found.find(NODES, None, "local-system") or {}
            # The taint goes once the node controller has seen the node ready.
            return bool(is_true(node, "Ready") and not node["spec"].get("taints"))

        found.until("a ready node", ready)
        yield found


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own; its pods are ended afterwards."""
    name = f"test-{next(_numbers)}"
    cluster.create(NAMESPACES, {"metadata": {"name": name}})
    yield name
    for pod in cluster.list(PODS, name):
        cluster.session.delete(
            cluster.url + PODS.path(name, pod["metadata"]["name"]),
            json={"gracePeriodSeconds": 0},
            timeout=PATIENCE,
        )
