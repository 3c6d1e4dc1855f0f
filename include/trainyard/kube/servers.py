"""The servers of one release: Deployment and Service, named after the release. Pure builders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainyard.kube.cluster import Object
from trainyard.kube.pods import (
    DO_NOT_DISRUPT,
    RESTRICTED_CONTAINER,
    RESTRICTED_POD,
    SERVING_PRIORITY,
    TOOLS_DIR,
    environment,
    labels,
    placement,
)
from trainyard.neuron.engines.base import Command

PORT = 8000
SERVER = "server"
MODELS_DIR = "/models"
NODE_CACHE_DIR = "/node-cache"


@dataclass(frozen=True)
class ServerSet:
    """Everything that the manifests of one release need."""

    model: str
    release: str
    namespace: str
    service_account: str
    served_name: str
    image: str
    jobs_image: str
    command: Command
    materialise_job: Mapping[str, object]
    node_cache_claim: str  # "" for none
    replicas: int
    chips: int
    instance_type: str
    nodepool: str
    cpu: int
    memory: str
    grace_seconds: int
    running_metrics: tuple[str, ...]
    ready_deadline_seconds: int
    annotations: Mapping[str, str]
    lease_token: int


def deployment(servers: ServerSet) -> Object:
    """One Deployment a release. It is never edited after the canary was measured: what was proven serves."""
    selector = {"trainyard.dev/model": servers.model, "trainyard.dev/release": servers.release}
    neuron = {"aws.amazon.com/neuron": str(servers.chips)}
    mounts = [{"name": "tools", "mountPath": TOOLS_DIR}, {"name": "models", "mountPath": MODELS_DIR}]
    volumes: list[Object] = [{"name": "tools", "emptyDir": {}}, {"name": "models", "emptyDir": {}}]
    shared: list[Object] = []
    if servers.node_cache_claim:
        shared.append({"name": "node-cache", "mountPath": NODE_CACHE_DIR})
        claim = {"claimName": servers.node_cache_claim}
        volumes.append({"name": "node-cache", "persistentVolumeClaim": claim})
    materialise = {
        "name": "materialise",
        "image": servers.jobs_image,
        "command": ["python3", "-m", "trainyard.jobs", "materialise"],
        "env": environment(servers.materialise_job),
        "resources": {"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "2Gi"}},
        "securityContext": RESTRICTED_CONTAINER,
        "volumeMounts": [*mounts, *shared],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    env = {
        "NEURON_PROCESS_TAG": servers.release,
        "VLLM_NO_USAGE_STATS": "1",
        **servers.command.env,
    }
    server = {
        "name": SERVER,
        "image": servers.image,
        "command": list(servers.command.argv),
        "env": [
            *({"name": name, "value": value} for name, value in env.items()),
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": {
            "requests": {"cpu": str(servers.cpu), "memory": servers.memory, **neuron},
            "limits": {"memory": servers.memory, **neuron},
        },
        "securityContext": RESTRICTED_CONTAINER,
        "volumeMounts": mounts,
        # The probe finds the address in POD_IP: Kubernetes expands no variables in a probe's command.
        # /health can say 200 while the engine is dead or compiling: started means that a real generation came
        # back.
        "startupProbe": {
            "exec": {
                "command": [
                    "python3", f"{TOOLS_DIR}/trainyard.pyz", "probe",
                    "--port", str(PORT), "--model", servers.served_name,
                ]
            },
            "periodSeconds": 2,
            "timeoutSeconds": 10,
            "failureThreshold": max(1, servers.ready_deadline_seconds // 2),
        },
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": PORT},
            "periodSeconds": 5,
            "timeoutSeconds": 3,
            "failureThreshold": 3,
        },
        # Endpoints are withdrawn before the server hears SIGTERM; new requests stop first, then streams
        # finish: vLLM before 0.18 would cut them.
        "lifecycle": {
            "preStop": {
                "exec": {
                    "command": [
                        "python3", f"{TOOLS_DIR}/trainyard.pyz", "quiesce",
                        "--port", str(PORT),
                        "--seconds", str(servers.grace_seconds),
                        "--gauges", ",".join(servers.running_metrics),
                    ]
                }
            }
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(servers),
        "spec": {
            "replicas": servers.replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": servers.ready_deadline_seconds,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "Recreate"},
            "template": {
                "metadata": {
                    "labels": labels(servers.model, servers.release, "server"),
                    "annotations": {**DO_NOT_DISRUPT, **servers.annotations},
                },
                "spec": {
                    "automountServiceAccountToken": False,
                    "serviceAccountName": servers.service_account,
                    "priorityClassName": SERVING_PRIORITY,
                    "securityContext": RESTRICTED_POD,
                    # For the hook, and then for the server itself.
                    "terminationGracePeriodSeconds": servers.grace_seconds + 30,
                    "initContainers": [materialise],
                    "containers": [server],
                    "volumes": volumes,
                    **placement(servers.instance_type, servers.nodepool),
                },
            },
        },
    }


def service(servers: ServerSet) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(servers),
        "spec": {
            "type": "ClusterIP",
            "selector": {"trainyard.dev/model": servers.model, "trainyard.dev/release": servers.release},
            "ports": [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    }


def _meta(servers: ServerSet) -> Object:
    return {
        "name": servers.release,
        "namespace": servers.namespace,
        "labels": {**labels(servers.model, servers.release, "server"), "trainyard.dev/role": "canary"},
        "annotations": {"trainyard.dev/lease-token": str(servers.lease_token)},
    }
