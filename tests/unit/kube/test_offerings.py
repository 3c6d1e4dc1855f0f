"""The fallback order: which way to buy a node is open, and why the earlier ones are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.errors import Refused
from trainyard.kube.capacity import NEURON
from trainyard.kube.offerings import Chosen, Offering, Supply, choose, offering_from
from trainyard.kube.shortages import parse_message

Obj = dict[str, Any]
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
TRN2, TRN1 = "trn2.48xlarge", "trn1.32xlarge"
ICE = (
    "NodeClaim neuron-x7k2p event: creating instance, insufficient capacity, with fleet error(s), "
    "InsufficientInstanceCapacity: We currently do not have sufficient trn2.48xlarge capacity in the "
    "Availability Zone you requested (us-east-2b). Our system will be working on provisioning additional "
    "capacity. You can currently get trn2.48xlarge capacity by not specifying an Availability Zone in your "
    "request or choosing us-east-2a, us-east-2c."
)


def requirement(key: str, operator: str, *values: str) -> Obj:
    return {"key": key, "operator": operator, "values": list(values)}


TYPES = requirement("node.kubernetes.io/instance-type", "In", TRN2, "trn2.3xlarge")


def pool(
    *requirements: Obj, limits: Obj | None = None, used: Obj | None = None, labels: Obj | None = None
) -> Obj:
    template = {"metadata": {"labels": labels or {}}, "spec": {"requirements": list(requirements)}}
    return {
        "metadata": {"name": "neuron"},
        "spec": {"template": template, "limits": limits or {}},
        "status": {"resources": used or {}},
    }


def nodeclass(*reservations: Obj, zones: tuple[str, ...] = ("us-east-2a", "us-east-2b")) -> Obj:
    subnets = [{"id": f"subnet-{zone}", "zone": zone} for zone in zones]
    return {"status": {"subnets": subnets, "capacityReservations": list(reservations)}}


def reservation(hours: float | None = None, **changes: Any) -> Obj:
    found = {
        "id": "cr-0123",
        "instanceType": TRN2,
        "availabilityZone": "us-east-2b",
        "instanceMatchCriteria": "targeted",
        "ownerID": "123456789012",
        **changes,
    }
    if hours is not None:
        found["endTime"] = (NOW + timedelta(hours=hours)).isoformat().replace("+00:00", "Z")
    return found


def event(message: str, seconds_ago: float = 60, claim: str = "neuron-x7k2p") -> Obj:
    at = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    return {
        "reason": "InsufficientCapacityError",
        "message": message,
        "involvedObject": {"kind": "NodeClaim", "name": claim},
        "lastTimestamp": at,
    }


def chosen(
    order: list[Offering],
    nodepool: Obj | None = None,
    klass: Obj | None = None,
    *,
    events: tuple[Obj, ...] = (),
    nodes: tuple[Obj, ...] = (),
    chips: int = 16,
    hours: float = 0,
) -> Chosen | str:
    supply = Supply(nodepool or pool(TYPES), klass or nodeclass(), events, nodes, (), NOW)
    found = choose(order, supply, chips, hours * 3600)
    return (
        found
        if isinstance(found, Chosen)
        else " | ".join(f"{each.permanent}: {each.reason}" for each in found)
    )


def test_the_first_that_is_open_is_taken_and_says_where() -> None:
    found = chosen([Offering(TRN2, capacity_type="on-demand"), Offering(TRN2)])
    assert isinstance(found, Chosen)
    assert found.offering.capacity_type == "on-demand"
    assert (found.zones, found.capacity_types) == (("us-east-2a", "us-east-2b"), ("on-demand",))
    assert found.data()["node_selector"] == {
        "node.kubernetes.io/instance-type": TRN2,
        "karpenter.sh/capacity-type": "on-demand",
    }


@pytest.mark.parametrize(
    ("offering", "rule", "words"),
    [
        (Offering(TRN1), TYPES, "instance-type is trn1.32xlarge, the NodePool wants In"),
        (
            Offering(TRN2),
            requirement("karpenter.k8s.aws/instance-family", "NotIn", "trn2"),
            "instance-family",
        ),
        (Offering(TRN2), requirement("karpenter.k8s.aws/instance-generation", "Gt", "2"), "wants Gt 2"),
        (Offering(TRN2), requirement("karpenter.k8s.aws/instance-cpu", "Lt", "192"), "wants Lt 192"),
        (Offering(TRN2), requirement("kubernetes.io/arch", "In", "arm64"), "arch is amd64"),
        (Offering(TRN2), requirement("kubernetes.io/os", "DoesNotExist"), "wants DoesNotExist"),
        (
            Offering(TRN2, capacity_type="spot"),
            requirement("karpenter.sh/capacity-type", "In", "reserved", "on-demand"),
            "permits reserved, on-demand only",
        ),
        (
            Offering(TRN2, zone="us-east-2c"),
            requirement("topology.kubernetes.io/zone", "NotIn", "us-east-2a"),
            "reaches us-east-2b only",
        ),
        (Offering("trn2.3xlarge"), TYPES, "it has 1 chip(s), 16 are needed"),
    ],
)
def test_what_the_requirements_never_permit_is_no_matter_of_waiting(
    offering: Offering, rule: Obj, words: str
) -> None:
    found = chosen([offering], pool(rule))
    assert isinstance(found, str)
    assert found.startswith("True: ")
    assert words in found


@pytest.mark.parametrize(
    "rule",
    [
        requirement("karpenter.k8s.aws/instance-cpu", "Gte", "192"),
        requirement("karpenter.k8s.aws/instance-cpu", "Lte", "192"),
        requirement("karpenter.k8s.aws/instance-family", "Exists"),
        requirement("example.com/only-karpenter-knows", "In", "x"),
    ],
)
def test_requirements_that_are_met_or_not_ours_to_judge_do_no_harm(rule: Obj) -> None:
    assert isinstance(chosen([Offering(TRN2)], pool(rule)), Chosen)


def test_labels_of_the_template_bind_like_requirements() -> None:
    found = chosen(
        [Offering(TRN2, capacity_type="spot")], pool(labels={"karpenter.sh/capacity-type": "reserved"})
    )
    assert "permits reserved only" in str(found)


@pytest.mark.parametrize(
    ("limits", "used", "permanent", "words"),
    [
        ({NEURON: "64k"}, {NEURON: "63990"}, False, "10 of the limit of 64000 are left"),
        ({NEURON: 8}, {}, True, "a node takes 16 aws.amazon.com/neuron, the NodePool's limit is 8"),
        ({"memory": "1Ti"}, {}, True, "the NodePool's limit is 1099511627776"),
        ({"cpu": "400"}, {"cpu": "384"}, False, "a node takes 192 cpu, 16 of the limit of 400 are left"),
        ({"nodes": "0"}, {}, True, "a node takes 1 nodes"),
    ],
)
def test_limits_are_compared_with_the_whole_node(limits: Obj, used: Obj, permanent: bool, words: str) -> None:
    # One chip is asked for, and Karpenter buys a node of sixteen.
    found = chosen([Offering(TRN2)], pool(TYPES, limits=limits, used=used), chips=1)
    assert str(found).startswith(f"{permanent}: ")
    assert words in str(found)


def test_what_ec2_lacked_of_late_is_passed_over_for_another_zone() -> None:
    order = [Offering(TRN2, "us-east-2b", "on-demand"), Offering(TRN2, "us-east-2a", "on-demand")]
    found = chosen(order, events=(event(ICE),))
    assert isinstance(found, Chosen)
    assert found.offering.zone == "us-east-2a"
    (fallen,) = found.fallen
    assert "EC2 had no capacity 60 s ago" in fallen.reason
    assert "us-east-2c" not in fallen.reason
    assert not fallen.permanent


def test_an_offering_of_any_zone_is_left_with_the_zones_that_have_some() -> None:
    found = chosen([Offering(TRN2, capacity_type="on-demand")], events=(event(ICE),))
    assert isinstance(found, Chosen)
    assert found.zones == ("us-east-2a",)


def test_after_three_minutes_karpenter_tries_again_and_so_do_we() -> None:
    order = [Offering(TRN2, "us-east-2b", "on-demand")]
    assert isinstance(chosen(order, events=(event(ICE, 179),)), str)
    assert isinstance(chosen(order, events=(event(ICE, 181),)), Chosen)
    assert isinstance(chosen(order, events=(event(ICE, 10, claim="gpu-x7k2p"),)), Chosen)


def test_a_reservation_does_not_lack_what_on_demand_lacks() -> None:
    order = [Offering(TRN2, "us-east-2b", "reserved")]
    found = chosen(order, klass=nodeclass(reservation()), events=(event(ICE),))
    assert isinstance(found, Chosen)
    assert found.reservation == "cr-0123"


def test_a_block_is_drained_forty_minutes_before_its_end() -> None:
    block = nodeclass(reservation(2, reservationType="capacity-block"))
    order = [Offering(TRN2, capacity_type="reserved"), Offering(TRN2, capacity_type="on-demand")]
    fits = chosen(order, klass=block, hours=1.3)
    assert isinstance(fits, Chosen)
    assert fits.offering.capacity_type == "reserved"
    late = chosen(order, klass=block, hours=1.4)
    assert isinstance(late, Chosen)
    assert late.offering.capacity_type == "on-demand"
    assert "can be used until 2030-01-01 13:20 UTC (Karpenter drains 40 min" in late.fallen[0].reason


@pytest.mark.parametrize(
    ("reservations", "words"),
    [
        ((), "has no reservation for it"),
        ((reservation(state="expiring"),), "cr-0123 is expiring"),
        ((reservation(1),), "can be used until 2030-01-01 13:00 UTC, the work"),
        ((reservation(instanceType=TRN1),), "has no reservation for it"),
        ((reservation(availabilityZone="us-east-2a"),), "has no reservation for it in us-east-2b"),
    ],
)
def test_reserved_capacity_that_is_not_there_long_enough_falls_out(
    reservations: tuple[Obj, ...], words: str
) -> None:
    found = chosen([Offering(TRN2, "us-east-2b", "reserved")], klass=nodeclass(*reservations), hours=2)
    assert str(found).startswith("False: ")
    assert words in str(found)


def test_the_reservation_that_lasts_longest_is_taken() -> None:
    klass = nodeclass(reservation(5, id="cr-1"), reservation(id="cr-2"), reservation(9, id="cr-3"))
    found = chosen([Offering(TRN2, capacity_type="reserved")], klass=klass)
    assert isinstance(found, Chosen)
    assert found.reservation == "cr-2"


def running(**labels: str) -> Obj:
    found = {
        "karpenter.sh/nodepool": "neuron",
        "node.kubernetes.io/instance-type": TRN2,
        "topology.kubernetes.io/zone": "us-east-2b",
        "karpenter.sh/capacity-type": "reserved",
        **labels,
    }
    return {"metadata": {"name": "n1", "labels": found}, "status": {"allocatable": {NEURON: "16"}}}


def test_a_running_node_with_free_chips_needs_no_limit_and_no_market() -> None:
    full = pool(TYPES, limits={NEURON: 16}, used={NEURON: 16})
    found = chosen([Offering(TRN2)], full, events=(event("nothing left"),), nodes=(running(),))
    assert isinstance(found, Chosen)
    assert (found.node, found.zones) == ("n1", ("us-east-2b",))
    assert isinstance(chosen([Offering(TRN2, "us-east-2a")], full, nodes=(running(),)), str)


def test_a_running_node_whose_block_ends_too_soon_is_not_taken() -> None:
    key = "karpenter.k8s.aws/capacity-reservation-id"
    klass = nodeclass(reservation(1, reservationType="capacity-block"))
    nodes = (running(**{key: "cr-0123"}),)
    order = [Offering(TRN2, capacity_type="reserved")]
    assert isinstance(chosen(order, klass=klass, nodes=nodes, hours=0.2), Chosen)
    assert "can be used until" in str(chosen(order, klass=klass, nodes=nodes, hours=1))


@pytest.mark.parametrize(
    ("message", "open_types"),
    [
        ("with fleet error(s), MaxSpotInstanceCountExceeded: Max spot instance count exceeded", "od"),
        ("UnfulfillableCapacity: There is no Spot capacity available that matches your request.", "od"),
        ("VcpuLimitExceeded: You have requested more vCPU capacity than your limit of 0 allows", "spot"),
        ("insufficient capacity, all requested instance types were unavailable during launch", ""),
        ("", ""),
    ],
)
def test_a_message_that_names_a_capacity_type_shuts_no_other(message: str, open_types: str) -> None:
    order = [Offering(TRN2, capacity_type="spot"), Offering(TRN2, capacity_type="on-demand")]
    found = chosen(order, events=(event(message),))
    if not open_types:
        assert isinstance(found, str)
    else:
        assert isinstance(found, Chosen)
        assert found.offering.capacity_type == {"od": "on-demand", "spot": "spot"}[open_types]


def test_every_error_of_one_message_counts() -> None:
    both = ICE + "; " + ICE.partition("error(s), ")[2].replace("2b", "2a", 1)
    assert [each.zone for each in parse_message(both, 0)] == ["us-east-2b", "us-east-2a"]
    assert isinstance(chosen([Offering(TRN2, capacity_type="on-demand")], events=(event(both),)), str)


def test_a_message_cut_in_the_middle_is_taken_to_mean_everything() -> None:
    (found,) = parse_message(ICE[:170] + "...", 0)
    assert (found.instance_type, found.zone) == (None, None)


@given(st.text() | st.text(alphabet="ABCabc:;. ()/-\n"))
def test_no_message_raises_or_says_nothing(message: str) -> None:
    assert parse_message(message, 0)


def test_offerings_cross_a_process_as_plain_values() -> None:
    assert offering_from({"instance_type": TRN2, "zone": None}) == offering_from(TRN2) == Offering(TRN2)
    with pytest.raises(Refused, match="not a capacity type"):
        Offering(TRN2, capacity_type="cheap")


OFFERINGS = st.builds(
    Offering,
    st.sampled_from([TRN2, TRN1, "trn2.3xlarge"]),
    st.sampled_from([None, "us-east-2a", "us-east-2b", "us-east-2c"]),
    st.sampled_from([None, "reserved", "spot", "on-demand"]),
)
EVENTS = st.lists(
    st.builds(
        event,
        st.sampled_from(
            [ICE, ICE.replace("2b", "2a", 1), "MaxSpotInstanceCountExceeded: too many", "nothing"]
        ),
        st.integers(0, 400),
    ),
    max_size=4,
)


@given(st.lists(OFFERINGS, max_size=5), EVENTS, EVENTS, st.floats(0, 5))
def test_the_order_is_kept_and_more_that_is_lacking_opens_nothing(
    order: list[Offering], few: list[Obj], more: list[Obj], hours: float
) -> None:
    klass = nodeclass(reservation(3, reservationType="capacity-block"))

    def place(events: list[Obj], work: float) -> int:
        """How far down the order one has to go; its length where nothing is open."""
        found = choose(order, Supply(pool(TYPES), klass, events, (), (), NOW), 1, work * 3600)
        fallen = found.fallen if isinstance(found, Chosen) else found
        assert [each.offering for each in fallen] == order[: len(fallen)]
        assert all(each.reason for each in fallen)
        if isinstance(found, Chosen):
            assert found.offering == order[len(fallen)]
        else:
            assert len(fallen) == len(order)
        return len(fallen)

    assert place(few, hours) <= place([*few, *more], hours)
    assert place(few, 0) <= place(few, hours)
