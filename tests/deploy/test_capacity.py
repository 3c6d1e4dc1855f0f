"""NodePools, the EC2NodeClass and priorities: what costs money, and who waits for whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from local.client.instances import INSTANCE_TYPES
from tests.support.manifests import CLUSTER, ROOT, composed, of_kind, rendered
from trainyard import catalogue
from trainyard.kube.requirements import labels_of, refusal, requirements_of
from trainyard.neuron.instances import INSTANCES
from trainyard.spec import Request

POOLS = ("neuron-trn2", "neuron-trn1", "neuron-inf2")
TYPE, CAPACITY = "node.kubernetes.io/instance-type", "karpenter.sh/capacity-type"


def values(pool: dict[str, Any], key: str) -> list[str]:
    found = [each for each in pool["spec"]["template"]["spec"]["requirements"] if each["key"] == key]
    assert [each["operator"] for each in found] == ["In"]
    return list(found[0]["values"])


@pytest.mark.parametrize("name", POOLS)
def test_neuron_nodes_repel_everything_else_and_cannot_grow_without_limit(name: str) -> None:
    pool = of_kind(rendered("base"), "NodePool")[name]
    spec, largest = pool["spec"], max(INSTANCE_TYPES[each].chips for each in values(pool, TYPE))

    assert {"key": "aws.amazon.com/neuron", "effect": "NoSchedule"} in spec["template"]["spec"]["taints"]
    assert list(spec["limits"]) == ["aws.amazon.com/neuron"]
    assert int(spec["limits"]["aws.amazon.com/neuron"]) >= 2 * largest, (
        "no room for a canary beside its stable"
    )
    assert spec["disruption"]["consolidationPolicy"] == "WhenEmpty"
    assert spec["template"]["spec"]["nodeClassRef"]["name"] == "neuron"


def test_each_pool_buys_its_own_family_and_all_families_have_one() -> None:
    pools = of_kind(rendered("base"), "NodePool")
    bought = {name: values(pool, TYPE) for name, pool in pools.items()}

    assert set(pools) == set(POOLS)
    for name, types in bought.items():
        family = name.removeprefix("neuron-")
        assert all(each.startswith(family) for each in types)
    for_sale = {each for types in bought.values() for each in types}
    assert set(INSTANCE_TYPES) - for_sale <= {"trn2u.48xlarge"}, "sold as a reservation only"


@pytest.mark.parametrize("name", catalogue.names(ROOT / "include" / "releases"))
def test_every_entry_of_the_catalogue_has_a_pool_that_buys_its_nodes(name: str) -> None:
    spec = catalogue.resolve(ROOT / "include" / "releases", Request(release=name))
    pool = of_kind(rendered("base"), "NodePool")[spec.hardware.nodepool]
    limit = int(pool["spec"]["limits"]["aws.amazon.com/neuron"])

    assert refusal(requirements_of(pool), labels_of(spec.hardware.instance_type)) is None
    # A node a replica, for stable and canary at once.
    needed = 2 * spec.serving.replicas * INSTANCES[spec.hardware.instance_type].chips
    assert needed <= limit, f"{name} needs {needed} chips during a release"


def test_only_what_may_be_reserved_is_anything_but_on_demand_by_default() -> None:
    pools = of_kind(rendered("overlays/eks"), "NodePool")
    found = {name: values(pool, CAPACITY) for name, pool in pools.items()}

    assert found == {
        "neuron-trn2": ["reserved", "on-demand"],
        "neuron-trn1": ["on-demand"],
        "neuron-inf2": ["on-demand"],
    }


def test_spot_is_for_trn1_and_inf2_and_comes_by_a_component(tmp_path: Path) -> None:
    pools = of_kind(composed(tmp_path, "overlays/eks", ["spot"]), "NodePool")

    assert values(pools["neuron-trn1"], CAPACITY) == ["spot", "on-demand"]
    assert values(pools["neuron-inf2"], CAPACITY) == ["spot", "on-demand"]
    assert "spot" not in values(pools["neuron-trn2"], CAPACITY)


def test_reservations_are_chosen_by_tag_and_open_ultraserver_nodes(tmp_path: Path) -> None:
    objects = composed(tmp_path, "overlays/eks", ["spot", "reserved"])
    pools = of_kind(objects, "NodePool")
    terms = of_kind(objects, "EC2NodeClass")["neuron"]["spec"]["capacityReservationSelectorTerms"]

    assert terms == [{"tags": {"trainyard.dev/reservation": "true"}}]
    assert values(pools["neuron-trn1"], CAPACITY) == ["reserved", "spot", "on-demand"]
    assert "trn2u.48xlarge" in values(pools["neuron-trn2"], TYPE)
    assert "trn2u.48xlarge" not in values(of_kind(rendered("overlays/eks"), "NodePool")["neuron-trn2"], TYPE)


def test_the_node_image_is_pinned_to_a_date() -> None:
    node_class = of_kind(rendered("overlays/eks"), "EC2NodeClass")["neuron"]["spec"]

    assert all("@v" in term["alias"] for term in node_class["amiSelectorTerms"])
    assert node_class["instanceStorePolicy"] == "RAID0"


def test_empty_nodes_go_within_seconds_in_the_local_stack() -> None:
    pools = of_kind(rendered("overlays/local"), "NodePool")

    assert {pool["spec"]["disruption"]["consolidateAfter"] for pool in pools.values()} == {"20s"}


def test_servers_come_before_jobs_and_nobody_loses_a_running_compilation_to_either() -> None:
    classes = of_kind(rendered("base"), "PriorityClass")

    assert classes["trainyard-serving"]["value"] > classes["trainyard-jobs"]["value"] > 0
    assert {each["preemptionPolicy"] for each in classes.values()} == {"Never"}
    assert not any(each.get("globalDefault") for each in classes.values())


def test_the_cache_volume_is_one_nodes_and_no_shared_file_system(tmp_path: Path) -> None:
    objects = composed(tmp_path, "overlays/eks", ["cache-pvc"])
    claim = of_kind(objects, "PersistentVolumeClaim")["trainyard-compile-cache"]
    storage = of_kind(objects, "StorageClass")[claim["spec"]["storageClassName"]]

    assert claim["metadata"]["namespace"] == "trainyard-jobs"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert (storage["provisioner"], storage["volumeBindingMode"]) == (
        "ebs.csi.aws.com",
        "WaitForFirstConsumer",
    )


def test_the_neuron_chart_offers_chips_schedules_nothing_and_watches_health() -> None:
    chart = yaml.safe_load((CLUSTER / "charts" / "neuron-helm-chart.yaml").read_text())

    assert chart["devicePlugin"]["enabled"]
    assert not chart["scheduler"]["enabled"]
    assert chart["npd"]["enabled"]
    assert not chart["npd"]["nodeRecovery"]["enabled"]
    assert set(INSTANCE_TYPES) <= set(chart["neuronInstances"])


def test_policies_let_nothing_in_or_out_but_what_is_named() -> None:
    policies = [each for each in rendered("base") if each["kind"] == "NetworkPolicy"]
    denied = [each for each in policies if each["metadata"]["name"] == "default-deny"]
    servers = next(each for each in policies if each["metadata"]["name"] == "servers")

    assert {each["metadata"]["namespace"] for each in denied} == {"trainyard-jobs", "trainyard-serving"}
    for each in denied:
        assert each["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert all("from" in rule and "ports" in rule for rule in servers["spec"]["ingress"])
    assert all(
        "ports" in rule or "to" in rule for each in policies for rule in each["spec"].get("egress", [])
    )
