"""A shared load test as pods of the cluster: what the stage makes is what works there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.client.kinds import SERVICEACCOUNTS, Obj
from tests.support.cluster import Cluster, namespace
from tests.support.seaweed import S3Server
from tests.support.truth_server import truth_server
from trainyard.bench.samples import unpack
from trainyard.bench.workload import Workload
from trainyard.kube.pods import cpu_job
from trainyard.stages.workers import member
from trainyard.store.objects import Objects

__all__ = ["namespace"]

REPOSITORY = Path(__file__).parents[3]
WORKLOAD = {
    "arrivals": {"process": "poisson", "rate": 30},
    "duration_seconds": 2,
    "processes": 2,
    "output_tokens": 4,
    "max_loop_lag_seconds": 60,
}


def test_pods_of_one_attempt_meet_and_the_first_ends_with_the_summary(
    cluster: Cluster, namespace: str, s3_server: S3Server, bucket: str
) -> None:
    account = {"metadata": {"name": "trainyard-loadtest", "namespace": namespace}}
    cluster.create(SERVICEACCOUNTS, account)
    with truth_server(ttft=0.01, itl=0.001) as server:
        leader = cpu_job(
            name="load-m-1",
            namespace=namespace,
            job_name="loadtest",
            job={
                "bucket": bucket,
                "output": "measurements/m/r/load/0/",
                "model": "m",
                "arms": {"canary": [server.url]},
                "seed": 5,
                "workload": WORKLOAD,
            },
            image="python:3.12",
            service_account="trainyard-loadtest",
            model="m",
            release="m-1",
            deadline_seconds=600,
            env={**s3_server.environment, "PYTHONPATH": str(REPOSITORY / "include")},
        )
        del leader["spec"]["priorityClassName"]  # this cluster has no classes
        pods = [unhurried(member(leader, "load", "0a", index, 2)) for index in range(2)]
        names = [pod["metadata"]["name"] for pod in pods]
        for pod in reversed(pods):
            cluster.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
        found = cluster.until("both pods ended", lambda: ended(cluster, namespace, names), 240)
        asked = len(server.truths)
    assert found == ["Succeeded", "Succeeded"], [
        cluster.kubectl("logs", "-n", namespace, name, code=None) for name in names
    ]
    store, prefix = Objects(s3_server.client(), bucket), "measurements/m/r/load/0/"
    summary = json.loads(store.get(f"{prefix}summary.json").body)
    samples = unpack(store.get(f"{prefix}samples.ndjson.gz").body)
    assert (summary["workers"], summary["generator"]["achieved"]) == (2, 1.0)
    # One schedule, each pair once, whichever of the four processes asked it.
    described = Workload.from_dict(WORKLOAD)
    moments = described.schedule.schedule(5) if described.schedule else []
    assert sorted(sample.pair or 0 for sample in samples) == list(range(len(moments)))
    assert summary["arms"]["canary"]["requests"] == asked == len(moments) > 30
    assert {sample.user for sample in samples} == {0, 1, 2, 3}
    intended = [sample.started + sample.intended for sample in sorted(samples, key=lambda one: one.pair or 0)]
    assert [moment - intended[0] for moment in intended] == pytest.approx(
        [moment - moments[0] for moment in moments], abs=0.1
    )


def unhurried(pod: Obj) -> Obj:
    """The go further away than a machine stands still that has other tests to run."""
    variable = next(each for each in pod["spec"]["containers"][0]["env"] if each["name"] == "TRAINYARD_JOB")
    job = json.loads(variable["value"])
    job["crew"]["go_seconds"] = 8
    variable["value"] = json.dumps(job)
    return pod


def ended(cluster: Cluster, namespace: str, names: list[str]) -> list[str]:
    pods: list[Obj] = [
        cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}") for name in names
    ]
    phases = [str(pod["status"].get("phase")) for pod in pods]
    return phases if all(phase in ("Succeeded", "Failed") for phase in phases) else []
