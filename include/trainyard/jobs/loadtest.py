"""The load-test job: asks canary and baseline in turn, keeps every raw sample in S3, says what it saw.

Input: `bucket`, `output` (key prefix), `phase`, `seed`, `model`,
`arms` ({"canary": [url, ...], "baseline": ...}),
`workload` (see `bench.workload.Workload`; its trace lies in S3), `objectives` (see `bench.goodput.Limits`),
where several pods share the load `crew` (see `jobs.terms.Terms`), to observe the gateway's split `split`
({"url", "host", "probes", "canary_name"}), and what `jobs.loadwatch` reads. Writes `samples.ndjson.gz` and,
last, `summary.json`; of several pods only the first does, and only once it has what all measured.

A server that fails or is slow is a result and no error of this job: judging is not its business.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from trainyard.bench.goodput import Limits
from trainyard.bench.load import Described, Taken, measure
from trainyard.bench.rows import Rows
from trainyard.bench.sketch import ACCURACY, Sketch
from trainyard.bench.split import observe_split
from trainyard.bench.summary import QUANTILES
from trainyard.bench.workload import Workload
from trainyard.errors import Problem, Refused
from trainyard.jobs.crew import MeetingPlace
from trainyard.jobs.loadwatch import Beside, observe_only
from trainyard.jobs.runtime import open_store
from trainyard.jobs.terms import Terms
from trainyard.jobs.traces import with_trace
from trainyard.store.transfer import upload_file

# Of more rows the times between tokens are not kept in memory: their percentiles come from sketches.
DETAILED_ROWS = 400_000

log = logging.getLogger("trainyard.jobs")


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Returns where the files are, and the summary in short. Raises Refused, StoreUnavailable, and
    TransientError where one of several pods is lost."""
    _check(job)
    store, prefix, terms = open_store(job), job["output"].rstrip("/") + "/", Terms.from_job(job)
    if job.get("observe_seconds"):
        summary = observe_only(job, store, prefix)
        _close(job, summary, store, prefix)
        return _told(job, summary, prefix)
    crew = MeetingPlace(open_store(job, **terms.s3), prefix, terms)
    try:
        with with_trace(job.get("workload") or {}, store) as described:
            told = _run(job, Workload.from_dict(described), store, prefix, crew)
    except BaseException as error:  # a signal too: nobody is to wait, or to ask the servers, for what is over
        crew.fail(error)
        raise
    if crew.leads:
        crew.clean()
    return told


def _run(
    job: dict[str, Any], workload: Workload, store: Any, prefix: str, crew: MeetingPlace
) -> dict[str, Any]:
    arms = {arm: urls for arm, urls in job["arms"].items() if urls}
    terms, limits = crew.terms, Limits.from_dict(job.get("objectives") or {})
    about = Described(job["model"], arms, workload, int(job.get("seed", 0)), limits, terms.of)
    with ExitStack() as kept:
        with Beside(job, store, workload.seconds) as beside:
            taken = kept.enter_context(
                measure(
                    model=about.model,
                    arms=arms,
                    workload=workload,
                    seed=about.seed,
                    share=crew.share,
                    crew=crew,
                    beat_seconds=terms.beat_seconds,
                    stop=beside.stop,
                    say=log.info,
                )
            )
        if not crew.leads:
            crew.finish(taken)
            return {"worker": terms.index, "of": terms.of}
        taken = crew.gather(taken)
        rows = Rows(taken.files)
        summary = summarized(rows, about, taken) | beside.keep(prefix)
        packed = taken.folder / "samples.ndjson.gz"
        rows.pack(packed)
        upload_file(store, packed, f"{prefix}samples.ndjson.gz")
        _close(job, summary, store, prefix)
    return _told(job, summary, prefix)


def _told(job: Mapping[str, Any], summary: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        "summary": f"s3://{job['bucket']}/{prefix}summary.json",
        "samples": f"s3://{job['bucket']}/{prefix}samples.ndjson.gz",
        "arms": {
            arm: {
                "requests": figures["requests"],
                "failures": figures["failures"],
                "ttft_p95": figures["ttft"].get("p95"),
                "itl_p95": figures["itl"].get("p95"),
            }
            for arm, figures in summary["arms"].items()
        },
        "valid": summary["generator"]["valid"],
        "reasons": summary["generator"]["reasons"],
        "split": summary["split"],
    }


def _close(job: Mapping[str, Any], summary: dict[str, Any], store: Any, prefix: str) -> None:
    """The summary comes last: whoever sees it finds the samples complete."""
    summary["phase"] = job.get("phase", "load")
    if "workload" in summary:
        summary["workload"]["trace"] = (job.get("workload") or {}).get("trace")  # not the file in this pod
    wanted = job.get("split")
    summary["split"] = (
        observe_split(
            wanted["url"],
            canary_name=wanted["canary_name"],
            probes=int(wanted.get("probes", 200)),
            host=wanted.get("host"),
        )
        if wanted
        else None
    )
    store.put(f"{prefix}summary.json", json.dumps(summary, indent=1).encode())


def summarized(rows: Rows, about: Described, taken: Taken, most: int = DETAILED_ROWS) -> dict[str, Any]:
    """The summary. Of more than `most` rows `itl` is from the sketches that every machine kept while it
    measured, and `approximate` says so; all other figures are exact."""
    detailed = len(rows) <= most
    summary = about.summary(rows.held(detailed=detailed), taken.readings)
    if not detailed:
        summary["approximate"] = {"itl": ACCURACY}
        for arm, seen in taken.seen.arms.items():
            summary["arms"][arm]["itl"] = distribution(seen.times["itl"])
    return summary


def distribution(sketch: Sketch) -> dict[str, float | int]:
    """As `bench.summary.distribution`."""
    if not sketch.count:
        return {"count": 0}
    figures = {"mean": sketch.mean, "min": sketch.least, "max": sketch.largest}
    figures |= dict(zip(QUANTILES, sketch.quantiles(QUANTILES.values()), strict=True))
    return {"count": sketch.count, **{key: round(value, 9) for key, value in figures.items()}}


def _check(job: Mapping[str, Any]) -> None:
    problems = [
        Problem(field, job.get(field), "is needed by the load test", "Set it in the job document")
        for field in ("bucket", "output", "model", "arms")
        if not job.get(field)
    ]
    arms = job.get("arms") or {}
    if arms and not arms.get("canary"):
        problems.append(
            Problem("arms.canary", arms.get("canary"), "has no address", "Give its pods' addresses")
        )
    if problems:
        raise Refused(problems)
