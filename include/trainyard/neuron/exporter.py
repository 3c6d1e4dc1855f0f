"""The Prometheus exporter's text -> a reading.

Source: neuron-monitor-prometheus.py of SDK 2.32, port 8000. It leaves a group that says an error out, and an
idle node emits `neuron_hardware_info` alone: what is missing is unknown, never well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trainyard.neuron.readings import ERROR_KINDS, EXPORTER, UNCORRECTED, Reading, count

_SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r"(?:\{(?P<labels>.*)\})?"
    r"[ \t]+(?P<value>[^ \t}]+)(?:[ \t]+-?\d+)?[ \t]*"
)
_LABEL = re.compile(
    r'[ \t]*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"(?P<value>(?:[^"\\\n]|\\.)*)"[ \t]*(?:,|$)'
)
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
# They move on every report, so an exporter that still reads never says the same twice.
_ALIVE = ("system_vcpu_usage_ratio", "system_memory_used_bytes")


@dataclass(frozen=True)
class Sample:
    """One line: a metric's name, its labels, its value."""

    name: str
    labels: Mapping[str, str]
    value: float


def parse_samples(text: str) -> Iterator[Sample]:
    """Samples of the exposition format 0.0.4, as they come. Comments and lines that are none are skipped."""
    for line in text.split("\n"):
        stripped = line.strip(" \t\r")
        if not stripped or stripped.startswith("#"):
            continue
        found = _SAMPLE.fullmatch(stripped)
        labels = _labels(found["labels"] or "") if found else None
        if found is None or labels is None:
            continue
        try:
            value = float(found["value"])
        except ValueError:
            continue
        yield Sample(found["name"], labels, value)


def _labels(text: str) -> dict[str, str] | None:
    out: dict[str, str] = {}
    place = 0
    while place < len(text):
        found = _LABEL.match(text, place)
        if found is None:
            return None
        out[found["name"]] = re.sub(r"\\[\\\"n]", lambda hit: _ESCAPES[hit[0]], found["value"])
        place = found.end()
    return out


def parse_scrape(text: str, at: float) -> Reading | None:
    """One scrape -> a reading; None where the text is not of a Neuron exporter.

    Errors and time-outs are totals since the exporter began; see readings.EXPORTER for its ECC counts.
    """
    samples = list(parse_samples(text))
    info = next((each.labels for each in samples if each.name == "neuron_hardware_info"), None)
    if info is None:
        return None
    errors = dict.fromkeys(ERROR_KINDS, 0)
    ecc: dict[int, int] = {}
    timed_out, memory = 0, 0
    used: list[float] = []
    runtimes: set[str] = set()
    for name, labels, value in ((each.name, each.labels, each.value) for each in samples):
        if "runtime_tag" in labels:
            runtimes.add(labels["runtime_tag"])
        if name == "neuroncore_utilization_ratio" and 0 <= value < 1e6:
            used.append(100 * value)
        elif name == "neuron_runtime_memory_used_bytes" and labels.get("memory_location") == "neuron_device":
            memory += count(value)
        elif name == "execution_errors_total" and labels.get("error_type") in errors:
            errors[labels["error_type"]] += count(value)
        elif name == "execution_status_total" and labels.get("status_type") == "timed_out":
            timed_out += count(value)
        elif name == "hardware_ecc_events_total" and labels.get("neuron_device_index", "").isdecimal():
            device = count(float(labels["neuron_device_index"][:9]))
            new = count(value) if labels.get("event_type") in UNCORRECTED else 0
            ecc[device] = ecc.get(device, 0) + new
    return Reading(
        source=EXPORTER,
        at=at,
        devices=_number(info.get("neuron_device_count")),
        cores_per_device=_number(info.get("neuroncore_per_device_count")),
        runtimes=len(runtimes),
        errors=errors,
        timed_out=timed_out,
        ecc=ecc,
        utilization_percent=sum(used) / len(used) if used else None,
        memory_bytes=memory,
        standing=_standing(samples),
    )


def _standing(samples: list[Sample]) -> str:
    moving = [
        f"{each.name}{sorted(each.labels.items())}{each.value}" for each in samples if each.name in _ALIVE
    ]
    return hashlib.sha256("\n".join(moving).encode(errors="replace")).hexdigest() if moving else ""


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,6}", text) else None
