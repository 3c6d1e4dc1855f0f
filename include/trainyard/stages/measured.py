"""What the load tests of a phase left in the bucket, its parts put together."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.bench.rows import compact
from trainyard.bench.samples import Sample
from trainyard.bench.scrape import NAME, unpack_rows
from trainyard.bench.summary import summarize
from trainyard.errors import CorruptArtifact, Inconclusive, NotFound
from trainyard.release import Release
from trainyard.rollout.live import Live, joined, live_of
from trainyard.stages.figures import limits_of
from trainyard.store.objects import Objects

Part = tuple[str, dict[str, Any]]  # its prefix and its summary


@dataclass(frozen=True)
class Measured:
    """All parts of a phase together: a part is one run of the load test, an extension adds another.

    live: what the servers said meanwhile; None where nobody recorded it.
    """

    samples: tuple[Sample, ...]
    summary: dict[str, Any]
    parts: int
    live: Live | None = None


def prefix(release: Release, phase: str) -> str:
    return f"measurements/{release.model}/{release.id}/{phase}/"


def summaries(objects: Objects, release: Release, phase: str) -> Iterator[Part]:
    """Of each part, its prefix and its summary. Raises CorruptArtifact."""
    start = prefix(release, phase)
    for info in sorted(objects.list(start), key=lambda item: item.key):
        if info.key.endswith("/summary.json"):
            body = objects.get(info.key).body
            try:
                summary = json.loads(body)
                summary["generator"]["valid"], summary["arms"]
            except (ValueError, KeyError, TypeError) as error:
                raise CorruptArtifact(f"{info.key} is no summary: {error!r}") from None
            yield info.key.removesuffix("summary.json"), summary


def counted(found: Sequence[Part]) -> list[Part]:
    """Those whose figures are in the phase's summary: the valid ones; without one the last, to show why."""
    return [(part, summary) for part, summary in found if summary["generator"]["valid"]] or list(found[-1:])


def gather(objects: Objects, release: Release, phase: str) -> Measured:
    """Adds the phase's valid parts up. Raises Inconclusive where there is none, CorruptArtifact."""
    samples: list[Sample] = []
    lives: list[Live] = []
    good: list[dict[str, Any]] = []
    found = list(summaries(objects, release, phase))
    for part, summary in found:
        if not summary["generator"]["valid"]:
            continue
        if summary.get("synthetic") is not False:
            rows = _rows(objects, part)
            _check_rows(part, rows, summary)
            samples += rows
        if summary.get("live"):
            lives.append(_live(objects, part))
        good.append(summary)
    if not found:
        raise Inconclusive(f"The load test of {phase} left no result.")
    base = good[-1] if good else found[-1][1]
    if good:
        arms = summarize(samples, list(base["arms"]), limits_of(release))
        stopped = [summary["stopped"] for summary in good if summary.get("stopped")]
        base = {**base, "arms": arms, "stopped": stopped[-1] if stopped else None}
    return Measured(tuple(samples), base, len(found), joined(lives) if lives else None)


def _rows(objects: Objects, part: str) -> list[Sample]:
    name = f"{part}samples.ndjson.gz"
    body = io.BytesIO(objects.get(name).body)
    try:
        return compact(gzip.GzipFile(fileobj=body))
    except (ValueError, TypeError, KeyError, IndexError, OSError, EOFError, zlib.error) as error:
        raise CorruptArtifact(f"{name} cannot be read: {error}") from None


def _live(objects: Objects, part: str) -> Live:
    try:
        return live_of(unpack_rows(objects.get(f"{part}{NAME}").body))
    except NotFound:
        return Live((), covered=0.0)  # a gap: what it means depends on what else there is
    except (ValueError, KeyError, OSError, EOFError, zlib.error) as error:
        raise CorruptArtifact(f"{part}{NAME} cannot be read: {error}") from None


def _check_rows(part: str, rows: list[Sample], summary: dict[str, Any]) -> None:
    """Pooling counts anew, so rows that were lost on the way have to be missed here. Raises
    CorruptArtifact."""
    for arm, figures in summary["arms"].items():
        count = sum(row.arm == arm for row in rows)
        if count != figures["requests"]:
            raise CorruptArtifact(
                f"{part}samples.ndjson.gz has {count} rows of {arm}, its summary says {figures['requests']}."
            )
