"""Which Neuron devices this process has, read from LOCAL_SILICON; figures of the hardware: neuron.md, 5."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

GIB = 1024**3
# Physical cores and HBM of a chip, by family. trn2 groups two physical cores into a logical one (LNC=2).
CORES_PER_DEVICE = {"trn2": 8, "trn2u": 8, "trn1": 2, "trn1n": 2, "inf2": 2}
MEMORY_PER_DEVICE = {
    "trn2": 96 * GIB,
    "trn2u": 96 * GIB,
    "trn1": 32 * GIB,
    "trn1n": 32 * GIB,
    "inf2": 32 * GIB,
}
LOGICAL_NEURONCORE = {"trn2": 2, "trn2u": 2, "trn1": 1, "trn1n": 1, "inf2": 1}
# What the compiler calls the families.
TARGETS = {"trn2": "trn2", "trn2u": "trn2", "trn1": "trn1", "trn1n": "trn1", "inf2": "trn1"}


@dataclass(frozen=True)
class Silicon:
    """The devices of this container; `devices` are indices on the node."""

    instance_type: str = ""
    devices: tuple[int, ...] = ()
    node: str = ""

    @property
    def present(self) -> bool:
        return bool(self.devices)

    @property
    def family(self) -> str:
        """`trn2` of `trn2.48xlarge`."""
        return self.instance_type.split(".")[0]

    @property
    def target(self) -> str:
        """The compilation target, as optimum-neuron normalizes instance types."""
        return TARGETS.get(self.family, self.family)

    @property
    def logical_neuroncore(self) -> int:
        return LOGICAL_NEURONCORE.get(self.family, 1)

    @property
    def cores_per_device(self) -> int:
        """Logical cores of a chip: what tensor parallelism counts."""
        return CORES_PER_DEVICE.get(self.family, 2) // self.logical_neuroncore

    @property
    def memory_per_device(self) -> int:
        """Bytes of HBM of a chip."""
        return MEMORY_PER_DEVICE.get(self.family, 32 * GIB)

    def available_cores(self, environment: Mapping[str, str] | None = None) -> int:
        """Logical cores that NEURON_RT_NUM_CORES and NEURON_RT_VISIBLE_CORES ("4", "0-3", "0,2") leave."""
        given = os.environ if environment is None else environment
        most = len(self.devices) * self.cores_per_device
        cores = min(int(given.get("NEURON_RT_NUM_CORES", most)), most)
        visible = given.get("NEURON_RT_VISIBLE_CORES")
        if visible is None:
            return cores
        # Visible cores win over their number (neuron.md, 3).
        counted = 0
        for part in visible.split(","):
            first, _, last = part.partition("-")
            counted += int(last) - int(first) + 1 if last else 1
        return min(counted, most)


def silicon(environment: Mapping[str, str] | None = None) -> Silicon:
    """The devices of LOCAL_SILICON; none when it is unset."""
    given = os.environ if environment is None else environment
    content = json.loads(given.get("LOCAL_SILICON") or "{}")
    return Silicon(
        instance_type=content.get("instance_type", ""),
        devices=tuple(content.get("devices", ())),
        node=content.get("node", ""),
    )
