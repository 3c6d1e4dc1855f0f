"""How containers and pods end: by themselves, by a limit, a probe or a deletion; and what is left of them."""

from __future__ import annotations

from local.client.kinds import PODS, Obj
from tests.support.cluster import Cluster, container_status
from tests.support.processes import left_of, processes


def test_a_failing_init_container_fails_a_pod_that_never_restarts(cluster: Cluster, namespace: str) -> None:
    broken = {"name": "prepare", "image": "busybox", "command": ["sh", "-c", "exit 4"]}
    cluster.pod(namespace, "broken", ["true"], initContainers=[broken])
    pod = cluster.phase(namespace, "broken", "Failed")
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert container_status(pod)["state"] == {"waiting": {"reason": "PodInitializing"}}


def test_a_container_that_outgrows_its_memory_is_killed_as_by_the_kernel(
    cluster: Cluster, namespace: str
) -> None:
    grow = "import time; kept = [b'x' * 2**20 for _ in range(160)]; time.sleep(60)"
    # The memory is a child's: the limit is that of the whole process tree.
    child = ["sh", "-c", f'python3 -c "{grow}" & wait']
    cluster.pod(namespace, "grows", child, container={"resources": {"limits": {"memory": "64Mi"}}})
    ended = container_status(cluster.phase(namespace, "grows", "Failed"))["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_crash_loop_backs_off_counts_and_keeps_the_previous_log(cluster: Cluster, namespace: str) -> None:
    cluster.pod(namespace, "loops", ["sh", "-c", "echo run; exit 7"], restartPolicy="Always")

    def loops() -> Obj | None:
        status = container_status(cluster.find(PODS, namespace, "loops") or {"status": {}})
        waiting = status.get("state", {}).get("waiting", {})
        return status if waiting.get("reason") == "CrashLoopBackOff" and status["restartCount"] >= 2 else None

    status = cluster.until("CrashLoopBackOff", loops)
    assert status["lastState"]["terminated"]["exitCode"] == 7
    assert status["state"]["waiting"]["message"].startswith("back-off ")
    assert "restarting failed container=main pod=loops_" in status["state"]["waiting"]["message"]
    assert cluster.kubectl("-n", namespace, "logs", "loops", "--previous") == "run\n"
    assert cluster.event(namespace, "loops", "BackOff").startswith(
        "Back-off restarting failed container main in pod loops_"
    )


def test_a_pod_past_its_deadline_fails(cluster: Cluster, namespace: str) -> None:
    cluster.pod(namespace, "late", ["sleep", "60"], activeDeadlineSeconds=1)
    pod = cluster.phase(namespace, "late", "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"
    assert "terminated" in container_status(pod)["state"]


def test_the_termination_message_is_the_file_or_else_the_end_of_the_log(
    cluster: Cluster, namespace: str
) -> None:
    cluster.pod(namespace, "file", ["sh", "-c", "echo -n why > /dev/termination-log; exit 1"])
    policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    cluster.pod(namespace, "log", ["sh", "-c", "seq 1 200; exit 1"], container=policy)
    first = container_status(cluster.phase(namespace, "file", "Failed"))["state"]["terminated"]
    second = container_status(cluster.phase(namespace, "log", "Failed"))["state"]["terminated"]
    assert first["message"] == "why"
    assert second["message"].split() == [str(number) for number in range(121, 201)]


def test_deletion_runs_the_hook_then_asks_then_confirms(cluster: Cluster, namespace: str) -> None:
    folder = cluster.folder / f"{namespace}-hook"
    folder.mkdir()
    script = (
        f"trap 'date +%s%N > {folder}/term; exit 0' TERM; touch {folder}/up; while :; do sleep 0.05; done"
    )
    wait = f"until [ -e {folder}/go ]; do sleep 0.05; done; date +%s%N > {folder}/hook"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", wait]}}}
    cluster.pod(
        namespace,
        "leaves",
        ["sh", "-c", script],
        container={"lifecycle": hook},
        terminationGracePeriodSeconds=120,
    )
    cluster.until("start", (folder / "up").exists)
    cluster.delete(PODS, namespace, "leaves")
    # While the hook runs the pod is there, terminating.
    assert (cluster.find(PODS, namespace, "leaves") or {})["metadata"]["deletionTimestamp"]
    (folder / "go").touch()
    cluster.until("end", lambda: cluster.find(PODS, namespace, "leaves") is None)
    assert int((folder / "hook").read_text()) < int((folder / "term").read_text())


def test_a_forced_deletion_kills_the_process_and_its_children(cluster: Cluster, namespace: str) -> None:
    file = cluster.folder / f"{namespace}-pids"
    stay = "trap : TERM; while :; do sleep 0.1; done"
    script = f"sh -c '{stay}' & echo $$$$ $! > {file}; {stay}"
    cluster.pod(namespace, "stubborn", ["sh", "-c", script])
    pids = cluster.until("pids", lambda: file.exists() and file.read_text().split())
    assert len(pids) == 2
    stubborn = processes(map(int, pids))
    cluster.kubectl("-n", namespace, "delete", "pod", "stubborn", "--force", "--grace-period=0")
    assert not left_of(stubborn)


def test_readiness_follows_the_probe_and_liveness_restarts(cluster: Cluster, namespace: str) -> None:
    # Only what they find counts, not how long the machine takes to look.
    often = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 60}
    probe = {"exec": {"command": ["test", "-e", "/d/ready"]}, **often}
    alive = {"exec": {"command": ["test", "!", "-e", "/d/ill"]}, **often}
    cluster.pod(
        namespace,
        "probed",
        # It heals as it ends: by the time of its next start it is well.
        ["sh", "-c", "trap 'rm -f /d/ill; exit 0' TERM; touch /d/up; while :; do sleep 0.05; done"],
        restartPolicy="Always",
        terminationGracePeriodSeconds=60,
        container={
            "readinessProbe": probe,
            "livenessProbe": alive,
            "volumeMounts": [{"name": "d", "mountPath": "/d"}],
        },
        volumes=[{"name": "d", "emptyDir": {}}],
    )
    pod = cluster.phase(namespace, "probed", "Running")
    assert cluster.event(namespace, "probed", "Unhealthy", "Readiness probe failed").startswith(
        "Readiness probe"
    )
    assert container_status(pod)["ready"] is False
    folder = cluster.folder / "kubelet" / "pods" / pod["metadata"]["uid"] / "volumes" / "d"
    cluster.until("start", (folder / "up").exists)
    (folder / "ready").touch()
    cluster.kubectl("-n", namespace, "wait", "pod/probed", "--for=condition=Ready", "--timeout=90s")
    (folder / "ill").touch()
    text = cluster.event(namespace, "probed", "Killing", "liveness")
    assert text == "Container main failed liveness probe, will be restarted"
    cluster.until(
        "restart",
        lambda: container_status(cluster.find(PODS, namespace, "probed") or pod)["restartCount"] == 1,
    )


def test_no_process_outlives_its_main_process(cluster: Cluster, namespace: str) -> None:
    file = cluster.folder / f"{namespace}-left"
    cluster.pod(namespace, "leaver", ["sh", "-c", f"sleep 300 & echo $! > {file}"])
    cluster.phase(namespace, "leaver", "Succeeded")
    assert not left_of(processes([int(file.read_text())]))


def test_a_pod_can_be_deleted_whatever_it_still_waits_for(cluster: Cluster, namespace: str) -> None:
    sidecar = {"name": "s", "image": "registry.example/none:4", "restartPolicy": "Always"}
    cluster.pod(namespace, "no-image", ["true"], initContainers=[sidecar])
    volumes = [{"name": "v", "configMap": {"name": "absent"}}]
    cluster.pod(namespace, "no-volume", ["true"], volumes=volumes)
    cluster.event(namespace, "no-image", "BackOff")
    text = 'MountVolume.SetUp failed for volume "v" : configmap "absent" not found'
    assert cluster.event(namespace, "no-volume", "FailedMount") == text
    for name in ("no-image", "no-volume"):
        cluster.delete(PODS, namespace, name)
    cluster.until("both gone", lambda: not cluster.list(PODS, namespace))
