"""What runs beside a load test in its pod: the record of the servers' own metrics, and the watch that ends
the test early. Or, where no load is wanted, instead of it.

Of the job: `servers` ({arm: [base URL of every server, ...]}) to record their metrics, `observe_seconds` for
a phase without a load, and `watch` ({"objectives": of `rollout.verdict`, "earlier": [key prefix, ...] of the
phase's parts so far}) to end early. The judgement needs numpy, which this job's image has: it is imported
where there is something to watch.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainyard.bench.samples import Sample, one_by_one
from trainyard.bench.scrape import NAME, Row, Scraper, period, unpack_rows
from trainyard.bench.stop import EarlyStop
from trainyard.bench.summary import SCHEMA
from trainyard.errors import NotFound

if TYPE_CHECKING:
    from trainyard.store.objects import Objects

SAMPLES = "samples.ndjson.gz"


class Beside:
    """A context around the load test. stop: for `run_load`; None where nobody watches."""

    def __init__(
        self, job: Mapping[str, Any], store: Objects, seconds: float, *, synthetic: bool = True
    ) -> None:
        self._job, self._store = job, store
        self._file = tempfile.TemporaryFile(prefix="metrics-")  # noqa: SIM115  closed by __exit__
        self._recorded: dict[str, Any] | None = None
        self.alarm = threading.Event()
        self.stopped: dict[str, Any] | None = None
        # Of several pods the first one sees the rows of all, and asks the servers for all.
        leads = not (job.get("crew") or {}).get("index")
        watched = leads and bool(job.get("watch"))
        self.stop = EarlyStop(_watch_samples(job, store)) if synthetic and watched else None
        self._every = period(seconds)
        self._scraper = (
            Scraper(
                job["servers"],
                self._file,
                every=self._every,
                synthetic=synthetic,
                seen=self._watch_servers() if not synthetic and watched else None,
            )
            if leads and job.get("servers")
            else None
        )

    def __enter__(self) -> Beside:
        self._began = time.monotonic()
        if self._scraper:
            self._scraper.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._scraper and self._recorded is None:
            self._recorded = {**self._scraper.stop(), "every_seconds": round(self._every, 3)}

    def keep(self, prefix: str) -> dict[str, Any]:
        """Writes the record to `prefix`; returns what the summary says of all this."""
        if self._recorded is not None:
            self._file.seek(0)
            self._store.put(f"{prefix}{NAME}", self._file.read())
        self._file.close()
        stopped = self.stop.found if self.stop else self.stopped
        watched = {"watched": self.stop.cost()} if self.stop else {}
        return {"live": self._recorded, "stopped": stopped, **watched}

    def _watch_servers(self) -> Callable[[Sequence[Row]], None]:
        from trainyard.rollout.live import Spans, alarms, joined, live_of
        from trainyard.rollout.verdict import Objectives

        objectives = Objectives.from_dict(self._job["watch"]["objectives"])
        spans = Spans({(arm, url) for arm, urls in self._job["servers"].items() for url in urls})
        earlier = [live_of(unpack_rows(body)) for body in _earlier(self._job, self._store, NAME)]

        def seen(rows: Sequence[Row]) -> None:
            spans.add(rows)
            reasons = alarms(joined([*earlier, spans.live]), objectives)
            if reasons and self.stopped is None:
                self.stopped = {"at": round(time.monotonic() - self._began, 3), "reasons": reasons}
                self.alarm.set()

        return seen


def observe_only(job: Mapping[str, Any], store: Objects, prefix: str) -> dict[str, Any]:
    """A phase of real traffic alone: waits and records. Returns its summary."""
    seconds = float(job["observe_seconds"])
    began = time.monotonic()
    with Beside(job, store, seconds, synthetic=False) as beside:
        beside.alarm.wait(seconds)
    return {
        "schema": SCHEMA,
        "model": job["model"],
        "synthetic": False,
        "seconds": round(time.monotonic() - began, 3),
        "addresses": job["arms"],
        "arms": {},
        "generator": {"valid": True, "reasons": []},
        **beside.keep(prefix),
    }


def _watch_samples(
    job: Mapping[str, Any], store: Objects
) -> Callable[[Sequence[Sample]], dict[str, Any] | None]:
    from trainyard.rollout.verdict import Objectives
    from trainyard.rollout.watch import Watcher

    objectives = Objectives.from_dict(job["watch"]["objectives"])
    watcher = Watcher(objectives, paired=bool(job["arms"].get("baseline")))
    # The judge pools the parts of a phase: what it will look at is what is watched.
    for body in _earlier(job, store, SAMPLES):
        watcher.add(one_by_one(body))

    def look(samples: Sequence[Sample]) -> dict[str, Any] | None:
        watcher.add(samples)
        seen = watcher.look()
        if seen is None or seen.alarm is None:
            return None
        return {"pairs": seen.pairs, "alarm": seen.alarm, "reasons": list(seen.seen)}

    return look


def _earlier(job: Mapping[str, Any], store: Objects, name: str) -> list[bytes]:
    found = []
    for prefix in job["watch"].get("earlier") or []:
        try:
            found.append(store.get(f"{prefix}{name}").body)
        except NotFound:  # recorded by an older release, or expired: what is left is watched
            continue
    return found
