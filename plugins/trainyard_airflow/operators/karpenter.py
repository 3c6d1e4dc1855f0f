"""Operators that wait for Karpenter, for any DAG. `docs/operators.md` has an example of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from trainyard.kube.offerings import Offering, offering_from
from trainyard_airflow.operators.waiting import WatcherSensor

__all__ = [
    "KarpenterCapacityOperator",
    "KarpenterNodeClaimSensor",
    "KarpenterNodePoolReadyOperator",
    "Offering",
]


class KarpenterNodePoolReadyOperator(WatcherSensor):
    """Waits until a NodePool and its EC2NodeClass are ready; says which condition is not, and why.

    Returns `{"note", "conditions": {"NodePool": {type: status}, "EC2NodeClass": {...}}}`. Fails at once where
    either does not exist.
    """

    template_fields: Sequence[str] = ("nodepool", "kubernetes_conn_id")
    watcher = "nodepool_ready"

    def __init__(self, *, nodepool: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nodepool = nodepool

    def arguments(self) -> dict[str, Any]:
        return {"nodepool": self.nodepool}


class KarpenterCapacityOperator(WatcherSensor):
    """Waits until Neuron chips can be had from a NodePool, and chooses how.

    With `order`, takes the first offering that the NodePool's requirements permit, that is within its limits
    (a whole node counts), that EC2 did not lack in the last three minutes (Karpenter tries again after that),
    and whose reservation lasts as long as the work. A running node with free chips needs none of the last
    three. Returns the choice with `node_selector`, and under `fallen` why each earlier one is not open. Fails
    at once where no offering can ever do; ends as NoCapacity when time is up.

    Without `order` it asks only whether the NodePool has room.

    :param chips: aws.amazon.com/neuron that one pod asks for.
    :param order: offerings, or dicts or instance types alone.
    :param work: how long the node is needed, from now; seconds or a timedelta.
    """

    template_fields: Sequence[str] = ("nodepool", "chips", "order", "work", "kubernetes_conn_id")
    watcher = "capacity_free"

    def __init__(
        self,
        *,
        nodepool: str,
        chips: int | str,
        order: Sequence[Offering | Mapping[str, Any] | str] = (),
        work: timedelta | float | str = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.nodepool, self.chips = nodepool, chips
        # Templates are filled into plain values only.
        self.order = (
            [asdict(each) if isinstance(each, Offering) else each for each in order]
            if isinstance(order, list | tuple)
            else order  # another task's XCom, known when it runs
        )
        self.work = work.total_seconds() if isinstance(work, timedelta) else work

    def arguments(self) -> dict[str, Any]:
        return {
            "nodepool": self.nodepool,
            "chips": int(self.chips),
            "order": [asdict(offering_from(each)) for each in self.order],
            "work_seconds": float(self.work),
        }


class KarpenterNodeClaimSensor(WatcherSensor):
    """Follows a NodeClaim until it is Launched, Registered, Initialized or Ready; says what it waits for.

    Name exactly one: the claim, labels (the newest claim that has them), or the pod that the node is for. A
    claim that finds no capacity is deleted by Karpenter, which makes another: by labels or pod it is followed
    on, by name that is a failure.

    :param until: Launched, Registered, Initialized or Ready.
    :param chips: that its node has to offer besides, when `until` is Initialized or Ready.
    """

    template_fields: Sequence[str] = (
        "nodeclaim",
        "labels",
        "pod",
        "namespace",
        "until",
        "kubernetes_conn_id",
    )
    watcher = "nodeclaim"

    def __init__(
        self,
        *,
        nodeclaim: str = "",
        labels: str = "",
        pod: str = "",
        namespace: str = "default",
        until: str = "Ready",
        chips: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if sum(map(bool, (nodeclaim, labels, pod))) != 1:
            raise ValueError("Name one of nodeclaim, labels and pod: they choose the NodeClaim to follow.")
        stages = ("Launched", "Registered", "Initialized", "Ready")
        if until not in stages and "{{" not in until:
            raise ValueError(f"until = {until!r}: a NodeClaim gets {', '.join(stages)}.")
        self.nodeclaim, self.labels, self.pod, self.namespace = nodeclaim, labels, pod, namespace
        self.until, self.chips = until, chips

    def arguments(self) -> dict[str, Any]:
        return {
            "name": self.nodeclaim,
            "labels": self.labels,
            "pod": self.pod,
            "namespace": self.namespace,
            "until": self.until,
            "chips": self.chips,
        }
