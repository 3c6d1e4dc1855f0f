"""One API server over TLS for all tests of this folder, and a kubeconfig that leads to it."""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from aiohttp.test_utils import TestClient, TestServer
from kubernetes import client

from local.apiserver.__main__ import make_cluster
from local.apiserver.server import Server as Application
from tests.support.certificate import write_certificate
from tests.support.processes import stop

ROOT = Path(__file__).parents[3]
TOKEN, KUBELET_TOKEN = "a-token-of-the-tests", "a-token-of-the-kubelets"
USERS = """\
a-token-of-jane,jane,uid-of-jane,"developers,reviewers"
a-token-of-nobody,nobody,uid-of-nobody
a-token-of-a-worker,system:serviceaccount:airflow:worker,uid,"system:serviceaccounts,system:serviceaccounts:airflow"
"""
JANE, NOBODY, WORKER = (line.partition(",")[0] for line in USERS.splitlines())


def start_server(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """The API server as a process of its own, and the address it says it serves on."""
    command = [
        sys.executable,
        "-m",
        "local.apiserver",
        "--listen",
        "127.0.0.1:0",
        "--token",
        TOKEN,
        *arguments,
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"serving on (\S+)", line)
    assert found, f"the server said {line!r} instead of its address"
    return process, found[1]


@dataclass(frozen=True)
class Server:
    url: str
    certificate: Path
    kubeconfig: Path
    audit_log: Path

    def api(self, token: str = TOKEN) -> client.ApiClient:
        configuration = client.Configuration(host=self.url)
        configuration.ssl_ca_cert = str(self.certificate)
        configuration.api_key = {"authorization": f"Bearer {token}"}
        return client.ApiClient(configuration)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("apiserver")
    certificate, key = write_certificate(folder)
    arguments = ["--tls-cert", str(certificate), "--tls-key", str(key), "--kubelet-token", KUBELET_TOKEN]
    (folder / "tokens.csv").write_text(USERS)
    arguments += ["--token-auth-file", str(folder / "tokens.csv"), "--audit-log", str(folder / "audit.log")]
    for path in sorted((ROOT / "local" / "crds").glob("*.yaml")):
        arguments += ["--crd", str(path)]
    process, url = start_server(*arguments)
    kubeconfig = folder / "kubeconfig"
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(certificate)}}],
        "users": [{"name": "test", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    kubeconfig.write_text(yaml.safe_dump(config))
    yield Server(url, certificate, kubeconfig, folder / "audit.log")
    stop(process)


_numbers = itertools.count(1)


@pytest.fixture
def api(server: Server) -> Iterator[client.ApiClient]:
    with server.api() as opened:
        yield opened


@pytest.fixture
def core(api: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api)


@pytest.fixture
def namespace(core: client.CoreV1Api) -> str:
    """A namespace of the test's own."""
    name = f"test-{next(_numbers)}"
    core.create_namespace({"metadata": {"name": name}})
    return name


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Kubectl = Callable[..., Result]


@pytest.fixture(scope="session")
def kubectl(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Runs kubectl against the server; fails the test on a non-zero exit unless `fails` is set."""
    binary = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if binary is None:
        pytest.skip("kubectl is not installed")
    home = tmp_path_factory.mktemp("kubectl-home")
    environment = {**os.environ, "HOME": str(home), "KUBECONFIG": str(server.kubeconfig)}

    def run(*arguments: str, stdin: str | None = None, fails: bool = False) -> Result:
        done = subprocess.run(
            [binary, *arguments], input=stdin, env=environment, capture_output=True, text=True, timeout=150
        )
        assert fails or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return Result(done.returncode, done.stdout, done.stderr)

    return run


SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def replaying() -> Iterator[subprocess.Popen[str] | None]:
    """The replay of recorded exchanges, where they are: it mostly sleeps, so it runs beside other tests."""
    script = SHARED / "conformance" / "replay.py"
    if not script.exists():
        yield None
        return
    arguments = [a for f in sorted(glob.glob(str(SHARED / "crds" / "*.yaml"))) for a in ("--crd", f)]
    process, url = start_server(*arguments)
    command = [sys.executable, str(script), "--server", url, "--token", TOKEN]
    replay = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield replay
    stop(replay)
    stop(process)


class Http:
    """A server in this process with little history, spoken to in plain HTTP."""

    def __init__(self, client: TestClient[Any, Any]) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {TOKEN}"}

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        async with self.client.request(method, path, json=body, headers={**self.headers, **named}) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if "json" in answer.content_type else text


@pytest_asyncio.fixture
async def http() -> AsyncIterator[Http]:
    cluster = make_cluster([], KUBELET_TOKEN, history=20)
    async with TestClient(TestServer(Application(cluster, TOKEN).application())) as opened:
        yield Http(opened)
