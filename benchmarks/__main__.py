"""`python -m benchmarks [--full] [--only NAME] [--list]`: measures, prints a table, writes JSON.

Results go to `build/bench/NAME.json`.

Exit status: 0 when everything was measured, whether the bars are met or not: a bar that is missed on a busy
machine is a finding, no error. With --strict, 1 when one is missed. 2 when something could not be measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import registry, results
from benchmarks.model import Benchmark, NotMeasured, Options

REPOSITORY = Path(__file__).resolve().parents[1]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Performance beside a named peer."
    )
    parser.add_argument("--full", action="store_true", help="all of them, also those of a minute and more")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="this one; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument(
        "--pairs", type=int, help="measure so many pairs (default: what each benchmark needs)"
    )
    parser.add_argument(
        "--home", type=Path, help="use the stack that runs in this folder, where one is needed"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bar is missed")
    return parser


def main() -> int:
    given, console = arguments().parse_args(), Console()
    try:
        known = registry.benchmarks()
        if given.list:
            console.print(_listing(known))
            return 0
        chosen = registry.select(known, only=given.only, full=given.full)
    except registry.UnknownBenchmark as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    found, failed = [], False
    for benchmark in chosen:
        console.print(f"[bold]{benchmark.name}[/]: {benchmark.claim} (about {benchmark.seconds:.0f} s)")
        load, begun = os.getloadavg()[0], time.monotonic()
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            options = Options(
                REPOSITORY, Path(scratch), given.pairs, given.home, lambda text: console.print(f"  {text}")
            )
            try:
                figures = benchmark.measure(options)
            except NotMeasured as error:
                failed = True
                print(f"benchmarks: {benchmark.name}: {error}", file=sys.stderr)
                continue
        found.append(results.document(benchmark, figures, load, pairs=given.pairs, versions=options.versions))
        path = results.write(REPOSITORY / "build" / "bench", found[-1])
        console.print(f"  {time.monotonic() - begun:.0f} s, {path.relative_to(REPOSITORY)}")
    console.print(results.table(found))
    missed = not all(result["met"] for result in found)
    return 2 if failed else int(given.strict and missed)


def _listing(known: list[Benchmark]) -> Table:
    out = Table()
    for heading in ("name", "claim", "peer", "about"):
        out.add_column(heading)
    for benchmark in known:
        out.add_row(benchmark.name, benchmark.claim, benchmark.peer, f"{benchmark.seconds:.0f} s")
    return out


if __name__ == "__main__":
    sys.exit(main())
