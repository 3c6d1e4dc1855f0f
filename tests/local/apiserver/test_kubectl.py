"""kubectl as a client: what people type, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

from kubernetes import client

from tests.local.apiserver.conftest import Kubectl

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: c, image: "busybox:1", ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


def test_apply_creates_then_leaves_alone_then_changes(kubectl: Kubectl, namespace: str) -> None:
    apply = ("apply", "-n", namespace, "-f", "-")
    assert kubectl(*apply, stdin=DEPLOYMENT).out.split("\n")[:2] == [
        "deployment.apps/web created",
        "service/web created",
    ]
    assert "configured" not in kubectl(*apply, stdin=DEPLOYMENT).out
    changed = kubectl(*apply, stdin=DEPLOYMENT.replace("busybox:1", "busybox:2"))
    assert "deployment.apps/web configured" in changed.out
    image = "jsonpath={.spec.template.spec.containers[0].image}"
    assert kubectl("get", "deploy", "web", "-n", namespace, "-o", image).out == "busybox:2"


def test_server_side_apply_conflicts_until_forced(kubectl: Kubectl, namespace: str) -> None:
    apply = ("apply", "--server-side", "-n", namespace, "-f", "-")
    kubectl(*apply, "--field-manager=one", stdin=DEPLOYMENT)
    other = DEPLOYMENT.replace("replicas: 2", "replicas: 4")
    refused = kubectl(*apply, "--field-manager=two", stdin=other, fails=True)
    assert refused.code == 1
    assert 'Apply failed with 1 conflict: conflict with "one": .spec.replicas' in refused.err
    kubectl(*apply, "--field-manager=two", "--force-conflicts", stdin=other)
    assert kubectl("get", "deploy/web", "-n", namespace, "-o", "jsonpath={.spec.replicas}").out == "4"


def test_apply_k_builds_and_applies_a_kustomization(kubectl: Kubectl, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(DEPLOYMENT)
    (tmp_path / "kustomization.yaml").write_text(f"namespace: {namespace}\nresources: [web.yaml]\n")
    assert "deployment.apps/web created" in kubectl("apply", "-k", str(tmp_path)).out


def test_a_misspelt_field_is_refused_by_name(kubectl: Kubectl, namespace: str) -> None:
    wrong = DEPLOYMENT.replace("replicas", "replicaz")
    refused = kubectl("apply", "-n", namespace, "-f", "-", stdin=wrong, fails=True)
    assert refused.code == 1
    assert 'strict decoding error: unknown field "spec.replicaz"' in refused.err


def test_patch_scale_label_and_image_change_the_deployment(kubectl: Kubectl, namespace: str) -> None:
    at = ("-n", namespace)
    kubectl("apply", *at, "-f", "-", stdin=DEPLOYMENT)
    kubectl("scale", "deploy", "web", "--replicas=5", *at)
    kubectl("label", "deploy", "web", "tier=front", *at)
    kubectl("set", "image", "deploy/web", "c=busybox:3", *at)
    container = {"name": "c", "env": [{"name": "A", "value": "1"}]}
    strategic = {"spec": {"template": {"spec": {"containers": [container]}}}}
    kubectl("patch", "deploy", "web", *at, "-p", json.dumps(strategic))
    operations = [{"op": "add", "path": "/metadata/annotations/x", "value": "y"}]
    kubectl("patch", "deploy", "web", *at, "--type=json", "-p", json.dumps(operations))
    kubectl("patch", "deploy", "web", *at, "--type=merge", "-p", '{"spec":{"paused":true}}')
    found = json.loads(kubectl("get", "deploy", "web", *at, "-o", "json").out)
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert found["spec"]["replicas"] == 5
    assert found["spec"]["paused"] is True
    assert found["metadata"]["labels"] == {"app": "web", "tier": "front"}
    assert found["metadata"]["annotations"]["x"] == "y"
    assert (container["image"], container["env"]) == ("busybox:3", [{"name": "A", "value": "1"}])


def test_get_prints_the_columns_people_know(kubectl: Kubectl, namespace: str) -> None:
    at = ("-n", namespace)
    kubectl("apply", *at, "-f", "-", stdin=DEPLOYMENT)
    kubectl("run", "p", "--image=busybox:1", *at)
    headings = {
        "deploy": "NAME READY UP-TO-DATE AVAILABLE AGE",
        "pods": "NAME READY STATUS RESTARTS AGE",
        "svc": "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE",
        "nodepools": "",
    }
    for kind, heading in headings.items():
        assert kubectl("get", kind, *at).out.split("\n")[0].split() == heading.split()
    assert kubectl("get", "pods", *at).out.split("\n")[1].split()[:4] == ["p", "0/1", "Pending", "0"]
    assert "deployment.apps/web" in kubectl("get", "all", *at).out


def test_describe_shows_an_object_and_its_events(
    kubectl: Kubectl, namespace: str, core: client.CoreV1Api
) -> None:
    kubectl("run", "p", "--image=busybox:1", "-n", namespace)
    pod = core.read_namespaced_pod("p", namespace)
    about = {"kind": "Pod", "namespace": namespace, "name": "p", "uid": pod.metadata.uid, "apiVersion": "v1"}
    event = {"metadata": {"name": "p.1"}, "involvedObject": about, "reason": "Pulled", "type": "Normal"}
    core.create_namespaced_event(namespace, {**event, "message": "Container image present", "count": 1})
    said = kubectl("describe", "pod", "p", "-n", namespace).out
    assert "busybox:1" in said
    assert "Container image present" in said
    assert "Pulled" in kubectl("events", "-n", namespace).out


def test_wait_sees_a_condition_come_true(kubectl: Kubectl, namespace: str, core: client.CoreV1Api) -> None:
    kubectl("run", "p", "--image=busybox:1", "-n", namespace)
    timed_out = kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=1s", "-n", namespace, fails=True)
    assert timed_out.code == 1
    conditions = [{"type": "Ready", "status": "True"}]
    core.patch_namespaced_pod_status("p", namespace, {"status": {"conditions": conditions}})
    waited = kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s", "-n", namespace)
    assert waited.out == "pod/p condition met\n"


def test_rollout_status_is_done_when_the_status_says_so(
    kubectl: Kubectl, namespace: str, api: client.ApiClient
) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", stdin=DEPLOYMENT)
    counts = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
    status = {"status": {**counts, "observedGeneration": 1}}
    client.AppsV1Api(api).patch_namespaced_deployment_status("web", namespace, status)
    said = kubectl("rollout", "status", "deploy/web", "-n", namespace, "--timeout=60s").out
    assert "successfully rolled out" in said


def test_delete_waits_until_the_object_is_gone(kubectl: Kubectl, namespace: str) -> None:
    kubectl("apply", "-n", namespace, "-f", "-", stdin=DEPLOYMENT)
    assert "deleted" in kubectl("delete", "-n", namespace, "-f", "-", stdin=DEPLOYMENT).out
    missing = kubectl("get", "deploy", "web", "-n", namespace, fails=True)
    assert missing.err == 'Error from server (NotFound): deployments.apps "web" not found\n'


def test_what_is_not_served_is_refused_plainly(kubectl: Kubectl) -> None:
    unknown = kubectl("get", "statefulsets", fails=True)
    assert "the server doesn't have a resource type" in unknown.err
    raw = kubectl("get", "--raw", "/apis/apps/v1/statefulsets", fails=True)
    assert "the server could not find the requested resource" in raw.err
    protobuf = kubectl("create", "namespace", "by-protobuf", fails=True)
    assert "accepted media types include: application/json, application/yaml" in protobuf.err


def test_explain_knows_fields_and_their_types(kubectl: Kubectl) -> None:
    assert "replicas <integer>" in kubectl("explain", "deployment.spec.replicas").out
    assert "consolidationPolicy" in kubectl("explain", "nodepool.spec.disruption").out
