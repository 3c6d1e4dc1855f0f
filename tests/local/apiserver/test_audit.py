"""The audit log: who did what, in the format of a real API server, and never a secret."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from kubernetes import client, watch

from local.apiserver import usage
from local.apiserver.__main__ import make_cluster
from local.apiserver.audit import AuditLog
from local.apiserver.server import Server as Application
from tests.local.apiserver.conftest import JANE, TOKEN, Http, Kubectl, Server

Event = dict[str, Any]


def events(server: Server, namespace: str, code: int = 0, **wanted: Any) -> list[Event]:
    """What is on record of a namespace; waits until there is something."""
    for _ in range(1200):
        whole, _, _ = server.audit_log.read_text().rpartition("\n")  # one may be half written
        lines = [json.loads(line) for line in whole.splitlines()]
        found = [
            e
            for e in lines
            if e.get("objectRef", {}).get("namespace") == namespace
            and code in (0, e.get("responseStatus", {}).get("code"))
            and all(e.get(k) == v for k, v in wanted.items())
        ]
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing is on record of {namespace} with {wanted}")


def test_a_write_is_on_record_with_what_was_sent_and_what_was_stored(
    server: Server, core: client.CoreV1Api, namespace: str
) -> None:
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}, "data": {"a": "1"}})
    core.patch_namespaced_config_map("c", namespace, {"data": {"b": "2"}})
    made, patched = (events(server, namespace, verb=verb)[0] for verb in ("create", "patch"))
    assert (made["kind"], made["apiVersion"]) == ("Event", "audit.k8s.io/v1")
    assert (made["level"], made["stage"]) == ("RequestResponse", "ResponseComplete")
    assert made["user"] == {"username": "admin", "groups": ["system:masters", "system:authenticated"]}
    assert made["requestURI"] == f"/api/v1/namespaces/{namespace}/configmaps"
    assert made["objectRef"] == {
        "resource": "configmaps",
        "namespace": namespace,
        "name": "c",
        "apiVersion": "v1",
    }
    assert made["responseStatus"] == {"metadata": {}, "code": 201}
    assert made["sourceIPs"] == ["127.0.0.1"]
    assert "OpenAPI-Generator" in made["userAgent"]
    assert made["requestReceivedTimestamp"] <= made["stageTimestamp"]
    assert made["requestReceivedTimestamp"].endswith("Z")
    assert patched["requestObject"] == {"data": {"b": "2"}}
    stored = patched["responseObject"]
    assert stored["data"] == {"a": "1", "b": "2"}
    assert stored["metadata"]["uid"]
    assert "managedFields" not in stored["metadata"]
    assert patched["auditID"] != made["auditID"]


def test_reads_and_deletions_are_on_record_without_bodies(
    server: Server, core: client.CoreV1Api, namespace: str
) -> None:
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}})
    core.read_namespaced_config_map("c", namespace)
    core.list_namespaced_config_map(namespace)
    core.delete_namespaced_config_map("c", namespace)
    for verb in ("get", "list", "delete"):
        event = events(server, namespace, verb=verb)[0]
        assert event["level"] == "Metadata"
        assert not {"requestObject", "responseObject"} & set(event)


def test_a_refusal_is_on_record_with_who_was_refused_what(
    server: Server, api: client.ApiClient, namespace: str
) -> None:
    with server.api(JANE) as own, pytest.raises(client.ApiException):
        client.AppsV1Api(own).patch_namespaced_deployment_scale("web", namespace, {})
    event = events(server, namespace, verb="patch")[0]
    assert event["user"]["username"] == "jane"
    assert event["responseStatus"]["code"] == 403
    assert event["responseStatus"]["reason"] == "Forbidden"
    assert 'cannot patch resource "deployments/scale"' in event["responseStatus"]["message"]
    assert event["objectRef"] == {
        "resource": "deployments",
        "namespace": namespace,
        "name": "web",
        "apiGroup": "apps",
        "apiVersion": "v1",
        "subresource": "scale",
    }
    assert event["annotations"]["authorization.k8s.io/decision"] == "forbid"


def test_who_acted_as_whom_is_on_record(server: Server, kubectl: Kubectl, namespace: str) -> None:
    kubectl("get", "pods", "-n", namespace, "--as=bob", "--as-group=system:masters")
    event = events(server, namespace, verb="list")[0]
    assert event["user"]["username"] == "admin"
    assert event["impersonatedUser"] == {
        "username": "bob",
        "groups": ["system:masters", "system:authenticated"],
    }


def test_a_watch_is_on_record_when_it_begins_and_when_it_ends(
    server: Server, core: client.CoreV1Api, namespace: str
) -> None:
    list(watch.Watch().stream(core.list_namespaced_pod, namespace, timeout_seconds=1))
    (begun,) = events(server, namespace, verb="watch", stage="ResponseStarted")
    (ended,) = events(server, namespace, verb="watch", stage="ResponseComplete")
    assert begun["auditID"] == ended["auditID"]
    assert begun["responseStatus"]["code"] == ended["responseStatus"]["code"] == 200
    assert begun["stageTimestamp"] < ended["stageTimestamp"]


def test_the_body_of_a_secret_is_never_on_record(
    server: Server, kubectl: Kubectl, core: client.CoreV1Api, namespace: str
) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    text = json.dumps({**secret, "stringData": {"key": "hush-hush"}})
    kubectl("apply", "-n", namespace, "-f", "-", stdin=text)
    kubectl("apply", "-n", namespace, "-f", "-", stdin=text.replace("hush-hush", "hush-hush-2"))
    core.patch_namespaced_secret("s", namespace, {"data": {"k": "aHVzaC1odXNo"}})
    with pytest.raises(client.ApiException) as error:
        core.create_namespaced_secret(namespace, "{ hush-hush")
    assert error.value.status == 400
    for verb in ("create", "patch"):
        found = events(server, namespace, verb=verb)
        assert {e["level"] for e in found} == {"Metadata"}
    refused = events(server, namespace, verb="create", code=400)[-1]
    assert refused["responseStatus"] == {
        "metadata": {},
        "status": "Failure",
        "reason": "BadRequest",
        "code": 400,
    }
    said = server.audit_log.read_text()
    assert "hush-hush" not in said
    assert "aHVzaC1odXNo" not in said


def test_tokens_and_health_checks_are_not_on_record(server: Server, core: client.CoreV1Api) -> None:
    core.list_namespace()
    core.api_client.call_api("/readyz", "GET", response_types_map={})
    core.list_namespaced_pod("audited")
    events(server, "audited")  # flushed with all that came before
    said = server.audit_log.read_text()
    assert TOKEN not in said
    assert JANE not in said
    assert '"requestURI":"/readyz"' not in said


async def logging(tmp_path: Path, **limits: int) -> tuple[AuditLog, TestClient[Any, Any]]:
    audit = AuditLog(tmp_path / "audit.log", **limits)
    application = Application(make_cluster([]), TOKEN, audit=audit).application()
    return audit, TestClient(TestServer(application))


async def test_a_full_log_makes_room_and_the_oldest_goes(tmp_path: Path) -> None:
    audit, opened = await logging(tmp_path, max_bytes=4000, backups=2)
    async with opened:
        for number in range(40):
            await Http(opened).call("GET", f"/api/v1/namespaces/default/pods/p{number}")
        audit.close()
    files = [tmp_path / name for name in ("audit.log.2", "audit.log.1", "audit.log")]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(0 < file.stat().st_size <= 4000 for file in files)
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert list(usage.events(tmp_path / "audit.log")) == lines
    numbers = [int(e["objectRef"]["name"][1:]) for e in lines]
    assert numbers == list(range(40 - len(numbers), 40))


def test_what_a_user_did_can_be_read_as_permissions(server: Server, kubectl: Kubectl, namespace: str) -> None:
    user = f"system:serviceaccount:{namespace}:reader"
    acting = ("-n", namespace, f"--as={user}")
    body = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}'
    kubectl("apply", "--server-side", *acting, "--as-group=system:masters", "-f", "-", stdin=body)
    kubectl("logs", "p", *acting, fails=True)
    events(server, namespace, verb="get", code=403)
    found = list(usage.events(server.audit_log))
    used = {p for p in usage.permissions(found, user) if p.namespace == namespace}
    assert used >= {(namespace, "", "configmaps", "patch"), (namespace, "", "configmaps", "create")}
    refused = usage.permissions(found, user, refused=True)
    assert refused == {(namespace, "", "pods", "get")}


async def test_a_wrong_token_is_on_record_as_nobodys(tmp_path: Path) -> None:
    audit, opened = await logging(tmp_path)
    async with opened:
        await Http(opened).call("GET", "/api/v1/pods", Authorization="Bearer guessed")
        audit.close()
    (event,) = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert event["user"] == {}
    assert event["responseStatus"]["code"] == 401
    assert "guessed" not in json.dumps(event)
