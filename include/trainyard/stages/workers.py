"""The other pods of a load test: made before the one that the task follows, taken away when it is over.

The pod that is followed leads (worker 0). All pods of one attempt carry its name, and what they tell each
other in S3 lies below it, so that two attempts never mix. Every pod has the release's label: `roll_back`
removes what is left of a release that was stopped.
"""

from __future__ import annotations

import copy
import json
import uuid

from trainyard.errors import Conflict
from trainyard.kube.cluster import Object
from trainyard.release import Release
from trainyard.stages.context import Context

PHASE, ATTEMPT, WORKER = "trainyard.dev/phase", "trainyard.dev/attempt", "trainyard.dev/worker"
READY_SECONDS = 600  # until all pods of a test have found a place
_LEADERS_OWN = ("servers", "watch", "split")  # what one pod does for all


def muster(ctx: Context, release: Release, phase: str, leader: Object) -> Object:
    """Makes the other pods of this phase, and returns `leader` with what it has to know of them.

    A leader that is at work already (the task's worker died, the pod did not) keeps its pods.
    """
    job = _job(leader)
    load = release.spec.rollout.load
    count = load.workers if load.arrivals is not None else min(load.workers, load.concurrency)
    if job.get("observe_seconds"):
        count = 1
    standing = _pods(ctx, release, phase)
    at_work = next((pod for pod in standing if _leads(pod)), None)
    attempt = at_work["metadata"]["labels"][ATTEMPT] if at_work else uuid.uuid4().hex[:8]
    leader = member(leader, phase, attempt, 0, count)
    leader["spec"]["containers"][0]["resources"]["requests"]["cpu"] = str(load.processes + 1)
    for pod in standing:
        if pod["metadata"]["labels"].get(ATTEMPT) != attempt and not _is_leader(pod):
            ctx.cluster.delete("Pod", pod["metadata"]["name"], ctx.settings.jobs_namespace)
    if at_work is None:
        for index in range(1, count):
            _create(ctx, member(leader, phase, attempt, index, count))
    return leader


def leads(ctx: Context, release: Release, phase: str) -> bool:
    """Whether the pod that the task follows is there, at work or not yet read."""
    return any(_is_leader(pod) for pod in _pods(ctx, release, phase))


def dismiss(ctx: Context, release: Release, phase: str) -> None:
    """The phase was measured: its other pods are of no more use."""
    for pod in _pods(ctx, release, phase):
        if not _is_leader(pod):
            ctx.cluster.delete("Pod", pod["metadata"]["name"], ctx.settings.jobs_namespace)


def member(pod: Object, phase: str, attempt: str, index: int, count: int) -> Object:
    """Pod number `index`, made from the leader's."""
    pod = copy.deepcopy(pod)
    meta, job = pod["metadata"], _job(pod)
    meta["labels"] |= {PHASE: phase, ATTEMPT: attempt, WORKER: str(index)}
    job["crew"] = {"index": index, "of": count, "attempt": attempt, "ready_seconds": READY_SECONDS}
    if index:
        meta["name"] = f"{meta['name']}-{attempt}-{index}"
        for key in _LEADERS_OWN:
            job.pop(key, None)
    elif count > 1:
        pod["spec"]["activeDeadlineSeconds"] += READY_SECONDS  # the copies are made from this one
    for variable in pod["spec"]["containers"][0]["env"]:
        if variable["name"] == "TRAINYARD_JOB":
            variable["value"] = json.dumps(job, sort_keys=True)
    return pod


def _job(pod: Object) -> Object:
    variables = pod["spec"]["containers"][0]["env"]
    job: Object = json.loads(next(item["value"] for item in variables if item["name"] == "TRAINYARD_JOB"))
    return job


def _create(ctx: Context, pod: Object) -> None:
    try:
        ctx.cluster.create(pod)
    except Conflict:
        ctx.log.info("Pod %s is there already.", pod["metadata"]["name"])  # a lost answer, asked again


def _pods(ctx: Context, release: Release, phase: str) -> list[Object]:
    """Those that are not on their way out."""
    wanted = f"trainyard.dev/release={release.id},{PHASE}={phase}"
    pods = ctx.cluster.list("Pod", ctx.settings.jobs_namespace, labels=wanted)
    return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]


def _is_leader(pod: Object) -> bool:
    return bool(pod["metadata"]["labels"].get(WORKER) == "0")


def _leads(pod: Object) -> bool:
    """Succeeded ones are replaced by whoever follows them; a failed one is read, and then goes."""
    return _is_leader(pod) and (pod.get("status") or {}).get("phase") != "Succeeded"
