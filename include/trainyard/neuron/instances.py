"""Neuron instance types: chips, cores, memory, network, and how they are bought.

`hbm_gb_per_chip` counts GB of 10**9 bytes. AWS prints the same number sometimes as GB, sometimes as GiB (the
chips hold 7 % more); a preflight takes the smaller.
TP counts *logical* cores: on trn2 two physical cores make one by default (LNC=2).

Source: the EC2 product pages and user guide, karpenter-provider-aws's tables of instance types (allocatable
memory, pods, network), and the Neuron SDK 2.32 documentation (device memory, LNC). Of trn2.3xlarge, the disk
and the number of pods are not published there: they are taken to be small. `auto_mode` is the EKS guide's
word for trn1 and inf2, and awslabs/ai-on-eks's for trn2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainyard.errors import Problem, Refused

# What neuronx-cc compiles for: Inferentia2 and Trainium1 have the same core.
Target = Literal["trn1", "trn2"]

# Karpenter keeps a part of EC2's memory for the hypervisor (VM_MEMORY_OVERHEAD_PERCENT), the node as much for
# each pod that it could have, and its DaemonSets (CNI, device plugin, monitor) need some of the rest.
_MIB = 2**20
_KEPT_BY_VM = 0.075
_KEPT_BY_NODE, _KEPT_BY_POD, _KEPT_BY_DAEMONS = 355 * _MIB, 11 * _MIB, 512 * _MIB
_KEPT_CPUS = 1


@dataclass(frozen=True)
class Instance:
    name: str
    family: str  # Karpenter's karpenter.k8s.aws/instance-family
    chip: str  # inferentia2, trainium1, trainium2
    target: Target
    chips: int  # what the device plugin advertises as aws.amazon.com/neuron
    physical_cores_per_chip: int
    lncs: tuple[int, ...]  # physical cores that can make one logical core; the first is the default
    hbm_gb_per_chip: int
    vcpus: int
    memory_gib: int
    nvme_count: int
    nvme_gb: int  # each
    network: str  # as AWS prints it; "up to" is a burst
    pods: int  # that a node takes at most: its network interfaces have so many addresses
    efa: int  # EFA interfaces, 0: none
    auto_mode: bool  # EKS Auto Mode brings such nodes
    spot: bool  # sold as spot in some region
    bought: str  # how, beside on-demand

    @property
    def nodepool(self) -> str:
        """The NodePool of deploy/cluster for its chips."""
        return f"neuron-{self.family.rstrip('nu')}"

    @property
    def default_lnc(self) -> int:
        return self.lncs[0]

    @property
    def hbm_gb(self) -> int:
        return self.chips * self.hbm_gb_per_chip

    @property
    def physical_cores(self) -> int:
        return self.chips * self.physical_cores_per_chip

    @property
    def allocatable_memory_bytes(self) -> int:
        """What Karpenter and the kubelet say that pods can have."""
        kept = _KEPT_BY_NODE + self.pods * _KEPT_BY_POD
        return int(self.memory_gib * 2**30 * (1 - _KEPT_BY_VM)) - kept

    @property
    def usable_memory_bytes(self) -> int:
        """What pods of ours can have of the host's memory."""
        return self.allocatable_memory_bytes - _KEPT_BY_DAEMONS

    @property
    def usable_cpus(self) -> int:
        return self.vcpus - _KEPT_CPUS

    def cores_per_chip(self, lnc: int) -> int:
        return self.physical_cores_per_chip // lnc

    def cores(self, lnc: int) -> int:
        return self.chips * self.cores_per_chip(lnc)

    def hbm_bytes_per_core(self, lnc: int) -> int:
        return self.hbm_gb_per_chip * 10**9 // self.cores_per_chip(lnc)

    def advertised(self, lnc: int | None = None) -> dict[str, int]:
        """What the device plugin says a node has. `aws.amazon.com/neurondevice` ended with SDK 2.22."""
        return {
            "aws.amazon.com/neuron": self.chips,
            "aws.amazon.com/neuroncore": self.cores(lnc or self.default_lnc),
        }


_INF2, _TRN1, _TRN2 = (
    ("inferentia2", "trn1"),
    ("trainium1", "trn1"),
    ("trainium2", "trn2"),
)
_BLOCKS = "Capacity Blocks for ML, or a capacity reservation"


def _inf2(size: str, chips: int, vcpus: int, memory: int, network: str, pods: int) -> Instance:
    return Instance(
        f"inf2.{size}", "inf2", "inferentia2", "trn1", chips, 2, (1,), 32, vcpus, memory, 0, 0, network, pods,
        0, True, True, "Savings Plans, capacity reservations",
    )  # fmt: skip


def _trn1(
    name: str,
    chips: int,
    vcpus: int,
    memory: int,
    nvme: tuple[int, int],
    network: str,
    pods: int,
    efa: int,
) -> Instance:
    return Instance(
        name, name.partition(".")[0], "trainium1", "trn1", chips, 2, (1,), 32, vcpus, memory, *nvme, network,
        pods, efa, True, True, _BLOCKS if chips > 1 else "Savings Plans, capacity reservations",
    )  # fmt: skip


def _trn2(
    name: str,
    chips: int,
    vcpus: int,
    memory: int,
    nvme: tuple[int, int],
    network: str,
    pods: int,
    efa: int,
    spot: bool,
) -> Instance:
    return Instance(
        name, name.partition(".")[0], "trainium2", "trn2", chips, 8, (2, 1), 96, vcpus, memory, *nvme,
        network, pods, efa, False, spot, _BLOCKS,
    )  # fmt: skip


INSTANCES: dict[str, Instance] = {
    row.name: row
    for row in (
        _inf2("xlarge", 1, 4, 16, "Up to 15 Gbps", 58),
        _inf2("8xlarge", 1, 32, 128, "Up to 25 Gbps", 234),
        _inf2("24xlarge", 6, 96, 384, "50 Gbps", 737),
        _inf2("48xlarge", 12, 192, 768, "100 Gbps", 737),
        _trn1("trn1.2xlarge", 1, 8, 32, (1, 474), "Up to 12.5 Gbps", 58, 0),
        _trn1("trn1.32xlarge", 16, 128, 512, (4, 1900), "800 Gbps", 247, 8),
        _trn1("trn1n.32xlarge", 16, 128, 512, (4, 1900), "1600 Gbps", 247, 16),
        _trn2("trn2.3xlarge", 1, 12, 128, (1, 470), "200 Gbps", 100, 1, True),
        _trn2("trn2.48xlarge", 16, 192, 2048, (4, 1920), "3200 Gbps", 100, 16, True),
        # One host of an UltraServer: four of them, joined by NeuronLink, are 64 chips with 6 TB. A pod runs
        # on one host.
        _trn2("trn2u.48xlarge", 16, 192, 2048, (4, 1920), "3200 Gbps", 100, 16, False),
    )
}
ULTRASERVER_HOSTS = 4
# Those of deploy/cluster: each has the instance types of one chip. Others are somebody's own.
NODEPOOLS = frozenset(kind.nodepool for kind in INSTANCES.values())


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


def pods_per_node(kind: Instance, chips: int, memory_bytes: int = 0, cpus: int = 0) -> int:
    """How many like pods one node takes, by chips, host memory and CPUs; 0: not even one."""
    return min(
        kind.chips // max(1, chips),
        kind.usable_memory_bytes // max(1, memory_bytes),
        kind.usable_cpus // max(1, cpus),
    )


def nodes_for(kind: Instance, pods: int, chips: int, memory_bytes: int = 0, cpus: int = 0) -> int:
    """Nodes that hold so many like pods; a pod that fits none counts one."""
    return -(-pods // max(1, pods_per_node(kind, chips, memory_bytes, cpus)))
