"""Ids of releases and runs follow from content."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import PaperHub, entry, paper_context, write_entry
from trainyard import catalogue
from trainyard.asking import ask
from trainyard.spec import Request
from trainyard.stages import plan as stage

RUN_ID = re.compile(r"^[A-Za-z0-9_.~:+-]+$")  # Airflow's allowed_run_id_pattern


def ids(tmp_path: Path, request: Request | None = None, **changes: Any) -> tuple[str, str]:
    """(release id, run id) of a request for an entry."""
    document = entry(**changes)
    write_entry(tmp_path, document)
    request = request or Request(release="llama")
    spec = catalogue.resolve(tmp_path, request)
    plan = stage.make_plan(paper_context(tmp_path), spec)
    return stage.release_id_of(spec, plan, request.request), ask(tmp_path, request, plan.revision).run_id


def test_the_same_content_is_the_same_release_and_the_same_run(tmp_path: Path) -> None:
    assert ids(tmp_path) == ids(tmp_path)


def test_the_tracked_name_is_no_content(tmp_path: Path) -> None:
    sha = PaperHub().sha
    by_name, by_tag, by_sha = (
        ids(tmp_path, Request(release="llama", revision=revision)) for revision in ("main", "v2", sha)
    )
    assert by_name == by_tag == by_sha


@pytest.mark.parametrize(
    "overrides",
    [{"serving": {"replicas": 2}}, {"compile": {"batch_size": 4}}, {"hardware": {"tensor_parallel": 16}}],
)
def test_other_content_is_another_release_and_another_run(tmp_path: Path, overrides: dict[str, Any]) -> None:
    for old, new in zip(
        ids(tmp_path), ids(tmp_path, Request(release="llama", overrides=overrides)), strict=True
    ):
        assert old != new


def test_a_request_id_makes_an_equal_request_a_new_release(tmp_path: Path) -> None:
    first = ids(tmp_path, Request(release="llama", request="again"))
    assert not set(first) & set(ids(tmp_path))
    assert first == ids(tmp_path, Request(release="llama", request="again"))


def test_overrides_that_say_what_the_entry_says_are_the_same_release(tmp_path: Path) -> None:
    overrides = {"compile": {"batch_size": 8}}
    assert ids(tmp_path, Request(release="llama", overrides=overrides)) == ids(tmp_path)


@pytest.mark.parametrize("name", ["a", "llama", "a" * 40, "x" + "-" * 38 + "9"])
def test_ids_fit_airflow_kubernetes_and_s3_for_every_name(tmp_path: Path, name: str) -> None:
    release, run = ids(tmp_path, Request(release=name, request="A_b.c-9" * 9), name=name)
    assert RUN_ID.fullmatch(run)
    assert len(run) <= 250
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", release)
    assert len(release) <= 63


def test_the_run_carries_the_pinned_revision_and_only_what_was_asked(tmp_path: Path) -> None:
    write_entry(tmp_path, entry())
    sha = PaperHub().sha
    assert ask(tmp_path, Request(release="llama"), sha).conf == {"release": "llama", "revision": sha}
    asked = ask(tmp_path, Request(release="llama", overrides={"serving": {"replicas": 2}}, request="x"), sha)
    assert asked.conf == {
        "release": "llama",
        "revision": sha,
        "overrides": {"serving": {"replicas": 2}},
        "request": "x",
    }
