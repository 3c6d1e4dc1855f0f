"""Capacity that is paid in advance, from the EC2NodeClass, and how long it can be worked on. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from trainyard.kube.cluster import Object

BLOCK = "capacity-block"
# EC2 terminates a block's instances from 30 minutes before its end; Karpenter drains 10 minutes earlier.
BLOCK_MARGIN = timedelta(minutes=40)


@dataclass(frozen=True)
class Reservation:
    """kind: `default` (an on-demand capacity reservation) or `capacity-block`. state: active or expiring."""

    id: str
    instance_type: str
    zone: str
    kind: str
    state: str
    ends_at: datetime | None

    @property
    def usable_until(self) -> datetime | None:
        """Work that is longer loses its node (block), or the reservation's price; None: no end is set."""
        if self.ends_at is None or self.kind != BLOCK:
            return self.ends_at
        return self.ends_at - BLOCK_MARGIN

    def lacks(self, until: datetime) -> str | None:
        """Why work that ends then should not begin here; None where it may."""
        if self.state != "active":
            return f"reservation {self.id} is {self.state}"
        end = self.usable_until
        if end is None or end >= until:
            return None
        drained = " (Karpenter drains 40 min before the block's end)" if self.kind == BLOCK else ""
        return (
            f"reservation {self.id} can be used until {_clock(end)}{drained}, the work is expected to end at "
            f"{_clock(until)}"
        )


def reservations_of(nodeclass: Object | None) -> list[Reservation]:
    """Those that last longest first; one without an end lasts longest of all."""
    found = [
        Reservation(
            id=item["id"],
            instance_type=item["instanceType"],
            zone=item["availabilityZone"],
            kind=item.get("reservationType") or "default",
            state=item.get("state") or "active",
            ends_at=_time(item.get("endTime")),
        )
        for item in ((nodeclass or {}).get("status") or {}).get("capacityReservations") or []
    ]
    return sorted(
        found, key=lambda each: (each.usable_until is not None, _reversed(each.usable_until), each.id)
    )


def _reversed(moment: datetime | None) -> float:
    return -moment.timestamp() if moment else 0.0


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def _clock(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
