"""Neuron devices of one node, handed out by index as a device plugin does."""

from __future__ import annotations


class Devices:
    """Which pod holds which devices. A pod's init containers use the same ones as its containers."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._held: dict[str, dict[str, list[int]]] = {}

    def allocate(self, pod: str, container: str, number: int, *, init: bool = False) -> list[int]:
        """The container's devices, the same ones again after a restart; raises RuntimeError when too few are
        free.
        """
        mine = self._held.setdefault(pod, {})
        key = f"init:{container}" if init else container
        if key in mine:
            return mine[key]
        others = {
            index
            for other, held in self._held.items()
            if other != pod
            for each in held.values()
            for index in each
        }
        # What the pod's init containers held is free again for its containers.
        taken = (
            set()
            if init
            else {index for name, held in mine.items() if not name.startswith("init:") for index in held}
        )
        reuse = {index for name, held in mine.items() if name.startswith("init:") for index in held} - taken
        free = sorted(set(range(self.count)) - others - taken, key=lambda index: (index not in reuse, index))
        if len(free) < number:
            raise RuntimeError(
                f"Allocate failed due to requested number of devices unavailable for aws.amazon.com/neuron. "
                f"Requested: {number}, Available: {len(free)}, which is unexpected"
            )
        mine[key] = sorted(free[:number])
        return mine[key]

    def release(self, pod: str) -> None:
        self._held.pop(pod, None)
