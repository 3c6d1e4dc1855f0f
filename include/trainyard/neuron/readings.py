"""One sample of how Neuron devices are, whoever told it: neuron-monitor, its exporter, or CloudWatch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

ERROR_KINDS = ("generic", "numerical", "transient", "model", "runtime", "hardware")
UNCORRECTED = ("mem_ecc_uncorrected", "sram_ecc_uncorrected")
# No counter is larger; a float holds it.
_LARGEST = 2**63


@dataclass(frozen=True)
class Source:
    """What a source's numbers mean.

    ecc_totals: ECC counts are totals since the driver was loaded; else events of the sample's own period.
    ecc_exact: a growing count proves a new error of the uncorrected kind.
    error_totals: execution errors are totals since the source began; else those of the period.
    """

    name: str
    ecc_totals: bool
    ecc_exact: bool
    error_totals: bool


MONITOR = Source("neuron-monitor", ecc_totals=True, ecc_exact=True, error_totals=False)
# The exporter adds the hardware's totals to its own counter at every report: an old error counts for ever.
EXPORTER = Source("the Prometheus exporter", ecc_totals=True, ecc_exact=False, error_totals=True)
# The agent makes differences of the exporter's counter, and publishes corrected and uncorrected as one.
INSIGHTS = Source("CloudWatch Container Insights", ecc_totals=False, ecc_exact=False, error_totals=False)


@dataclass(frozen=True)
class Reading:
    """One sample. None: the source does not say.

    at: seconds since the epoch. errors: by kind. ecc: uncorrected events by device index.
    memory_bytes, memory_total_bytes: device memory of all devices together.
    standing: what has to move between two samples of a source that is alive; empty where nothing has to.
    """

    source: Source
    at: float
    devices: int | None = None
    cores_per_device: int | None = None
    runtimes: int | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    timed_out: int = 0
    ecc: Mapping[int, int] = field(default_factory=dict)
    utilization_percent: float | None = None
    memory_bytes: int = 0
    memory_total_bytes: int = 0
    complaints: tuple[str, ...] = ()
    standing: str = ""


class Reader(Protocol):
    """A source of readings. Each call gives what is new, oldest first; nothing where nothing is said.

    Raises TransientError where the source is away, PermanentError where it will not come back.
    """

    def read(self) -> tuple[Reading, ...]: ...


def is_number(value: Any) -> bool:
    """Finite, and small enough for a float: JSON has neither limit, and Python reads NaN and Infinity too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST


def count(value: Any) -> int:
    """What is no number counts as none."""
    return int(value) if is_number(value) else 0
