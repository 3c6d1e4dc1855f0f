"""Neuron instance types: chips, logical cores, memory.

Source: AWS product pages and the Neuron SDK 2.32 docs. `hbm_gb` is per chip, in GB (10**9 bytes) as AWS
prints it.
TP counts *logical* cores: on trn2 two physical cores make one (LNC=2, the default; optimum supports no
other).
"""

from __future__ import annotations

from dataclasses import dataclass

from trainyard.errors import Problem, Refused


@dataclass(frozen=True)
class Instance:
    name: str
    family: str  # trn1, trn1n, trn2, inf2: Karpenter's karpenter.k8s.aws/instance-family
    chips: int  # what the device plugin advertises as aws.amazon.com/neuron
    physical_cores_per_chip: int
    default_lnc: int  # physical cores that make one logical core
    hbm_gb_per_chip: int
    vcpus: int
    memory_gib: int

    def cores_per_chip(self, lnc: int) -> int:
        return self.physical_cores_per_chip // lnc

    def cores(self, lnc: int) -> int:
        return self.chips * self.cores_per_chip(lnc)

    def hbm_bytes_per_core(self, lnc: int) -> int:
        return self.hbm_gb_per_chip * 10**9 // self.cores_per_chip(lnc)


def _table() -> dict[str, Instance]:
    rows = [
        Instance("trn2.48xlarge", "trn2", 16, 8, 2, 96, 192, 2048),
        Instance("trn2.3xlarge", "trn2", 1, 8, 2, 96, 12, 128),
        Instance("trn1.2xlarge", "trn1", 1, 2, 1, 32, 8, 32),
        Instance("trn1.32xlarge", "trn1", 16, 2, 1, 32, 128, 512),
        Instance("trn1n.32xlarge", "trn1n", 16, 2, 1, 32, 128, 512),
        Instance("inf2.xlarge", "inf2", 1, 2, 1, 32, 4, 16),
        Instance("inf2.8xlarge", "inf2", 1, 2, 1, 32, 32, 128),
        Instance("inf2.24xlarge", "inf2", 6, 2, 1, 32, 96, 384),
        Instance("inf2.48xlarge", "inf2", 12, 2, 1, 32, 192, 768),
    ]
    return {row.name: row for row in rows}


INSTANCES = _table()


def instance(name: str) -> Instance:
    """Looks an instance type up. Raises Refused with the known names."""
    try:
        return INSTANCES[name]
    except KeyError:
        raise Refused(
            Problem(
                "hardware.instance_type",
                name,
                "not a Neuron instance type that Trainyard knows",
                f"Use one of {', '.join(sorted(INSTANCES))}.",
            )
        ) from None


def chips_for(tensor_parallel: int, kind: Instance, lnc: int) -> int:
    """Chips that hold `tensor_parallel` logical cores. Pods ask for chips only (aws.amazon.com/neuron):
    Karpenter models neuroncore by physical cores and would buy the wrong node."""
    return -(-tensor_parallel // kind.cores_per_chip(lnc))
