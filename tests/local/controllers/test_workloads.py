"""Deployments, Jobs, Services and owners, seen through kubectl."""

from __future__ import annotations

from local.client.kinds import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICASETS,
    SERVICEACCOUNTS,
    SERVICES,
    Obj,
)
from local.client.objects import condition
from tests.support.cluster import Cluster

STAY = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


def deployment(namespace: str, name: str, replicas: int = 2, **spec: object) -> Obj:
    container: Obj = {"name": "main", "image": "busybox", "command": STAY}
    container.update(spec.pop("container", {}))  # type: ignore[call-overload]
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 2},
    }
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template,
            **spec,
        },
    }


def job(namespace: str, name: str, command: str, **spec: object) -> Obj:
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": "busybox", "command": ["sh", "-c", command]}],
    }
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"template": {"spec": pod}, **spec}}


def pods(cluster: Cluster, namespace: str) -> list[Obj]:
    return [pod for pod in cluster.list(PODS, namespace) if not pod["metadata"].get("deletionTimestamp")]


def test_a_pod_that_fits_nowhere_is_told_why(cluster: Cluster, namespace: str) -> None:
    cluster.pod(namespace, "picky", ["true"], nodeSelector={"disk": "gold"})
    cluster.pod(namespace, "greedy", ["true"], container={"resources": {"requests": {"cpu": "1000"}}})
    text = cluster.event(namespace, "picky", "FailedScheduling", "nodes are available")
    assert "node(s) didn't match Pod's node affinity/selector" in text
    assert "preemption: 0/" in text
    assert "Preemption is not helpful for scheduling." in text
    assert "Insufficient cpu" in cluster.event(namespace, "greedy", "FailedScheduling", "nodes are available")
    entry = condition(cluster.find(PODS, namespace, "picky") or {}, "PodScheduled")
    assert entry is not None
    assert (entry["status"], entry["reason"]) == ("False", "Unschedulable")


def test_a_pod_is_scheduled_when_a_label_makes_room(cluster: Cluster, namespace: str) -> None:
    cluster.pod(namespace, "hopes", ["true"], nodeSelector={f"for-{namespace}": "yes"})
    cluster.event(namespace, "hopes", "FailedScheduling", "nodes are available")
    cluster.patch(NODES, None, "local-system", {"metadata": {"labels": {f"for-{namespace}": "yes"}}})
    cluster.phase(namespace, "hopes", "Succeeded")


def test_a_deployment_rolls_out_scales_and_rolls_back(cluster: Cluster, namespace: str) -> None:
    cluster.create(DEPLOYMENTS, deployment(namespace, "web"))
    status = ("-n", namespace, "rollout", "status", "deployment/web", "--timeout=90s")
    assert "successfully rolled out" in cluster.kubectl(*status)
    before = {pod["metadata"]["name"] for pod in pods(cluster, namespace)}
    cluster.kubectl("-n", namespace, "scale", "deployment/web", "--replicas=3")
    cluster.kubectl(*status)
    assert before < {pod["metadata"]["name"] for pod in pods(cluster, namespace)}
    cluster.kubectl("-n", namespace, "set", "env", "deployment/web", "STEP=2")
    cluster.kubectl(*status)
    found = cluster.find(DEPLOYMENTS, namespace, "web") or {}
    assert found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    reasons = {each["type"]: each["reason"] for each in found["status"]["conditions"]}
    assert reasons == {"Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable"}
    cluster.kubectl("-n", namespace, "rollout", "undo", "deployment/web")
    cluster.kubectl(*status)
    sets = cluster.list(REPLICASETS, namespace)
    assert sorted(each["spec"]["replicas"] for each in sets) == [0, 3]
    current = next(each for each in sets if each["spec"]["replicas"])
    assert current["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


def test_recreate_starts_the_new_pods_only_when_the_old_are_gone(cluster: Cluster, namespace: str) -> None:
    slow = ["sh", "-c", "trap 'sleep 0.5; exit 0' TERM; while :; do sleep 0.05; done"]
    body = deployment(namespace, "one", 1, strategy={"type": "Recreate"}, container={"command": slow})
    cluster.create(DEPLOYMENTS, body)
    status = ("-n", namespace, "rollout", "status", "deployment/one", "--timeout=90s")
    cluster.kubectl(*status)
    (old,) = pods(cluster, namespace)
    cluster.kubectl("-n", namespace, "set", "env", "deployment/one", "STEP=2")
    cluster.kubectl(*status)
    (new,) = pods(cluster, namespace)
    assert new["metadata"]["creationTimestamp"] > old["metadata"]["creationTimestamp"] or (
        cluster.find(PODS, namespace, old["metadata"]["name"]) is None
    )


def test_a_rollout_that_hangs_exceeds_its_deadline(cluster: Cluster, namespace: str) -> None:
    body = deployment(
        namespace, "stuck", 1, progressDeadlineSeconds=1, container={"image": "registry.example/none:3"}
    )
    cluster.create(DEPLOYMENTS, body)
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/stuck", "--timeout=90s", code=1)
    found = cluster.find(DEPLOYMENTS, namespace, "stuck") or {}
    entry = condition(found, "Progressing") or {}
    assert (entry["status"], entry["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert (condition(found, "Available") or {})["reason"] == "MinimumReplicasUnavailable"


def test_a_deleted_pod_of_a_replica_set_is_replaced(cluster: Cluster, namespace: str) -> None:
    cluster.create(DEPLOYMENTS, deployment(namespace, "kept", 1))
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/kept", "--timeout=90s")
    (old,) = pods(cluster, namespace)
    cluster.delete(PODS, namespace, old["metadata"]["name"])
    cluster.until(
        "another pod",
        lambda: [
            each for each in pods(cluster, namespace) if each["metadata"]["uid"] != old["metadata"]["uid"]
        ],
    )


def test_a_job_completes_with_as_many_pods_as_asked(cluster: Cluster, namespace: str) -> None:
    cluster.create(JOBS, job(namespace, "adds", "echo done", completions=3, parallelism=2))
    cluster.kubectl("-n", namespace, "wait", "job/adds", "--for=condition=complete", "--timeout=90s")
    found = cluster.find(JOBS, namespace, "adds") or {}
    assert found["status"]["succeeded"] == 3
    assert len(cluster.list(PODS, namespace)) == 3
    # The counting is over, so nothing keeps the pods from being deleted.
    cluster.until(
        "released",
        lambda: not any(pod["metadata"].get("finalizers") for pod in cluster.list(PODS, namespace)),
    )


def test_a_job_gives_up_at_its_backoff_limit(cluster: Cluster, namespace: str) -> None:
    cluster.create(JOBS, job(namespace, "fails", "exit 1", backoffLimit=1))
    cluster.kubectl("-n", namespace, "wait", "job/fails", "--for=condition=failed", "--timeout=90s")
    found = cluster.find(JOBS, namespace, "fails") or {}
    entry = condition(found, "Failed") or {}
    assert entry["reason"] == "BackoffLimitExceeded"
    assert entry["message"] == "Job has reached the specified backoff limit"
    assert found["status"]["failed"] == 2


def test_a_job_past_its_deadline_is_stopped_and_one_with_a_ttl_vanishes(
    cluster: Cluster, namespace: str
) -> None:
    cluster.create(JOBS, job(namespace, "late", "sleep 600", activeDeadlineSeconds=1))
    cluster.create(JOBS, job(namespace, "brief", "true", ttlSecondsAfterFinished=0))
    cluster.until("brief is gone", lambda: cluster.find(JOBS, namespace, "brief") is None)
    cluster.kubectl("-n", namespace, "wait", "job/late", "--for=condition=failed", "--timeout=90s")
    entry = condition(cluster.find(JOBS, namespace, "late") or {}, "Failed") or {}
    assert entry["reason"] == "DeadlineExceeded"
    cluster.until("no pods", lambda: not cluster.list(PODS, namespace))


def endpoints(cluster: Cluster, namespace: str, service: str) -> list[Obj]:
    selector = f"kubernetes.io/service-name={service}"
    found = cluster.list(ENDPOINTSLICES, namespace, labelSelector=selector)
    return [endpoint for each in found for endpoint in each.get("endpoints") or []]


def test_endpoints_follow_readiness_and_say_when_they_terminate(cluster: Cluster, namespace: str) -> None:
    end = "until [ -e /d/go ]; do sleep 0.05; done; exit 0"
    script = f"trap '{end}' TERM; touch /d/up; while :; do sleep 0.05; done"
    probe = {"exec": {"command": ["test", "-e", "/d/ready"]}, "periodSeconds": 1, "timeoutSeconds": 60}
    container = {
        "image": "busybox",
        "ports": [{"name": "web", "containerPort": 8080}],
        "readinessProbe": probe,
        "volumeMounts": [{"name": "d", "mountPath": "/d"}],
    }
    cluster.pod(
        namespace,
        "behind",
        ["sh", "-c", script],
        metadata={"labels": {"app": "behind"}},
        container=container,
        volumes=[{"name": "d", "emptyDir": {}}],
        terminationGracePeriodSeconds=120,
    )
    spec = {"selector": {"app": "behind"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]}
    cluster.create(SERVICES, {"metadata": {"name": "front", "namespace": namespace}, "spec": spec})

    def conditions() -> list[tuple[bool, bool, bool]]:
        found = [each["conditions"] for each in endpoints(cluster, namespace, "front")]
        return [(each["ready"], each["serving"], each["terminating"]) for each in found]

    cluster.until("unready endpoint", lambda: conditions() == [(False, False, False)])
    pod = cluster.find(PODS, namespace, "behind") or {}
    assert endpoints(cluster, namespace, "front")[0]["addresses"] == [pod["status"]["podIP"]]
    (one,) = cluster.list(ENDPOINTSLICES, namespace)
    assert one["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    folder = cluster.folder / "kubelet" / "pods" / pod["metadata"]["uid"] / "volumes" / "d"
    cluster.until("start", (folder / "up").exists)
    (folder / "ready").touch()
    cluster.until("ready endpoint", lambda: conditions() == [(True, True, False)])
    cluster.delete(PODS, namespace, "behind")
    cluster.until("terminating endpoint", lambda: conditions() == [(False, True, True)])
    (folder / "go").touch()
    cluster.until("no endpoint", lambda: conditions() == [])


def owned(namespace: str, name: str, owner: Obj, *, block: bool = True) -> Obj:
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": block,
    }
    return {"metadata": {"name": name, "namespace": namespace, "ownerReferences": [reference]}}


def test_what_is_owned_goes_with_its_owner_or_is_let_go(cluster: Cluster, namespace: str) -> None:
    def family(name: str) -> Obj:
        owner = cluster.create(CONFIGMAPS, {"metadata": {"name": name, "namespace": namespace}})
        child = cluster.create(CONFIGMAPS, owned(namespace, f"{name}-child", owner))
        cluster.create(CONFIGMAPS, owned(namespace, f"{name}-grandchild", child))
        return owner

    for name in ("background", "foreground", "orphan"):
        family(name)
    for name in ("background", "foreground", "orphan"):
        cluster.delete(CONFIGMAPS, namespace, name, propagationPolicy=name.capitalize())

    def names() -> set[str]:
        return {each["metadata"]["name"] for each in cluster.list(CONFIGMAPS, namespace)}

    cluster.until(
        "only the orphans stay",
        lambda: names() - {"kube-root-ca.crt"} == {"orphan-child", "orphan-grandchild"},
    )
    child = cluster.find(CONFIGMAPS, namespace, "orphan-child") or {}
    assert not child["metadata"].get("ownerReferences")


def test_an_object_whose_owner_never_was_is_collected(cluster: Cluster, namespace: str) -> None:
    ghost = {"metadata": {"name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}}
    cluster.create(CONFIGMAPS, owned(namespace, "stray", ghost))
    cluster.until("collected", lambda: cluster.find(CONFIGMAPS, namespace, "stray") is None)


def test_a_namespace_has_an_account_and_goes_with_all_it_holds(cluster: Cluster) -> None:
    name = "short-lived"
    cluster.create(NAMESPACES, {"metadata": {"name": name}})
    cluster.until("account", lambda: cluster.find(SERVICEACCOUNTS, name, "default"))
    cluster.create(DEPLOYMENTS, deployment(name, "inside", 1))
    cluster.kubectl("-n", name, "rollout", "status", "deployment/inside", "--timeout=90s")
    cluster.kubectl("delete", "namespace", name, "--timeout=90s")
    assert cluster.find(NAMESPACES, None, name) is None
    assert cluster.list(PODS, name) == []


def test_a_node_that_was_given_up_for_lost_comes_back(cluster: Cluster, namespace: str) -> None:
    node = cluster.find(NODES, None, "local-system") or {}
    # As after a silence of forty seconds.
    conditions = [{**each, "status": "Unknown"} for each in node["status"]["conditions"]]
    path = NODES.path(None, "local-system", "status")
    body = {"status": {"conditions": conditions}}
    cluster.request("PATCH", path, body, media="application/merge-patch+json")
    cluster.pod(namespace, "patient", ["true"])
    cluster.phase(namespace, "patient", "Succeeded")
    cluster.until(
        "no taints", lambda: not (cluster.find(NODES, None, "local-system") or {})["spec"].get("taints")
    )
    entry = condition(cluster.find(NODES, None, "local-system") or {}, "MemoryPressure") or {}
    assert entry["status"] == "False"


def test_pods_of_a_node_that_is_gone_are_deleted(cluster: Cluster, namespace: str) -> None:
    node = f"lost-{namespace}"
    cluster.create(NODES, {"metadata": {"name": node}})
    cluster.pod(namespace, "stranded", ["true"], nodeName=node)
    cluster.delete(NODES, None, node)
    cluster.until("pod gone", lambda: cluster.find(PODS, namespace, "stranded") is None)


def test_a_no_execute_taint_evicts_who_does_not_tolerate_it(cluster: Cluster, namespace: str) -> None:
    node = f"tainted-{namespace}"
    cluster.create(NODES, {"metadata": {"name": node}})
    cluster.pod(namespace, "leaves", ["true"], nodeName=node)
    cluster.pod(namespace, "stays", ["true"], nodeName=node, tolerations=[{"operator": "Exists"}])
    taints = [{"key": "maintenance", "effect": "NoExecute"}]
    cluster.patch(NODES, None, node, {"spec": {"taints": taints}})

    def marked(name: str) -> bool:
        pod = cluster.find(PODS, namespace, name)
        return pod is None or bool(pod["metadata"].get("deletionTimestamp"))

    cluster.until("eviction", lambda: marked("leaves"))
    assert not marked("stays")
    cluster.delete(NODES, None, node)
