"""Deletion, binding, logs and exec of pods; the kubelet here is a small one of the test's own."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from kubernetes import client, stream

from tests.local.apiserver.conftest import KUBELET_TOKEN, TOKEN, Http, Kubectl, Server
from tests.support.certificate import write_certificate

POD = {"spec": {"containers": [{"name": "base", "image": "busybox:1"}]}}
PODS = "/api/v1/namespaces/default/pods"


async def make_pod(http: Http, name: str = "p", node: str = "") -> dict[str, Any]:
    spec = {**POD["spec"], **({"nodeName": node} if node else {})}
    status, body = await http.call("POST", PODS, {"metadata": {"name": name}, "spec": spec})
    assert status == 201, body
    return dict(body)


async def test_a_pod_on_a_node_lingers_for_its_grace_period(http: Http) -> None:
    await make_pod(http, node="n")
    _, deleted = await http.call("DELETE", PODS + "/p")
    assert deleted["metadata"]["deletionGracePeriodSeconds"] == 30
    _, sooner = await http.call("DELETE", PODS + "/p?gracePeriodSeconds=2")
    assert sooner["metadata"]["deletionGracePeriodSeconds"] == 2
    _, not_later = await http.call("DELETE", PODS + "/p?gracePeriodSeconds=60")
    assert not_later["metadata"]["deletionGracePeriodSeconds"] == 2
    await http.call("DELETE", PODS + "/p?gracePeriodSeconds=0")
    assert (await http.call("GET", PODS + "/p"))[0] == 404


async def test_a_pod_without_a_node_goes_at_once(http: Http) -> None:
    await make_pod(http)
    await http.call("DELETE", PODS + "/p")
    assert (await http.call("GET", PODS + "/p"))[0] == 404


async def test_a_deletion_for_another_uid_is_refused(http: Http) -> None:
    await make_pod(http)
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}}
    status, body = await http.call("DELETE", PODS + "/p", options)
    assert (status, body["reason"]) == (409, "Conflict")
    assert "Precondition failed: UID in precondition: other" in body["message"]


@pytest.mark.parametrize(
    ("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")]
)
async def test_a_propagation_policy_leaves_its_finalizer_to_the_collector(
    http: Http, policy: str, finalizer: str
) -> None:
    maps = "/api/v1/namespaces/default/configmaps"
    await http.call("POST", maps, {"metadata": {"name": "c"}})
    _, body = await http.call("DELETE", f"{maps}/c?propagationPolicy={policy}")
    assert body["metadata"]["finalizers"] == [finalizer]
    media = "application/merge-patch+json"
    await http.call("PATCH", f"{maps}/c", {"metadata": {"finalizers": None}}, Content_Type=media)
    assert (await http.call("GET", f"{maps}/c"))[0] == 404


async def test_a_pod_is_bound_once(http: Http) -> None:
    await make_pod(http)
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    assert (await http.call("POST", PODS + "/p/binding", binding))[0] == 201
    status, body = await http.call("POST", PODS + "/p/binding", binding)
    assert status == 409
    assert 'pod p is already assigned to node "n1"' in body["message"]


async def test_a_terminating_namespace_takes_nothing_new_and_goes_when_finalized(http: Http) -> None:
    await http.call("POST", "/api/v1/namespaces", {"metadata": {"name": "going"}})
    _, namespace = await http.call("DELETE", "/api/v1/namespaces/going")
    assert namespace["status"]["phase"] == "Terminating"
    status, body = await http.call(
        "POST", "/api/v1/namespaces/going/pods", {"metadata": {"name": "p"}, **POD}
    )
    assert status == 403
    assert "because it is being terminated" in body["message"]
    namespace["spec"]["finalizers"] = []
    await http.call("PUT", "/api/v1/namespaces/going/finalize", namespace)
    assert (await http.call("GET", "/api/v1/namespaces/going"))[0] == 404


@dataclass
class FakeKubelet:
    """Speaks the kubelet's protocol: logs that echo the request, exec that echoes standard input."""

    node: str
    port: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def allowed(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {KUBELET_TOKEN}"

    async def logs(self, request: web.Request) -> web.StreamResponse:
        if not self.allowed(request):
            return web.Response(status=401, text="Unauthorized")
        if request.query.get("previous") == "true":
            return web.Response(status=400, text='previous terminated container "base" in pod "p" not found')
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(f"{request.path}?{request.query_string}\n".encode())
        if request.query.get("follow") == "true":
            await self.release.wait()
            await answer.write(b"the last line\n")
        return answer

    async def exec(self, request: web.Request) -> web.StreamResponse:
        if not self.allowed(request):
            return web.Response(status=401)
        command = request.query.getall("command")
        if command[0] == "missing":
            return web.Response(status=404)
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
        await socket.prepare(request)
        await socket.send_bytes(b"\1" + " ".join(command).encode() + b"\n")
        if request.query.get("input"):
            async for message in socket:
                data = message.data if isinstance(message.data, bytes) else message.data.encode()
                if data[:1] == b"\0" and len(data) > 1:
                    await socket.send_bytes(b"\1got " + data[1:])
                    break
        if command[0] == "fail":
            causes = {"causes": [{"reason": "ExitCode", "message": "3"}]}
            status = {
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "details": causes,
                "message": "exit 3",
            }
        else:
            status = {"status": "Success"}
        await socket.send_bytes(b"\3" + json.dumps({"metadata": {}, **status}).encode())
        await socket.close()
        return socket


@pytest_asyncio.fixture
async def kubelet(core: client.CoreV1Api, namespace: str, tmp_path: Path) -> AsyncIterator[FakeKubelet]:
    certificate, key = write_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    fake = FakeKubelet(f"node-of-{namespace}")
    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", fake.logs)
    app.router.add_get("/exec/{namespace}/{pod}/{container}", fake.exec)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    core.create_node({"metadata": {"name": fake.node}, "status": status})
    body = {"metadata": {"name": "p"}, "spec": {**POD["spec"], "nodeName": fake.node}}
    core.create_namespaced_pod(namespace, body)
    yield fake
    core.delete_node(fake.node)
    await runner.cleanup()


async def test_logs_pass_their_options_on_and_stream(
    server: Server, core: client.CoreV1Api, namespace: str, kubelet: FakeKubelet
) -> None:
    options = {"tail_lines": 5, "timestamps": True, "_preload_content": False}
    answer = await asyncio.to_thread(core.read_namespaced_pod_log, "p", namespace, **options)
    assert answer.data.decode() == f"/containerLogs/{namespace}/p/base?timestamps=true&tailLines=5\n"
    tls = ssl.create_default_context(cafile=str(server.certificate))
    url = f"{server.url}/api/v1/namespaces/{namespace}/pods/p/log?follow=true"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers, ssl=tls) as answer:
        assert (await answer.content.readline()).endswith(b"follow=true\n")
        kubelet.release.set()
        assert await answer.content.readline() == b"the last line\n"


async def test_a_log_that_the_kubelet_refuses_says_why(
    core: client.CoreV1Api, namespace: str, kubelet: FakeKubelet
) -> None:
    with pytest.raises(client.ApiException) as error:
        await asyncio.to_thread(core.read_namespaced_pod_log, "p", namespace, previous=True)
    status = json.loads(error.value.body)
    assert (status["code"], status["reason"]) == (400, "BadRequest")
    assert status["message"] == 'previous terminated container "base" in pod "p" not found'
    with pytest.raises(client.ApiException) as error:
        await asyncio.to_thread(core.read_namespaced_pod_log, "p", namespace, container="other")
    assert json.loads(error.value.body)["message"] == "container other is not valid for pod p"


async def test_the_python_client_executes_and_learns_the_exit_code(
    core: client.CoreV1Api, namespace: str, kubelet: FakeKubelet
) -> None:
    def run(*command: str) -> tuple[str, int]:
        socket = stream.stream(
            core.connect_get_namespaced_pod_exec,
            "p",
            namespace,
            command=list(command),
            stdout=True,
            stderr=True,
            _preload_content=False,
        )
        socket.run_forever(timeout=90)
        return socket.read_stdout(), socket.returncode

    assert await asyncio.to_thread(run, "echo", "a b") == ("echo a b\n", 0)
    assert await asyncio.to_thread(run, "fail") == ("fail\n", 3)


async def test_kubectl_executes_passes_input_and_reads_logs(
    kubectl: Kubectl, namespace: str, kubelet: FakeKubelet
) -> None:
    at = ("-n", namespace)
    ran = await asyncio.to_thread(kubectl, "exec", "-i", "p", *at, "--", "cat", stdin="hello")
    assert ran.out == "cat\ngot hello"
    failed = await asyncio.to_thread(kubectl, "exec", "p", *at, "--", "fail", fails=True)
    assert failed.code == 3
    kubelet.release.set()
    log = await asyncio.to_thread(kubectl, "logs", "-f", "p", *at)
    assert log.out.endswith("the last line\n")


async def test_exec_into_a_container_that_does_not_run_says_so(
    kubectl: Kubectl, core: client.CoreV1Api, namespace: str, kubelet: FakeKubelet
) -> None:
    waiting = {"name": "base", "state": {"waiting": {"reason": "ContainerCreating"}}}
    more = {"image": "i", "imageID": "", "ready": False, "restartCount": 0}
    core.patch_namespaced_pod_status("p", namespace, {"status": {"containerStatuses": [{**waiting, **more}]}})
    said = await asyncio.to_thread(kubectl, "exec", "p", "-n", namespace, "--", "ls", fails=True)
    assert 'container not found ("base")' in said.err


async def test_exec_into_a_pod_without_a_node_is_a_bad_request(http: Http) -> None:
    await make_pod(http)
    status, body = await http.call("GET", PODS + "/p/exec?command=ls&stdout=true")
    assert (status, body["message"]) == (400, "pod p does not have a host assigned")


async def test_a_node_that_does_not_answer_is_an_internal_error(http: Http) -> None:
    where = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
    }
    await http.call("POST", "/api/v1/nodes", {"metadata": {"name": "n"}, "status": where})
    await make_pod(http, node="n")
    status, body = await http.call("GET", PODS + "/p/log")
    assert (status, body["reason"]) == (500, "InternalError")
    assert "https://127.0.0.1:1/containerLogs/default/p/base" in body["message"]
