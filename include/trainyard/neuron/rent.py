"""What the servers of a model rent: their logical cores, and their part of the price of the instances."""

from __future__ import annotations

from dataclasses import dataclass

from trainyard.neuron.instances import Instance, chips_for
from trainyard.neuron.prices import Prices


@dataclass(frozen=True)
class Rent:
    """dollars_per_hour: None where the table has no price. words: what was reckoned, from which price."""

    cores: int
    chips: int
    dollars_per_hour: float | None
    words: str


def rent(
    kind: Instance,
    *,
    tensor_parallel: int,
    replicas: int,
    lnc: int,
    prices: Prices,
    dollars: float | None = None,
) -> Rent:
    """Chips are what pods are given, so chips are what is paid for: an instance whose other chips work for
    somebody else costs its part. dollars: for an hour of the instance, instead of the table's."""
    chips = chips_for(tensor_parallel, kind, lnc) * replicas
    cores = tensor_parallel * replicas
    part = f"{chips} of {kind.chips} chips of a {kind.name}"
    if chips > kind.chips:
        part = f"{chips} chips of {kind.name}, {kind.chips} each"
    if dollars is not None:
        words = f"${dollars:.2f} an hour, as given"
    else:
        price = prices.of(kind.name)
        if price is None:
            return Rent(cores, chips, None, f"{part}; no price in the table of {prices.date}")
        dollars, words = price.dollars, f"{price.words}; {prices.source}, {prices.date}"
    return Rent(cores, chips, round(dollars * chips / kind.chips, 6), f"{part}, {words}")
