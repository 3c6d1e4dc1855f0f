"""The two Python clients that Airflow's provider uses, and the dynamic client."""

from __future__ import annotations

import threading

import kubernetes_asyncio
import pytest
from kubernetes import client, dynamic, watch

from tests.local.apiserver.conftest import TOKEN, Server

CONTAINER = {"name": "base", "image": "busybox:1", "command": ["true"]}


def make_pod(core: client.CoreV1Api, namespace: str, name: str, **labels: str) -> client.V1Pod:
    body = {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [CONTAINER]}}
    return core.create_namespaced_pod(namespace, body)


def test_the_typed_client_reads_what_it_wrote(core: client.CoreV1Api, namespace: str) -> None:
    made = make_pod(core, namespace, "p", app="x")
    read = core.read_namespaced_pod("p", namespace)
    assert read.metadata.uid == made.metadata.uid
    assert read.spec.termination_grace_period_seconds == 30
    assert [p.metadata.name for p in core.list_namespaced_pod(namespace, label_selector="app=x").items] == [
        "p"
    ]
    core.patch_namespaced_pod("p", namespace, {"metadata": {"labels": {"already_checked": "True"}}})
    assert core.read_namespaced_pod("p", namespace).metadata.labels["already_checked"] == "True"


def test_the_error_of_a_missing_object_carries_its_status(core: client.CoreV1Api, namespace: str) -> None:
    with pytest.raises(client.ApiException) as error:
        core.read_namespaced_pod("none", namespace)
    assert error.value.status == 404
    assert '\\"none\\" not found' in error.value.body


def test_a_stale_replace_loses(core: client.CoreV1Api, namespace: str) -> None:
    first = core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}, "data": {"a": "1"}})
    core.patch_namespaced_config_map("c", namespace, {"data": {"a": "2"}})
    first.data = {"a": "3"}
    with pytest.raises(client.ApiException) as error:
        core.replace_namespaced_config_map("c", namespace, first)
    assert error.value.status == 409


def test_a_watch_follows_a_pod_to_its_end(core: client.CoreV1Api, namespace: str, server: Server) -> None:
    made = make_pod(core, namespace, "p")
    seen: list[tuple[str, str | None]] = []

    def follow() -> None:
        with server.api() as own:
            stream = watch.Watch().stream(
                client.CoreV1Api(own).list_namespaced_pod,
                namespace,
                resource_version=made.metadata.resource_version,
                timeout_seconds=90,
            )
            for event in stream:
                seen.append((event["type"], event["object"].status.phase))
                if event["type"] == "DELETED":
                    return

    thread = threading.Thread(target=follow)
    thread.start()
    core.patch_namespaced_pod_status("p", namespace, {"status": {"phase": "Succeeded"}})
    core.delete_namespaced_pod("p", namespace)
    thread.join(100)
    assert not thread.is_alive()
    assert seen == [("MODIFIED", "Succeeded"), ("DELETED", "Succeeded")]


def test_the_dynamic_client_finds_and_applies_custom_resources(api: client.ApiClient) -> None:
    pools = dynamic.DynamicClient(api).resources.get(api_version="karpenter.sh/v1", kind="NodePool")
    spec = {
        "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "neuron"},
        "requirements": [{"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["trn2"]}],
    }
    body = {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "dynamic"},
        "spec": {"template": {"spec": spec}, "limits": {"aws.amazon.com/neuron": 64}},
    }
    made = pools.server_side_apply(body=body, name="dynamic", field_manager="trainyard")
    assert made.spec.disruption.consolidationPolicy == "WhenEmptyOrUnderutilized"
    assert pools.get(name="dynamic").spec.limits["aws.amazon.com/neuron"] == 64
    pools.delete(name="dynamic")


async def test_the_asyncio_client_lists_watches_and_deletes(server: Server, namespace: str) -> None:
    configuration = kubernetes_asyncio.client.Configuration(host=server.url)
    configuration.ssl_ca_cert = str(server.certificate)
    configuration.api_key = {"BearerToken": f"Bearer {TOKEN}"}
    async with kubernetes_asyncio.client.ApiClient(configuration) as api:
        core = kubernetes_asyncio.client.CoreV1Api(api)
        body = {"metadata": {"name": "p"}, "spec": {"containers": [CONTAINER]}}
        await core.create_namespaced_pod(namespace, body)
        listed = await core.list_namespaced_pod(namespace)
        assert [p.metadata.name for p in listed.items] == ["p"]
        version = listed.metadata.resource_version
        await core.delete_namespaced_pod("p", namespace, grace_period_seconds=0)
        async with kubernetes_asyncio.watch.Watch() as watching:
            stream = watching.stream(
                core.list_namespaced_pod, namespace, resource_version=version, timeout_seconds=90
            )
            async for event in stream:
                if event["type"] == "DELETED":
                    break
        assert event["object"].metadata.name == "p"


def test_server_side_apply_through_the_typed_client(api: client.ApiClient, namespace: str) -> None:
    apps = client.AppsV1Api(api)
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }

    def apply() -> client.V1Deployment:
        return apps.patch_namespaced_deployment(
            "d",
            namespace,
            body,
            field_manager="trainyard",
            force=True,
            _content_type="application/apply-patch+yaml",
        )

    first, second = apply(), apply()
    assert first.metadata.resource_version == second.metadata.resource_version
    assert [(m.manager, m.operation) for m in second.metadata.managed_fields] == [("trainyard", "Apply")]
