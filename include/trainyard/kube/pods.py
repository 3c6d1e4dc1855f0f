"""Pods of the jobs: fetch, compile, warm-up, load test. Pure builders of manifests.

All meet the Pod Security Standard `restricted`. Secrets come by secretKeyRef only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trainyard.kube.cluster import Object

BASE = "base"  # the container that KubernetesPodOperator follows
TERMINATION_LOG = "/dev/termination-log"
TOOLS_DIR = "/trainyard"
WORK_DIR = "/work"
CACHE_DIR = f"{WORK_DIR}/cache"

RESTRICTED_POD: Object = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_CONTAINER: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
}
NEURON_TOLERATION: Object = {"key": "aws.amazon.com/neuron", "operator": "Exists", "effect": "NoSchedule"}
# Classes of deploy/cluster: what serves goes before what compiles.
JOBS_PRIORITY = "trainyard-jobs"
SERVING_PRIORITY = "trainyard-serving"
# Karpenter may not consolidate the node under a compile or a canary. It does not stop interruption or expiry.
DO_NOT_DISRUPT = {"karpenter.sh/do-not-disrupt": "true"}


def labels(model: str, release: str, part: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": model,
        "app.kubernetes.io/managed-by": "trainyard",
        "app.kubernetes.io/component": part,
        "trainyard.dev/model": model,
        "trainyard.dev/release": release,
    }


def environment(job: Mapping[str, Any], extra: Mapping[str, str] | None = None) -> list[Object]:
    values = {
        "TRAINYARD_JOB": json.dumps(job, sort_keys=True),
        "TRAINYARD_TERMINATION_LOG": TERMINATION_LOG,
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def cpu_job(
    *,
    name: str,
    namespace: str,
    job_name: str,
    job: Mapping[str, Any],
    image: str,
    service_account: str,
    model: str,
    release: str,
    deadline_seconds: int,
    cpu: str = "2",
    memory: str = "4Gi",
    env: Mapping[str, str] | None = None,
    token_secret: str | None = None,
) -> Object:
    """A pod of our own job image, without Neuron devices."""
    variables = environment(job, env)
    if token_secret:
        reference = {"secretKeyRef": {"name": token_secret, "key": "token"}}
        variables.append({"name": "HF_TOKEN", "valueFrom": reference})
    resources = {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}}
    container = {
        "name": BASE,
        "image": image,
        "command": ["python3", "-m", "trainyard.jobs", job_name],
        "env": variables,
        "resources": resources,
        "securityContext": RESTRICTED_CONTAINER,
        "volumeMounts": [{"name": "work", "mountPath": WORK_DIR}],
        "workingDir": WORK_DIR,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return _pod(
        name,
        namespace,
        labels(model, release, job_name),
        {},
        {
            "containers": [container],
            "volumes": [{"name": "work", "emptyDir": {}}],
            "serviceAccountName": service_account,
            "activeDeadlineSeconds": deadline_seconds,
        },
    )


def neuron_job(
    *,
    name: str,
    namespace: str,
    job_name: str,
    job: Mapping[str, Any],
    image: str,
    tools_image: str,
    service_account: str,
    model: str,
    release: str,
    deadline_seconds: int,
    chips: int,
    instance_type: str,
    nodepool: str,
    cpu: int,
    memory: str,
    annotations: Mapping[str, str] | None = None,
    cache_claim: str = "",
) -> Object:
    """A pod of AWS's own image on a Neuron node. Our code reaches it as one zipapp.

    cache_claim: a PersistentVolumeClaim that is mounted as the compiler's cache.
    """
    mounts = [
        {"name": "tools", "mountPath": TOOLS_DIR},
        {"name": "work", "mountPath": WORK_DIR},
    ]
    volumes: list[Object] = [{"name": "tools", "emptyDir": {}}, {"name": "work", "emptyDir": {}}]
    if cache_claim:
        mounts.append({"name": "cache", "mountPath": CACHE_DIR})
        volumes.append({"name": "cache", "persistentVolumeClaim": {"claimName": cache_claim}})
    tools = tools_container(tools_image)
    neuron = {"aws.amazon.com/neuron": str(chips)}
    container = {
        "name": BASE,
        "image": image,
        "command": ["python3", f"{TOOLS_DIR}/trainyard.pyz", job_name],
        "env": environment(job),
        "resources": {
            "requests": {"cpu": str(cpu), "memory": memory, **neuron},
            "limits": {"memory": memory, **neuron},
        },
        "securityContext": RESTRICTED_CONTAINER,
        "volumeMounts": mounts,
        "workingDir": WORK_DIR,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return _pod(
        name,
        namespace,
        labels(model, release, job_name),
        {**DO_NOT_DISRUPT, **(annotations or {})},
        {
            "initContainers": [tools],
            "containers": [container],
            "volumes": volumes,
            "serviceAccountName": service_account,
            "activeDeadlineSeconds": deadline_seconds,
            **placement(instance_type, nodepool),
        },
    )


def tools_container(image: str) -> Object:
    """Copies the zipapp into the pod, for images that do not hold our code."""
    return {
        "name": "tools",
        "image": image,
        "command": ["python3", "-m", "trainyard.jobs", "install"],
        "env": environment({"into": TOOLS_DIR}),
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": RESTRICTED_CONTAINER,
        "volumeMounts": [{"name": "tools", "mountPath": TOOLS_DIR}],
    }


def placement(instance_type: str, nodepool: str) -> Object:
    """Where a Neuron pod may run. The default scheduler: charts that name another one never schedule."""
    return {
        "nodeSelector": {
            "node.kubernetes.io/instance-type": instance_type,
            "karpenter.sh/nodepool": nodepool,
        },
        "tolerations": [NEURON_TOLERATION],
    }


def _pod(
    name: str, namespace: str, pod_labels: Mapping[str, str], annotations: Mapping[str, str], spec: Object
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": dict(pod_labels),
            "annotations": dict(annotations),
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": RESTRICTED_POD,
            "terminationGracePeriodSeconds": 60,
            "priorityClassName": JOBS_PRIORITY,
            **spec,
        },
    }
