"""What is waited for, look by look, in a real API server whose state the test writes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cluster import Cluster as Server
from tests.support.karpenter import create_event as event
from tests.support.karpenter import create_pod, create_pool, patch_status
from tests.support.servers import server_set
from trainyard.errors import CanaryNotReady, ImageUnavailable, OutOfMemory, PermanentError, Unschedulable
from trainyard.kube import watchers
from trainyard.kube.cluster import Cluster
from trainyard.kube.servers import deployment
from trainyard.release import now

Obj = dict[str, Any]


@pytest.fixture
def pool(bare_server: Server, space: str) -> str:
    return create_pool(bare_server, f"pool-{space}")


def test_a_ready_pool_with_room_is_enough(kube: Cluster, pool: str) -> None:
    look = watchers.capacity_free(kube, nodepool=pool, chips=16)
    assert look.done
    assert "16 of 16 chips left" in look.note


def test_more_chips_than_the_pool_may_ever_have_is_told_at_once(kube: Cluster, pool: str) -> None:
    with pytest.raises(PermanentError, match="limited to 16 chips, 32 are needed"):
        watchers.capacity_free(kube, nodepool=pool, chips=32)


def test_a_lack_of_capacity_is_waited_out(kube: Cluster, bare_server: Server, pool: str) -> None:
    event(bare_server, "default", f"{pool}-x7k2p", "InsufficientCapacityError", "none left", "NodeClaim")
    look = watchers.capacity_free(kube, nodepool=pool, chips=4)
    assert not look.done
    assert "none left" in look.note


def follow(kube: Cluster, space: str, **more: Any) -> watchers.Look:
    return watchers.node_ready(kube, namespace=space, labels="r=x", chips=4, nodepool=f"pool-{space}", **more)


def test_a_pod_that_is_yet_to_come_is_waited_for(kube: Cluster, space: str) -> None:
    assert not follow(kube, space, pods_named="compile-x-").done


def test_a_pod_that_came_and_went_between_two_looks_is_no_endless_wait(
    kube: Cluster, bare_server: Server, space: str
) -> None:
    event(bare_server, space, "compile-x-ab12", "Scheduled", "Successfully assigned compile-x-ab12 to n1")
    look = follow(kube, space, pods_named="compile-x-")
    assert look.done
    assert "assigned compile-x-ab12 to n1" in look.note
    assert not follow(kube, space, pods_named="compile-y-").done


def test_a_pod_without_a_nodeclaim_says_what_ec2_said_of_its_own_pool_only(
    kube: Cluster, bare_server: Server, space: str
) -> None:
    create_pod(bare_server, space, "p")
    event(bare_server, "default", "gpu-x7k2p", "InsufficientCapacityError", "no gpu", "NodeClaim")
    assert "waiting for Karpenter" in follow(kube, space).note
    event(bare_server, "default", f"pool-{space}-x7k2p", "InsufficientCapacityError", "no trn2", "NodeClaim")
    look = follow(kube, space)
    assert not look.done
    assert "Karpenter keeps trying: no trn2" in look.note


def test_a_pod_that_no_pool_can_serve_is_told_at_once(kube: Cluster, bare_server: Server, space: str) -> None:
    create_pod(bare_server, space, "p")
    event(bare_server, space, "p", "FailedScheduling", 'incompatible with nodepool "x", label mismatch')
    with pytest.raises(Unschedulable, match="label mismatch"):
        follow(kube, space)


def test_a_pod_that_has_ended_is_waited_for_no_longer(kube: Cluster, bare_server: Server, space: str) -> None:
    create_pod(bare_server, space, "p", phase="Succeeded")
    assert "has ended (Succeeded)" in follow(kube, space).note


def ready(kube: Cluster, space: str) -> watchers.Look:
    return watchers.servers_ready(kube, namespace=space, name="m-1", labels="r=x", container="server")


def waiting(reason: str, message: str, **more: Any) -> Obj:
    return {"name": "server", "image": "x:1", "imageID": "", "ready": False, "restartCount": 0, **more} | {
        "state": {"waiting": {"reason": reason, "message": message}}
    }


def test_servers_are_ready_only_in_their_newest_generation(
    kube: Cluster, bare_server: Server, space: str
) -> None:
    kube.apply(deployment(server_set(space)))
    path = f"/apis/apps/v1/namespaces/{space}/deployments/m-1"
    patch_status(bare_server, path, {"replicas": 1, "readyReplicas": 1, "observedGeneration": 0})
    assert not ready(kube, space).done
    patch_status(bare_server, path, {"observedGeneration": 1})
    assert ready(kube, space).done


def test_an_image_that_does_not_exist_ends_the_wait(kube: Cluster, bare_server: Server, space: str) -> None:
    kube.apply(deployment(server_set(space)))
    create_pod(bare_server, space, "p", containerStatuses=[waiting("ErrImagePull", "x:1: not found")])
    with pytest.raises(ImageUnavailable, match="x:1"):
        ready(kube, space)


def test_a_server_that_keeps_dying_is_told_by_how_it_died(
    kube: Cluster, bare_server: Server, space: str
) -> None:
    kube.apply(deployment(server_set(space)))
    dead = {"terminated": {"exitCode": 3, "reason": "Error"}}
    looping = waiting("CrashLoopBackOff", "back-off", restartCount=3, lastState=dead)
    create_pod(bare_server, space, "p", containerStatuses=[looping])
    with pytest.raises(CanaryNotReady, match="exit code 3"):
        ready(kube, space)


def test_a_server_that_runs_out_of_memory_is_told_as_such(
    kube: Cluster, bare_server: Server, space: str
) -> None:
    kube.apply(deployment(server_set(space)))
    dead = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    looping = waiting("CrashLoopBackOff", "back-off", restartCount=2, lastState=dead)
    create_pod(bare_server, space, "p", containerStatuses=[looping])
    with pytest.raises(OutOfMemory, match=r"serving\.memory"):
        ready(kube, space)


def test_the_last_words_of_a_wait_hold_the_last_events(
    kube: Cluster, bare_server: Server, space: str
) -> None:
    create_pod(bare_server, space, "p", phase="Pending")
    event(bare_server, space, "p", "Unhealthy", "Startup probe failed: no generation")
    words = watchers.last_words(kube, "servers_ready", {"namespace": space, "labels": "r=x"})
    assert "Startup probe failed: no generation" in words
    assert watchers.last_words(kube, "elapsed", {}) == ""


def test_a_moment_is_waited_for_until_it_has_come() -> None:
    assert watchers.elapsed(None, until=now(), words="drained").done  # type: ignore[arg-type]
    look = watchers.elapsed(None, until="2999-01-01T00:00:00Z", words="drains")  # type: ignore[arg-type]
    assert not look.done
    assert "s left" in look.note
