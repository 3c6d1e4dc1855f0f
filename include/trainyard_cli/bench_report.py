"""What `trainyard bench` leaves: raw samples, figures, and the report as a page, as JSON and as text."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainyard.bench.checking import is_number
from trainyard.bench.cost import Hardware, economy
from trainyard.errors import Problem, Refused
from trainyard.neuron.instances import instance
from trainyard.report.canvas import say_time
from trainyard.report.data import render_json
from trainyard.report.document import Report
from trainyard.report.html import render_html
from trainyard.report.thinning import Thinned
from trainyard.stages.figures import rented

MOST_SAMPLES = 20_000  # that are drawn: more say no more, and take long


def hardware(instance_type: str | None, cores: int | None, dollars: float | None) -> Hardware | None:
    """What each server runs on, as far as the command line says. None: it says nothing.

    dollars: for an hour of the instance, or, without an instance type, of what serves. Raises Refused.
    """
    problems = [
        Problem(f"--{name}", value, "must be a number above zero", "Leave it out if it is not known")
        for name, value in (("cores", cores), ("price-per-hour", dollars))
        if value is not None and not (is_number(value) and value > 0)
    ]
    if problems:
        raise Refused(problems)
    if instance_type is None:
        if cores is None and dollars is None:
            return None
        words = "" if dollars is None else f"${dollars:.2f} an hour, as given"
        return Hardware(cores=cores or 0, dollars_per_hour=dollars, price=words)
    kind = instance(instance_type)
    lnc = kind.default_lnc
    return rented(kind, tensor_parallel=cores or kind.cores(lnc), lnc=lnc, dollars=dollars)


def in_short(summary: Mapping[str, Any]) -> str:
    """What to know before anything else, in a sentence or two."""
    reasons = summary["generator"]["reasons"]
    if reasons:
        return f"The load generator was the bottleneck: {'; '.join(reasons)}"
    return " ".join(f"{arm}: {', '.join(_told(arm, own, summary))}." for arm, own in summary["arms"].items())


def _told(arm: str, own: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[str]:
    yield f"{own['succeeded']:,} of {own['requests']:,} requests succeeded"
    if "p95" in own["ttft"]:
        yield f"p95 of the first token {say_time(own['ttft']['p95'])}"
    good = own.get("goodput")
    if good and good["share"] is not None:
        yield f"{good['share'] * 100:.1f} % met every objective"
    if arm in (summary.get("sweep") or {}):
        top = summary["sweep"][arm]["knee"]
        yield (
            f"keeps up until {top['offered']:g} requests/s" if top else "does not keep up with the first rate"
        )


def with_economy(summary: Mapping[str, Any], each: Hardware | None) -> dict[str, Any]:
    if each is None:
        return dict(summary)
    arms = {arm: {**own, "economy": economy(own, each)} for arm, own in summary["arms"].items()}
    return {**summary, "arms": arms}


def make_room(folder: Path, page: Path | None) -> None:
    """Before anything is measured: what has no place would be lost. Raises Refused."""
    places = {"--out": folder} | ({} if page is None else {"--report": page.parent})
    problems = []
    for option, place in places.items():
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            rule = f"cannot be written to ({error.strerror})"
            problems.append(Problem(option, str(place), rule, "Name another folder"))
    if page is not None and page.is_dir():
        problems.append(Problem("--report", str(page), "is a folder", "Name a file, such as report.html"))
    if problems:
        raise Refused(problems)


def write(folder: Path, packed: bytes, summary: Mapping[str, Any], report: Report, page: Path | None) -> Path:
    """Returns where the page is: at `page`, or in the folder with all the rest."""
    rows = Thinned(MOST_SAMPLES)
    rows.add_packed(packed)
    phases = tuple(replace(phase, samples=tuple(rows.samples())) for phase in report.phases)
    drawn = replace(report, phases=phases)
    page = page or folder / "report.html"
    for parent in (folder, page.parent):
        parent.mkdir(parents=True, exist_ok=True)
    (folder / "samples.ndjson.gz").write_bytes(packed)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (folder / "report.json").write_text(render_json(drawn))
    page.write_text(render_html(drawn))
    return page
