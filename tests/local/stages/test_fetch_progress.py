"""How far a fetch is, where people look: the page, the terminal, the record."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.world import World
from trainyard.jobs.fetch import _reporter
from trainyard.jobs.fetch import fetch as fetch_model
from trainyard.jobs.progress import Progress
from trainyard.release import Release
from trainyard.stages import fetch
from trainyard.stages.progress import doing, with_progress
from trainyard.store import keys

WORDS = "512.0 MiB of 1.0 GiB"


@pytest.fixture
def fetching(world: World) -> Release:
    """A release whose fetch pod has told of its progress once."""
    release = world.planned()
    world.again().begin(release, "fetch_model")
    with Progress(
        "fetch", 1 << 30, 8, report=_reporter(world.ctx.objects, keys.progress(release.id))
    ) as told:
        told.add(1 << 29)
        told.finish_file()
    return world.load(release)


def test_pages_and_terminal_show_a_fetch_that_runs(
    world: World, fetching: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainyard_airflow import seams
    from trainyard_airflow.web import pages
    from trainyard_cli import records

    monkeypatch.setattr(seams, "context", world.again)
    monkeypatch.setattr(records, "objects", lambda: world.ctx.objects)
    assert f"fetch_model: {WORDS}" in pages.overview()
    assert WORDS in pages.report_of_release(fetching.model, fetching.id)
    read = records.by_run(lambda: {"model": fetching.model, "release": fetching.id})
    record: Any = read("run-1")
    assert record["stages"]["fetch_model"]["note"].startswith(WORDS)
    assert "1 of 8 files" in doing(with_progress(world.ctx.objects, fetching))


def test_the_waiting_task_writes_it_into_the_record(world: World, fetching: Release) -> None:
    ctx = world.again()
    ctx.note(ctx.load(fetching.model, fetching.id), "fetch_model", fetch.progress(ctx, fetching))
    assert world.load(fetching).stages["fetch_model"].note.startswith(WORDS)


def test_it_goes_when_the_fetch_has_ended(world: World, fetching: Release) -> None:
    fetch_model(world.ctx.objects, world.ctx.hub, fetching.spec.model.repo, fetching.plan.revision)
    ended = fetch.finish(world.again(), fetching)
    assert world.ctx.objects.head_or_none(keys.progress(fetching.id)) is None
    release = world.again().end(fetching, "fetch_model", ended)
    assert doing(with_progress(world.ctx.objects, release)) == ""


def test_what_a_newer_one_wrote_is_passed_over(world: World, fetching: Release) -> None:
    for body in (b"{}", b"no", b'{"schema": 99}', b'{"schema": 1, "done": "much"}'):
        world.ctx.objects.put(keys.progress(fetching.id), body)
        assert with_progress(world.ctx.objects, fetching) == fetching
        assert doing(fetching) == "fetch_model"
