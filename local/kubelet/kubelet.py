"""The node agent: nodes from NodeClaims, workers for the pods bound to them."""

from __future__ import annotations

import asyncio
import json
import logging

from local.client.kinds import NODECLAIMS, NODES, PODS, Obj
from local.client.objects import deleting, is_true
from local.kubelet.addresses import Addresses
from local.kubelet.context import Host
from local.kubelet.node import Node, NodeSpec, claimed_node, node_name, system_node
from local.kubelet.pod import PodWorker

log = logging.getLogger(__name__)


class Kubelet:
    """All nodes and pods of this process."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.nodes: dict[str, Node] = {}
        self.workers: dict[str, PodWorker] = {}
        self._addresses = Addresses(host.settings.pod_cidr, str(host.settings.root))
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._vanishing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin with the static node and follow NodeClaims, Nodes and pods."""
        cache = self.host.cache
        self._add_node(system_node(), 0.0)
        cache.of(NODECLAIMS).on_change(self._claim_changed)
        cache.of(NODES).on_change(self._node_changed)
        cache.of(PODS).on_change(self._pod_changed)

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        """The newest pod of that name."""
        for each in reversed(list(self.workers.values())):
            meta = each.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, name):
                return each
        return None

    def kill_all(self) -> None:
        for each in self.workers.values():
            each.kill()

    # -- nodes -----------------------------------------------------------------------------------------
    # ---------------

    def _add_node(self, spec: NodeSpec, delay: float) -> None:
        if spec.name in self.nodes:
            return
        node = self.nodes[spec.name] = Node(self.host.cache, self.host.settings, spec)

        async def live() -> None:
            await asyncio.sleep(delay)
            await node.run()

        self._tasks[spec.name] = asyncio.create_task(live(), name=f"node {spec.name}")
        for pod in self.host.cache.of(PODS).items():
            self._pod_changed(None, pod)

    def _claim_changed(self, old: Obj | None, new: Obj | None) -> None:
        claim = new or old
        assert claim is not None
        provider = (claim.get("status") or {}).get("providerID")
        if new is None:
            # The instance is gone, and with it everything that ran there.
            if provider and node_name(provider) in self.nodes:
                self._drop_node(node_name(provider))
            return
        if deleting(new) or not is_true(new, "Launched"):
            return
        faults = json.loads(
            (new["metadata"].get("annotations") or {}).get("local.trainyard.dev/faults") or "{}"
        )
        spec = claimed_node(new)
        if spec and not faults.get("never_register"):
            self._add_node(spec, self.host.settings.register_seconds)

    def _node_changed(self, old: Obj | None, new: Obj | None) -> None:
        """A Node that someone deletes while its machine lives is registered again, except when its claim goes
        too.
        """
        if new is not None and not is_true(new, "Ready") and new["metadata"]["name"] in self.nodes:
            self.nodes[new["metadata"]["name"]].doubted.set()
        if new is not None or old is None:
            return
        name = old["metadata"]["name"]
        node = self.nodes.get(name)
        if node is None:
            return
        claim = self._claim_of(node)
        if node.spec.provider_id and (claim is None or deleting(claim)):
            self._drop_node(name)
        else:
            self._drop_node(name, pods=False)
            self._add_node(node.spec, 1.0)

    def _claim_of(self, node: Node) -> Obj | None:
        for claim in self.host.cache.of(NODECLAIMS).items():
            if (claim.get("status") or {}).get("providerID") == node.spec.provider_id:
                return claim
        return None

    def _drop_node(self, name: str, *, pods: bool = True) -> None:
        self.nodes.pop(name, None)
        task = self._tasks.pop(name, None)
        if task:
            task.cancel()
        if pods:
            for uid, worker in list(self.workers.items()):
                if worker.context.node.name == name:
                    self._remove(uid)

    # -- pods ------------------------------------------------------------------------------------------
    # ---------------

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        assert pod is not None
        uid = pod["metadata"]["uid"]
        if new is None:
            self._remove(uid)
        elif uid in self.workers:
            self.workers[uid].update(new)
        elif (node := self.nodes.get(new["spec"].get("nodeName", ""))) is not None:
            ip = self._addresses.take((new.get("status") or {}).get("podIP"))
            worker = self.workers[uid] = PodWorker(self.host, node.context, new, ip)
            worker.start()

    def _remove(self, uid: str) -> None:
        worker = self.workers.pop(uid, None)
        if worker is None:
            return
        task = asyncio.create_task(worker.vanish())
        self._vanishing.add(task)

        def done(finished: asyncio.Task[None]) -> None:
            self._vanishing.discard(finished)
            self._addresses.give_back(worker.context.ip)

        task.add_done_callback(done)
