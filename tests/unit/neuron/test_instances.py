"""Every row of the published tables of instances is answered from the code; so is where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trainyard.errors import Refused
from trainyard.neuron.instances import (
    INSTANCES,
    NODEPOOLS,
    ULTRASERVER_HOSTS,
    chips_for,
    instance,
    nodes_for,
    pods_per_node,
)

# As published: chips, cores, accelerator memory in GB, vCPU, memory in GiB, network.
PUBLISHED = """
inf2.xlarge    | 1  | 2   | 32   | 4   | 16   | Up to 15 Gbps
inf2.8xlarge   | 1  | 2   | 32   | 32  | 128  | Up to 25 Gbps
inf2.24xlarge  | 6  | 12  | 192  | 96  | 384  | 50 Gbps
inf2.48xlarge  | 12 | 24  | 384  | 192 | 768  | 100 Gbps
trn1.2xlarge   | 1  | 2   | 32   | 8   | 32   | Up to 12.5 Gbps
trn1.32xlarge  | 16 | 32  | 512  | 128 | 512  | 800 Gbps
trn1n.32xlarge | 16 | 32  | 512  | 128 | 512  | 1600 Gbps
trn2.48xlarge  | 16 | 128 | 1536 | 192 | 2048 | 3200 Gbps
"""
ROWS = [[cell.strip() for cell in line.split("|")] for line in PUBLISHED.strip().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_published_row_is_what_the_code_says(row: list[str]) -> None:
    kind = instance(row[0])
    found = [kind.chips, kind.physical_cores, kind.hbm_gb, kind.vcpus, kind.memory_gib]
    assert [*map(str, found), kind.network] == row[1:]


def test_an_ultraserver_is_four_hosts_with_64_chips_512_cores_and_6_tb() -> None:
    host = instance("trn2u.48xlarge")
    assert ULTRASERVER_HOSTS * host.chips == 64
    assert ULTRASERVER_HOSTS * host.physical_cores == 512
    assert ULTRASERVER_HOSTS * host.hbm_gb == 6144


def test_a_trn2_3xlarge_is_one_chip_with_four_logical_cores() -> None:
    kind = instance("trn2.3xlarge")
    assert (kind.chips, kind.cores(2), kind.cores(1), kind.vcpus, kind.memory_gib) == (1, 4, 8, 12, 128)


@pytest.mark.parametrize(
    ("name", "cores", "hbm_gb", "auto_mode"),
    [("trn1.32xlarge", 32, 512, True), ("trn2.48xlarge", 64, 1536, False)],
)
def test_the_guides_table_of_trainium_instances_is_answered(
    name: str, cores: int, hbm_gb: int, auto_mode: bool
) -> None:
    kind = instance(name)
    assert kind.chips == 16
    assert kind.cores(kind.default_lnc) == cores
    assert kind.hbm_gb == hbm_gb
    assert kind.auto_mode is auto_mode


def test_the_device_plugin_says_64_cores_of_trn2_by_default_not_128() -> None:
    # A published table says 128, which is what LNC=1 gives.
    kind = instance("trn2.48xlarge")
    assert kind.advertised() == {"aws.amazon.com/neuron": 16, "aws.amazon.com/neuroncore": 64}
    assert kind.advertised(lnc=1)["aws.amazon.com/neuroncore"] == 128
    assert instance("trn1.32xlarge").advertised()["aws.amazon.com/neuroncore"] == 32


def test_the_device_files_are_no_resource_any_more() -> None:
    for kind in INSTANCES.values():
        assert "aws.amazon.com/neurondevice" not in kind.advertised()


@pytest.mark.parametrize(
    ("name", "lnc", "gigabytes"),
    [("trn2.48xlarge", 2, 24), ("trn2.48xlarge", 1, 12), ("trn1.32xlarge", 1, 16), ("inf2.xlarge", 1, 16)],
)
def test_a_logical_core_has_its_part_of_the_chips_memory(name: str, lnc: int, gigabytes: int) -> None:
    assert instance(name).hbm_bytes_per_core(lnc) == gigabytes * 10**9


@pytest.mark.parametrize(
    ("tp", "name", "lnc", "chips"),
    [
        (64, "trn2.48xlarge", 2, 16),
        (16, "trn2.48xlarge", 2, 4),  # 16 cores are no 16 chips
        (1, "trn2.48xlarge", 2, 1),
        (128, "trn2.48xlarge", 1, 16),
        (32, "trn1.32xlarge", 1, 16),
        (24, "inf2.48xlarge", 1, 12),
    ],
)
def test_chips_follow_from_cores(tp: int, name: str, lnc: int, chips: int) -> None:
    assert chips_for(tp, instance(name), lnc) == chips


@pytest.mark.parametrize("kind", INSTANCES.values(), ids=INSTANCES)
def test_every_row_is_complete_and_like_itself(kind: object) -> None:
    from trainyard.neuron.instances import Instance

    assert isinstance(kind, Instance)
    assert kind.name.startswith(f"{kind.family}.")
    assert kind.target == ("trn2" if kind.chip == "trainium2" else "trn1")
    assert kind.default_lnc in kind.lncs
    assert all(kind.physical_cores_per_chip % lnc == 0 for lnc in kind.lncs)
    assert 0 < kind.usable_memory_bytes < kind.memory_gib * 2**30
    assert (kind.nvme_count > 0) == (kind.nvme_gb > 0)
    assert kind.bought
    assert kind.network.endswith("Gbps")


def test_inferentia_and_the_first_trainium_compile_for_the_same_core() -> None:
    assert {kind.target for kind in INSTANCES.values() if kind.family in ("inf2", "trn1", "trn1n")} == {
        "trn1"
    }


# karpenter-provider-aws's documentation, "Resources": memory in Mi that pods can have.
@pytest.mark.parametrize(
    ("name", "allocatable"),
    [
        ("inf2.xlarge", 14162),
        ("inf2.8xlarge", 118312),
        ("inf2.24xlarge", 355262),
        ("inf2.48xlarge", 718987),
        ("trn1.2xlarge", 29317),
        ("trn1.32xlarge", 481894),
        ("trn1n.32xlarge", 481894),
        ("trn2.48xlarge", 1938410),
    ],
)
def test_a_node_has_the_memory_for_pods_that_karpenter_says(name: str, allocatable: int) -> None:
    assert instance(name).allocatable_memory_bytes >> 20 == allocatable


def test_every_instance_type_has_a_nodepool_that_the_cluster_deploys() -> None:
    text = (Path(__file__).parents[3] / "deploy" / "cluster" / "base" / "capacity.yaml").read_text()
    deployed = {
        document["metadata"]["name"]
        for document in yaml.safe_load_all(text)
        if document["kind"] == "NodePool"
    }
    assert deployed == NODEPOOLS
    assert instance("trn1n.32xlarge").nodepool == "neuron-trn1"
    assert instance("trn2u.48xlarge").nodepool == "neuron-trn2"


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Refused, match=r"p5\.48xlarge.*trn2\.48xlarge"):
        instance("p5.48xlarge")


def test_pods_of_a_node_are_counted_by_what_runs_out_first() -> None:
    kind = instance("trn2.48xlarge")
    gib = 2**30
    assert pods_per_node(kind, chips=4) == 4
    assert pods_per_node(kind, chips=4, memory_bytes=900 * gib) == 2
    assert pods_per_node(kind, chips=4, memory_bytes=64 * gib, cpus=100) == 1
    assert nodes_for(kind, 3, chips=4, memory_bytes=900 * gib) == 2
    assert nodes_for(kind, 1, chips=16) == 1
    assert nodes_for(kind, 2, chips=16) == 2
    assert nodes_for(kind, 2, chips=1, memory_bytes=4000 * gib) == 2  # refused elsewhere, and still a number
