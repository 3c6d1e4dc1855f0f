"""`build/bench/NAME.json`, and the table. The schema is stable: people compare files of different days."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import provenance
from benchmarks.model import Benchmark, Figure

SCHEMA = 1
REPOSITORY = Path(__file__).resolve().parents[1]


def document(
    benchmark: Benchmark,
    figures: Sequence[Figure],
    load: float,
    *,
    pairs: int | None = None,
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The result as JSON. The fields at the top are those of the first figure.

    load: of the machine when it began (1-minute average); a busy machine spreads the figures. pairs: as the
    command line had it. versions: of what was measured beside us and is not in our environment.
    """
    asked = "" if pairs is None else f" --pairs {pairs}"
    first = figures[0]
    return {
        "schema": SCHEMA,
        "name": benchmark.name,
        "claim": benchmark.claim,
        "value": _round(first.spread.median),
        "unit": first.unit,
        "bar": str(first.bar) if first.bar else None,
        "met": all(figure.met is not False for figure in figures),
        "peer": benchmark.peer,
        "repeats": first.spread.count,
        "command": f"python -m benchmarks --only {benchmark.name}{asked}",
        "settings": provenance.settings(),
        "figures": [
            {
                "name": figure.name,
                "unit": figure.unit,
                **{name: _round(value) for name, value in asdict(figure.spread).items()},
                "bar": str(figure.bar) if figure.bar else None,
                "met": figure.met,
            }
            for figure in figures
        ],
        "commit": provenance.commit(REPOSITORY),
        "versions": {**provenance.versions(), **(versions or {})},
        "machine": provenance.machine(load),
    }


def write(folder: Path, found: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found['name']}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    return path


def table(found: Sequence[dict[str, Any]]) -> Table:
    out = Table(title="Benchmarks", title_justify="left")
    for heading in ("benchmark", "figure", "median", "least to greatest", "bar", "met"):
        out.add_column(heading, justify="right" if heading in ("median", "least to greatest") else "left")
    for result in found:
        for index, figure in enumerate(result["figures"]):
            unit = "" if figure["unit"] == "ratio" else f" {figure['unit']}"
            out.add_row(
                result["name"] if index == 0 else "",
                figure["name"],
                f"{figure['median']:.3g}{unit}",
                f"{figure['least']:.3g} – {figure['greatest']:.3g}",
                figure["bar"] or "",
                {True: "yes", False: "[bold red]NO", None: ""}[figure["met"]],
            )
        out.add_section()
    return out


def _round(value: float) -> float:
    """Four digits: more would be noise that makes files differ."""
    return value if isinstance(value, int) else float(f"{value:.4g}")
