"""What the tokens of a load test cost: its throughput, divided by the cores and the dollars that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What one arm ran on.

    cores: logical NeuronCores of all its servers. dollars_per_hour: of the part of the instances that those
    take; None: nobody knows. price: where that number is from, for the reader.
    """

    cores: int
    instance_type: str = ""
    dollars_per_hour: float | None = None
    price: str = ""


def economy(figures: Mapping[str, Any], hardware: Hardware) -> dict[str, Any]:
    """figures: an arm's summary. Costs are None without a price or without a token.

    All at the load of this run: a server that was not busy is dearer here than it has to be.
    """
    output = float(figures.get("output_tokens_per_second") or 0.0)
    every = output + float(figures.get("input_tokens_per_second") or 0.0)
    dollars = hardware.dollars_per_hour
    return {
        **asdict(hardware),
        "output_tokens_per_second_per_core": round(output / hardware.cores, 3) if hardware.cores else None,
        "dollars_per_million_output_tokens": _per_million(dollars, output),
        "dollars_per_million_tokens": _per_million(dollars, every),
    }


def _per_million(dollars_per_hour: float | None, tokens_per_second: float) -> float | None:
    if dollars_per_hour is None or tokens_per_second <= 0:
        return None
    return round(dollars_per_hour / HOUR / tokens_per_second * 1e6, 4)
