"""Neuron instance types: chips, logical cores, vCPUs, memory (AWS's published figures; trn2 at its default
LNC=2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from local.client.quantity import Resources

NEURON = "aws.amazon.com/neuron"
NEURONCORE = "aws.amazon.com/neuroncore"
# trn1n is generation 1 of trn, trn2u generation 2.
_SERIES = re.compile(r"([a-z]+)([0-9]+)")


@dataclass(frozen=True)
class InstanceType:
    """One EC2 instance type. `cores` are logical NeuronCores, `memory` is in GiB, `hourly` orders types by
    price.
    """

    name: str
    chips: int
    cores: int
    vcpus: int
    memory: int
    hourly: float
    zones: tuple[str, ...] = ("us-east-2a", "us-east-2b", "us-east-2c")

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]

    @property
    def size(self) -> str:
        return self.name.partition(".")[2]

    def labels(self) -> dict[str, str]:
        """Node labels that Karpenter sets for the type."""
        category, generation = _SERIES.findall(self.family)[0]
        return {
            "node.kubernetes.io/instance-type": self.name,
            "karpenter.k8s.aws/instance-family": self.family,
            "karpenter.k8s.aws/instance-size": self.size,
            "karpenter.k8s.aws/instance-category": category,
            "karpenter.k8s.aws/instance-generation": generation,
            "karpenter.k8s.aws/instance-cpu": str(self.vcpus),
            "karpenter.k8s.aws/instance-memory": str(self.memory * 1024),
            "karpenter.k8s.aws/instance-accelerator-count": str(self.chips),
            "karpenter.k8s.aws/instance-accelerator-manufacturer": "aws",
            "karpenter.k8s.aws/instance-accelerator-name": "inferentia"
            if self.family == "inf2"
            else "trainium",
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux",
        }

    def capacity(self) -> Resources:
        """What the machine has, Neuron devices included."""
        gib = Decimal(2**30)
        return {
            "cpu": Decimal(self.vcpus),
            "memory": self.memory * gib,
            "ephemeral-storage": 500 * gib,
            "pods": Decimal(110),
            NEURON: Decimal(self.chips),
            NEURONCORE: Decimal(self.cores),
        }

    def allocatable(self) -> Resources:
        """Capacity less what the system keeps: 250 millicores, and memory as the EKS image reserves it."""
        reserved_memory = Decimal((255 + 11 * 110 + 100) * 2**20)
        result = self.capacity()
        result["cpu"] -= Decimal("0.25")
        result["memory"] -= reserved_memory
        return result


_TYPES = (
    InstanceType("inf2.xlarge", 1, 2, 4, 16, 0.76),
    InstanceType("trn1.2xlarge", 1, 2, 8, 32, 1.34),
    InstanceType("inf2.8xlarge", 1, 2, 32, 128, 1.97),
    InstanceType("trn2.3xlarge", 1, 4, 12, 128, 2.24),
    InstanceType("inf2.24xlarge", 6, 12, 96, 384, 6.49),
    InstanceType("inf2.48xlarge", 12, 24, 192, 768, 12.98),
    InstanceType("trn1.32xlarge", 16, 32, 128, 512, 21.50),
    InstanceType("trn1n.32xlarge", 16, 32, 128, 512, 24.78),
    InstanceType("trn2.48xlarge", 16, 64, 192, 2048, 35.76),
    # One host of an UltraServer. Its price is not published: a little more, so that it is never the cheapest.
    InstanceType("trn2u.48xlarge", 16, 64, 192, 2048, 35.77),
)
INSTANCE_TYPES: dict[str, InstanceType] = {each.name: each for each in _TYPES}
"""All known types, cheapest first."""
