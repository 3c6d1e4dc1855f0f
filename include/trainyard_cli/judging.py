"""`trainyard judge`: judges a recorded release anew, from its raw samples, with other margins if wanted."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from trainyard import catalogue
from trainyard.errors import NotFound, Problem, Refused
from trainyard.release import Release
from trainyard.rollout.verdict import COMPARED
from trainyard.settings import Settings
from trainyard.stages.replay import Margins, Replayed, replay
from trainyard_cli import records

COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow", "infrastructure_fault": "magenta"}
PASSED, NOT_PASSED, NOTHING = 0, 1, 2


def run(
    console: Console, name: str, margins: Margins, *, model: str | None = None, as_json: bool = False
) -> int:
    """0 if every measured phase passes, 1 if one does not, 2 if nothing was measured."""
    release = find(name, model)
    found = replay(records.objects(), release, margins)
    if as_json:
        console.print_json(json.dumps(document(release, found), allow_nan=False))
    else:
        show(console, release, found)
    if not found:
        return NOTHING
    return PASSED if all(each.verdict.outcome == "pass" for each in found) else NOT_PASSED


def ratios(words: list[str]) -> dict[str, float] | None:
    """`1.1` for every metric, `ttft=1.3` for one. Raises Refused."""
    found: dict[str, float] = {}
    for word in words:
        metric, equals, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if (equals and metric not in COMPARED) or not value >= 1:
            remedy = "Write --max-ratio 1.1, or --max-ratio ttft=1.3"
            rule = f"must be a number of at least 1, for one of {', '.join(COMPARED)} or for all"
            raise Refused([Problem("--max-ratio", word, rule, remedy)])
        found |= {metric: value} if equals else dict.fromkeys(COMPARED, value)
    return found or None


def find(name: str, model: str | None) -> Release:
    """A release by its id; a model's name means its newest. Raises NotFound."""
    models = [model] if model else list(catalogue.names(Settings().releases_dir))
    for each in models:
        if each == name:
            newest = records.releases(each)[:1]
            if newest:
                return newest[0]
            raise NotFound(f"{each} was never released.")
        try:
            return records.release(each, name)
        except NotFound:
            continue
    raise NotFound(f"No release {name} of {', '.join(models)}. `trainyard store ls releases` lists them.")


def document(release: Release, found: list[Replayed]) -> dict[str, Any]:
    return {
        "release": release.id,
        "model": release.model,
        "state": release.state,
        "phases": [
            {
                "phase": each.phase,
                "recorded": each.recorded,
                "parts": each.parts,
                "pairs_to_alarm": each.watch.alarm if each.watch else None,
                **each.verdict.to_dict(),
            }
            for each in found
        ],
    }


def show(console: Console, release: Release, found: list[Replayed]) -> None:
    table = Table("phase", "recorded", "now", "alarm", title=f"{release.id} ({release.state})")
    table.title_justify = "left"
    for each in found:
        alarm = (
            f"after {each.watch.alarm} of {each.watch.pairs} pairs" if _alarmed(each) and each.watch else "-"
        )
        now = each.verdict.outcome
        table.add_row(each.phase, _said(each.recorded), f"[{COLOURS[now]}]{_said(now)}[/]", alarm)
    console.print(table)
    for each in found:
        console.print(f"{each.phase}: {each.verdict.summary}", soft_wrap=True, markup=False)
        for reason in each.verdict.reasons:
            console.print(f"  - {reason}", soft_wrap=True, markup=False)
    if not found:
        console.print("Nothing was measured in this release: there is nothing to judge.")


def _alarmed(each: Replayed) -> bool:
    return each.watch is not None and each.watch.alarm is not None


def _said(outcome: str | None) -> str:
    return "-" if outcome is None else outcome.replace("_", " ")
