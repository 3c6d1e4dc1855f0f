"""Are Neuron devices well? One judgement over readings of any source. Silence is never healthy.

A hard gate on ECC reads neuron-monitor's JSON: only its totals are the hardware's own. The exporter adds them
anew at every report, and CloudWatch publishes what the exporter says: a growing count of theirs is a reason
to look, and no proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from trainyard.neuron.readings import ERROR_KINDS, Reading

# Kinds that the devices or their runtime are to blame for.
_SERIOUS = ("hardware", "runtime", "numerical")
UNTOLD = "untold"  # an execution error whose kind the source does not tell


@dataclass(frozen=True)
class Expected:
    """What has to hold.

    devices: at least so many Neuron devices; 0: any number.
    least_free_memory: share of the device memory, 0 to 1, that has to be free.
    device_memory_bytes: of one device, for sources that do not say; 0: unknown.
    utilization: (least, most) percent, as mean over the readings; None: any.
    runtime: a Neuron runtime has to be running; False for nodes that serve nothing.
    """

    devices: int = 0
    least_free_memory: float = 0.0
    device_memory_bytes: int = 0
    utilization: tuple[float, float] | None = None
    runtime: bool = True


@dataclass(frozen=True)
class Health:
    """state: healthy, sick or unknown. Only healthy lets anything go on. facts: JSON, for the record."""

    state: str
    reasons: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def judge(
    readings: Iterable[Reading], expected: Expected, conditions: Sequence[Mapping[str, Any]] = ()
) -> Health:
    """Two readings are the least. ECC and errors count as they grow: totals may hold old sins.

    conditions: of the node; `NeuronHealth` (the node problem detector's) and `AcceleratedHardwareReady` (the
    EKS node monitoring agent's) count.
    """
    seen = sorted(readings, key=lambda each: each.at)
    condemned = condemned_by(conditions)
    if len(seen) < 2:
        words = f"{len(seen)} reading(s) came, two are needed"
        return Health("sick", condemned) if condemned else Health("unknown", (words,))
    sick = [*condemned, *dict.fromkeys(said for each in seen for said in each.complaints)]
    unknown: list[str] = []
    for check in (_devices, _counters, _ecc, _errors, _memory, _utilization):
        bad, unclear = check(seen, expected)
        sick += bad
        unknown += unclear
    facts = _facts(seen)
    if sick:
        return Health("sick", tuple(sick), facts)
    return Health("unknown" if unknown else "healthy", tuple(unknown), facts)


def condemned_by(conditions: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What node agents say against the node's devices. The reason decides: a status means the opposite from
    one agent to the next."""
    out = []
    for item in conditions:
        reason = str(item.get("reason") or "")
        bad = (item.get("type") == "NeuronHealth" and reason.startswith("NeuronHasError")) or (
            item.get("type") == "AcceleratedHardwareReady"
            and item.get("status") == "False"
            and reason.startswith("Neuron")
        )
        if bad:
            out.append(f"node condition {item.get('type')}: {reason} {item.get('message') or ''}".strip())
    return tuple(out)


_Said = tuple[list[str], list[str]]


def _devices(seen: Sequence[Reading], expected: Expected) -> _Said:
    last = seen[-1]
    if last.devices is not None and last.devices < expected.devices:
        return [f"{last.devices} Neuron devices are visible, {expected.devices} are expected"], []
    unknown = []
    if expected.runtime and last.runtimes == 0:
        unknown.append("no Neuron runtime is running: nothing serves on the devices")
    if last.standing and len({each.standing for each in seen}) == 1:
        unknown.append(f"{last.source.name} said the very same each time: it has stopped reading")
    return [], unknown


def _counters(seen: Sequence[Reading], expected: Expected) -> _Said:
    first, last = seen[0], seen[-1]
    if not last.ecc:
        return [], ["no hardware counters were reported"]
    if len(last.ecc) < expected.devices or not first.ecc.keys() <= last.ecc.keys():
        return [], [f"hardware counters were reported of {len(last.ecc)} device(s) only"]
    return [], []


def _ecc(seen: Sequence[Reading], expected: Expected) -> _Said:
    source = seen[-1].source
    sick, unknown = [], []
    for device in sorted(seen[-1].ecc):
        values = [each.ecc.get(device, 0) for each in seen]
        new = values[-1] - values[0] if source.ecc_totals else sum(values)
        if new < 0 and source.ecc_totals:
            unknown.append(f"device {device}: its ECC counter went back from {values[0]} to {values[-1]}")
        elif new > 0 and source.ecc_exact:
            sick.append(f"device {device}: {new} new uncorrected ECC error(s)")
        elif new > 0:
            unknown.append(
                f"device {device}: {source.name} counts {new} ECC event(s), which may be old or corrected "
                f"ones. neuron-monitor's JSON tells"
            )
    return sick, unknown


def _errors(seen: Sequence[Reading], expected: Expected) -> _Said:
    grown = {kind: _new_errors(seen, kind) for kind in _SERIOUS}
    sick = [f"{number} {kind} error(s) in the Neuron runtime" for kind, number in grown.items() if number > 0]
    timed_out = _grown(seen, lambda each: each.timed_out)
    if timed_out > 0:
        sick.append(f"{timed_out} execution(s) timed out")
    untold = _new_errors(seen, UNTOLD)
    if untold > 0:
        return sick, [f"{untold} execution error(s) of a kind that {seen[-1].source.name} does not tell"]
    return sick, []


def _new_errors(seen: Sequence[Reading], kind: str) -> int:
    return _grown(seen, lambda each: each.errors.get(kind, 0))


def _grown(seen: Sequence[Reading], value: Callable[[Reading], int]) -> int:
    """How many were new while we looked. A total that falls began anew: what it holds is new."""
    values = [value(each) for each in seen]
    if not seen[-1].source.error_totals:
        return sum(values)
    return sum(later - earlier if later >= earlier else later for earlier, later in pairwise(values))


def _memory(seen: Sequence[Reading], expected: Expected) -> _Said:
    if expected.least_free_memory <= 0:
        return [], []
    last = seen[-1]
    total = last.memory_total_bytes or expected.device_memory_bytes * (last.devices or expected.devices)
    if total <= 0 or last.runtimes in (0, None):
        return [], [f"{last.source.name} does not tell how much device memory is free"]
    free = 1.0 - max(each.memory_bytes for each in seen) / total
    if free < expected.least_free_memory:
        return [f"{free:.1%} of the device memory is free, {expected.least_free_memory:.1%} have to be"], []
    return [], []


def _utilization(seen: Sequence[Reading], expected: Expected) -> _Said:
    if expected.utilization is None:
        return [], []
    mean = _mean(seen)
    if mean is None:
        return [], ["no utilisation was reported"]
    least, most = expected.utilization
    if least <= mean <= most:
        return [], []
    return [f"the cores are used at {mean:.1f} %, expected are {least:g} to {most:g} %"], []


def _mean(seen: Sequence[Reading]) -> float | None:
    values = [each.utilization_percent for each in seen if each.utilization_percent is not None]
    return sum(values) / len(values) if values else None


def _facts(seen: Sequence[Reading]) -> dict[str, Any]:
    last = seen[-1]
    kinds = (*ERROR_KINDS, UNTOLD)
    return {
        "source": last.source.name,
        "devices": last.devices if last.devices is not None else len(last.ecc),
        "reports": len(seen),
        "seconds": round(last.at - seen[0].at, 3),
        "device_memory_bytes": last.memory_bytes,
        "device_memory_total_bytes": last.memory_total_bytes,
        "utilization_percent": _mean(seen),
        "ecc_uncorrected": sum(
            sum(each.ecc.values()) for each in (seen[-1:] if last.source.ecc_totals else seen)
        ),
        "errors": {kind: _new_errors(seen, kind) for kind in kinds},
    }
