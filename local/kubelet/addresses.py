"""Pod addresses: each pod has its own, from one range."""

from __future__ import annotations

import hashlib
import ipaddress


class Addresses:
    """Hands out addresses in turn, so that one that was just released is not used again soon.

    owner: what tells this range's user from others of the same machine. Loopback addresses belong to the
    machine, not
    to a cluster: two that began at the same one would give their servers the same address and port.
    """

    def __init__(self, cidr: str, owner: str = "") -> None:
        self._network = ipaddress.ip_network(cidr)
        self._held: set[str] = set()
        # The first few are left out: .0 names the network and .1 is its router by custom.
        self._next = 2
        if owner:
            room = max(1, self._network.num_addresses - 4)
            self._next += int(hashlib.sha256(owner.encode()).hexdigest()[:12], 16) % room

    def take(self, wanted: str | None = None) -> str:
        """A free address (the wanted one when it is free and of this range); raises RuntimeError when none is
        left.
        """
        if wanted and wanted not in self._held and ipaddress.ip_address(wanted) in self._network:
            self._held.add(wanted)
            return wanted
        size = self._network.num_addresses
        for _ in range(size):
            address = str(self._network[self._next])
            self._next = self._next + 1 if self._next < size - 2 else 2
            if address not in self._held:
                self._held.add(address)
                return address
        raise RuntimeError(f"no free pod address in {self._network}")

    def give_back(self, address: str) -> None:
        self._held.discard(address)
