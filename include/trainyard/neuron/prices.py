"""What an hour of an instance costs: a dated table, which a file of one's own can replace.

Prices move and differ by region and by contract: a plan names the table that it used. Source: on-demand of
inf2, trn1 and trn1n in us-east-1 from AWS's price list of 2026-07-20, as karpenter-provider-aws carries it.
trn2 has no on-demand price there: EC2 sells it as Capacity Blocks for ML, and these are their list prices of
May 2026 as public reports give them (us-east-2; trn2.3xlarge in a region that has it). A host of a trn2u
UltraServer is reckoned like a trn2.48xlarge: nobody publishes its price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, get_args

from trainyard.errors import Problem, Refused
from trainyard.neuron.instances import INSTANCES

Sold = Literal["on-demand", "capacity-block", "spot", "reserved"]


@dataclass(frozen=True)
class Price:
    """Dollars for one hour of one instance. checked: somebody read it in a price list."""

    dollars: float
    sold: Sold = "on-demand"
    region: str = "us-east-1"
    checked: bool = True

    @property
    def words(self) -> str:
        doubt = "" if self.checked else ", unverified"
        return f"${self.dollars:.2f} an hour ({self.sold}, {self.region}{doubt})"


@dataclass(frozen=True)
class Prices:
    """date: of the newest row, ISO 8601. source: who said so, for the reader of a plan."""

    date: str
    source: str
    rows: Mapping[str, Price]

    def of(self, instance: str) -> Price | None:
        """None: the table does not say."""
        return self.rows.get(instance)


def _block(dollars: float, region: str = "us-east-2", checked: bool = True) -> Price:
    return Price(dollars, "capacity-block", region, checked)


TABLE = Prices(
    date="2026-07-20",
    source="AWS list prices, us-east-1 and us-east-2 (trn2: Capacity Blocks, 2026-05-21)",
    rows={
        "inf2.xlarge": Price(0.7582),
        "inf2.8xlarge": Price(1.96786),
        "inf2.24xlarge": Price(6.49063),
        "inf2.48xlarge": Price(12.98127),
        "trn1.2xlarge": Price(1.34375),
        "trn1.32xlarge": Price(21.5),
        "trn1n.32xlarge": Price(24.78),
        "trn2.3xlarge": _block(2.235, "ap-southeast-4"),
        "trn2.48xlarge": _block(35.7608),
        "trn2u.48xlarge": _block(35.7608, checked=False),
    },
)


def parse_prices(document: Any, source: str) -> Prices:
    """{"date": "2026-11-01", "source": text, "region": text, "prices": {instance: dollars or an object}}.

    An object is {"dollars", "sold", "region"}. Instances that it leaves out have no price: a table is not
    mixed with another. Raises Refused with everything that is wrong; `source` names it.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("prices"), Mapping):
        raise Refused(
            Problem(
                source, _shown(document), "a price table is an object with `prices`", "See docs/preflight.md."
            )
        )
    problems = [
        Problem(f"{source}: {key}", _shown(value), "a price table has no such field", "Remove it.")
        for key, value in document.items()
        if key not in ("date", "source", "region", "prices")
    ]
    rows: dict[str, Price] = {}
    for name, value in document["prices"].items():
        if str(name) not in INSTANCES:
            problems.append(
                Problem(
                    f"{source}: prices.{name}",
                    _shown(value),
                    "no Neuron instance type that Trainyard knows",
                    f"Use {', '.join(INSTANCES)}.",
                )
            )
            continue
        price = _price(value, str(document.get("region", "")) or "region not said")
        if price is None:
            problems.append(
                Problem(
                    f"{source}: prices.{name}",
                    _shown(value),
                    "a price is a positive number of dollars an hour, or {dollars, sold, region} with sold "
                    f"one of {', '.join(get_args(Sold))}",
                    "Correct it.",
                )
            )
        else:
            rows[str(name)] = price
    if problems:
        raise Refused(problems)
    return Prices(str(document.get("date", "no date")), str(document.get("source", source)), rows)


def _price(value: Any, region: str) -> Price | None:
    row = value if isinstance(value, Mapping) else {"dollars": value}
    dollars, sold = row.get("dollars"), row.get("sold", "on-demand")
    if set(row) - {"dollars", "sold", "region"} or sold not in get_args(Sold):
        return None
    if isinstance(dollars, bool) or not isinstance(dollars, int | float):
        return None
    if not isfinite(dollars) or dollars <= 0:
        return None
    return Price(float(dollars), sold, str(row.get("region", region)))


def _shown(value: Any) -> object:
    return value if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
