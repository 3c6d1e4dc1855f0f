"""The life of one pod on this node: volumes, init containers, containers, deadline, graceful end, status."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

import aiohttp

from local.client.api import ApiError
from local.client.kinds import CONFIGMAPS, PODS, SECRETS, SERVICEACCOUNTS, Obj, Resource
from local.client.objects import age, deleting, stamp
from local.kubelet.container import Container
from local.kubelet.context import Host, NodeContext, PodContext
from local.kubelet.environment import ConfigError, Sources
from local.kubelet.logs import ContainerLog
from local.kubelet.status import ContainerState, PodState
from local.kubelet.status_writer import StatusWriter
from local.kubelet.volumes import make_volumes, source_names

log = logging.getLogger(__name__)
ROLE = "eks.amazonaws.com/role-arn"


class PodWorker:
    """Runs one pod. Outlives the pod's processes until the pod is deleted, so that its logs can be read."""

    def __init__(self, host: Host, node: NodeContext, pod: Obj, ip: str) -> None:
        meta = pod["metadata"]
        self.host, self.pod, self.uid = host, pod, meta["uid"]
        root = host.settings.root
        logs = root / "logs" / f"{meta['namespace']}_{meta['name']}_{self.uid}"
        self.context = PodContext(
            host, node, pod, root / "pods" / self.uid, logs, ip, self._changed, self._refresh
        )
        spec = pod["spec"]
        inits = spec.get("initContainers") or []
        sidecars = frozenset(each["name"] for each in inits if each.get("restartPolicy") == "Always")
        self.state = PodState(
            init=[
                ContainerState(each["name"], each["image"], {"reason": "PodInitializing"}) for each in inits
            ],
            main=[
                ContainerState(
                    each["name"],
                    each["image"],
                    {"reason": "PodInitializing"} if inits else {"reason": "ContainerCreating"},
                )
                for each in spec["containers"]
            ],
            sidecars=sidecars,
            started_at=(pod.get("status") or {}).get("startTime") or stamp(),
            pod_ip=ip,
            host_ip=host.settings.address,
        )
        self.init = [
            Container(self.context, each, state, init=True, sidecar=each["name"] in sidecars)
            for each, state in zip(inits, self.state.init, strict=True)
        ]
        self.main = [
            Container(self.context, each, state, init=False, sidecar=False)
            for each, state in zip(spec["containers"], self.state.main, strict=True)
        ]
        self.writer = StatusWriter(host.cache, pod, self.state)
        self._life: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._over = False

    # -- what the kubelet calls
    # ---------------------------------------------------------------------------------------

    def start(self) -> None:
        self.writer.start()
        if self._resume():
            self._over = True
            self._life = asyncio.create_task(self._finished())
        else:
            self._life = asyncio.create_task(self._live(), name=f"pod {self.pod['metadata']['name']}")
        self.update(self.pod)

    def update(self, pod: Obj) -> None:
        """Take in the pod as the API server has it now."""
        self.pod = self.context.pod = self.writer.pod = pod
        if deleting(pod) and self._end is None:
            self._end = asyncio.create_task(self._terminate())

    async def vanish(self) -> None:
        """The pod is gone from the API: kill what still runs, at once, and remove its files."""
        self.writer.stop()
        for task in (self._life, *self._running):
            if task:
                task.cancel()
        await asyncio.gather(*(each.stop(0) for each in self.containers), return_exceptions=True)
        if self._end and self._end is not asyncio.current_task():
            self._end.cancel()
        self.context.node.devices.release(self.uid)
        await asyncio.to_thread(self._remove_files)

    def kill(self) -> None:
        """Kill all processes now (the kubelet itself is ending)."""
        for each in self.containers:
            each.stopping.set()
            if each.process:
                each.process.kill()

    @property
    def containers(self) -> list[Container]:
        return [*self.init, *self.main]

    def container(self, name: str) -> Container | None:
        return next((each for each in self.containers if each.spec["name"] == name), None)

    def log_file(self, name: str, *, previous: bool) -> tuple[Path, ContainerLog | None] | None:
        """The log of the container's current or previous run, with its writer when it is the current one."""
        container = self.container(name)
        if container is None:
            return None
        folder = self.context.logs / name
        runs = sorted(int(each.stem) for each in folder.glob("*.log")) if folder.is_dir() else []
        if previous:
            if len(runs) < 2:
                return None
            return folder / f"{runs[-2]}.log", None
        if not runs:
            return None
        live = container.log if container.log and container.log.path.stem == str(runs[-1]) else None
        return folder / f"{runs[-1]}.log", live

    # -- life ------------------------------------------------------------------------------------------
    # ---------------

    def _changed(self) -> None:
        self.writer.changed()

    def _resume(self) -> bool:
        """Take over what an earlier kubelet reported; true when the pod had ended already."""
        status = self.pod.get("status") or {}
        known = {
            each["name"]: each
            for each in [
                *(status.get("initContainerStatuses") or []),
                *(status.get("containerStatuses") or []),
            ]
        }
        for state in [*self.state.init, *self.state.main]:
            old = known.get(state.name) or {}
            state.restarts = old.get("restartCount", 0)
            state.container_id = old.get("containerID", "")
            past = old.get("state") or {}
            if "terminated" in past:
                state.end(past["terminated"])
                state.done = status.get("phase") in ("Succeeded", "Failed") or state.succeeded
            elif "running" in past:
                # Its process ended with the kubelet that ran it.
                state.end(
                    {
                        "exitCode": 137,
                        "reason": "ContainerStatusUnknown",
                        "message": "The container could not be located when the pod was terminated",
                        "startedAt": past["running"].get("startedAt"),
                        "finishedAt": stamp(),
                        "containerID": state.container_id,
                    }
                )
                state.restarts += 1
        if status.get("phase") in ("Succeeded", "Failed"):
            self.state.failed_reason = status.get("reason", "")
            self.state.failed_message = status.get("message", "")
            return True
        return False

    async def _finished(self) -> None:
        """Nothing to run; only deletion is left to come."""

    async def _live(self) -> None:
        spec = self.pod["spec"]
        self._changed()
        self.context.volumes = await self._volumes()
        self.state.sandbox = True
        self._changed()
        deadline = spec.get("activeDeadlineSeconds")
        left = None if deadline is None else max(0.0, deadline - age(self.state.started_at))
        try:
            await asyncio.wait_for(self._run_containers(), left)
        except TimeoutError:
            self.context.event(
                "Normal", "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
            )
            self.state.failed_reason = "DeadlineExceeded"
            self.state.failed_message = "Pod was active on the node longer than the specified deadline"
            await self._stop_all(float(spec.get("terminationGracePeriodSeconds", 30)))
        self._over = True
        self.context.node.devices.release(self.uid)
        self._changed()

    async def _run_containers(self) -> None:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        for each in self.init:
            if each.sidecar:
                self._spawn(each, policy)
                while not (each.state.started or each.state.done):
                    await self.writer.next_change()
            elif not (each.state.done and each.state.succeeded):
                each.state.wait("PodInitializing")
                await self._join(self._spawn(each, policy))
                if not each.state.succeeded:
                    await self._stop_sidecars()
                    return
        for each in self.main:
            if each.state.waiting and each.state.waiting["reason"] == "PodInitializing":
                each.state.wait("ContainerCreating")
        restart = [each for each in self.main if not (each.state.done or self._lost(each, policy))]
        tasks = [self._spawn(each, policy) for each in restart]
        for task in tasks:
            await self._join(task)
        await self._stop_sidecars()

    @staticmethod
    def _lost(container: Container, policy: str) -> bool:
        """A container of an earlier kubelet that its restart policy does not bring back."""
        ended = container.state.terminated
        if ended is None or policy == "Always" or (policy == "OnFailure" and ended["exitCode"] != 0):
            return False
        container.state.done = True
        return True

    def _spawn(self, container: Container, policy: str) -> asyncio.Task[None]:
        task = asyncio.create_task(container.run(policy))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception():
            log.error("container of pod %s", self.pod["metadata"]["name"], exc_info=task.exception())

    async def _join(self, task: asyncio.Task[None]) -> None:
        # Shielded: a deadline stops containers gracefully instead of cancelling them.
        await asyncio.shield(task)

    async def _volumes(self) -> dict[str, Path]:
        meta, told = self.pod["metadata"], ""
        while True:
            try:
                self.context.sources = await self._sources()
                self.context.identity = await self._identity()
                return make_volumes(
                    self.pod,
                    self.context.folder / "volumes",
                    self.host.settings.root / "host",
                    self.context.sources,
                    self.context.ip,
                    self.host.settings.address,
                )
            except ConfigError as error:
                if str(error) != told:
                    told = str(error)
                    self.context.event("Warning", "FailedMount", told)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("pod %s/%s: %s", meta["namespace"], meta["name"], error)
            await asyncio.sleep(1.0)

    async def _sources(self) -> Sources:
        configmaps, secrets = source_names(self.pod)
        return Sources(await self._fetch(CONFIGMAPS, configmaps), await self._fetch(SECRETS, secrets))

    async def _refresh(self) -> None:
        try:
            self.context.sources = await self._sources()
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("sources of pod %s: %s", self.pod["metadata"]["name"], error)

    async def _fetch(self, resource: Resource, names: set[str]) -> dict[str, Obj]:
        result = {}
        for name in names:
            try:
                result[name] = await self.host.cache.api.get(
                    resource, self.pod["metadata"]["namespace"], name
                )
            except ApiError as error:
                if not error.not_found:
                    raise
        return result

    async def _identity(self) -> dict[str, str]:
        """Variables that the pod identity webhook would inject for the pod's service account."""
        file = self.host.settings.identity_file
        if file is None or not file.exists():
            return {}
        account = self.pod["spec"].get("serviceAccountName") or "default"
        try:
            found = await self.host.cache.api.get(SERVICEACCOUNTS, self.pod["metadata"]["namespace"], account)
        except ApiError as error:
            if error.not_found:
                return {}
            raise
        if ROLE not in (found["metadata"].get("annotations") or {}):
            return {}
        lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    # -- end -------------------------------------------------------------------------------------------
    # ---------------

    async def _stop_sidecars(self) -> None:
        """In reverse order of their start, as the kubelet does."""
        grace = float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        for each in reversed(self.init):
            if each.sidecar:
                await each.stop(grace)

    async def _stop_all(self, grace: float) -> None:
        others = [each for each in self.containers if not each.sidecar]
        await asyncio.gather(*(each.stop(grace) for each in others))
        for each in reversed(self.init):
            if each.sidecar:
                await each.stop(grace)
        # What waited (for an image, out of a crash) has ended too.
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _terminate(self) -> None:
        """Graceful deletion: stop, report, confirm to the API server."""
        meta = self.pod["metadata"]
        grace = float(meta.get("deletionGracePeriodSeconds", 30))
        await self._stop_all(grace)
        if self._life:
            # Whatever it still waits for (a volume, a sidecar's start) will not come any more.
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
        for state in [*self.state.init, *self.state.main]:
            state.done = True
        self.context.node.devices.release(self.uid)
        await self.writer.flush()
        pause = 0.1
        while True:
            try:
                await self.host.cache.api.delete(PODS, meta["namespace"], meta["name"], uid=self.uid, grace=0)
                return
            except ApiError as error:
                if error.not_found or error.conflict:
                    return
                log.warning("deletion of pod %s/%s: %s", meta["namespace"], meta["name"], error)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("deletion of pod %s/%s: %r", meta["namespace"], meta["name"], error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    def _remove_files(self) -> None:
        shutil.rmtree(self.context.folder, ignore_errors=True)
        shutil.rmtree(self.context.logs, ignore_errors=True)
