"""`model.source`: what it may say, and how it agrees with repo and revision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.models import entry, write_entry
from trainyard import catalogue
from trainyard.errors import Refused
from trainyard.spec import ModelSource, Request, parse_spec

SHA = "a" * 40


def model(**fields: Any) -> ModelSource:
    return parse_spec(entry(model=fields), "here").model


def test_the_hub_by_its_address_is_repo_and_revision() -> None:
    plain = model(repo="meta/llama", revision="v2")
    assert model(source="hf://meta/llama@v2") == plain
    assert model(source="hf://meta/llama@v2", repo="meta/llama", revision="v2") == plain
    assert model(source="hf://meta/llama", revision="v2") == plain
    assert plain.source is None


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "hf://meta/llama@v2", "repo": "meta/other"},
        {"source": "hf://meta/llama@v2", "repo": "meta/llama", "revision": "v3"},
        {"source": "s3://bucket/model"},
        {"source": "s3://bucket/model", "repo": "meta/llama", "revision": "v2"},
        {"source": "gs://bucket/model", "repo": "meta/llama"},
        {"source": "hf://no-repo", "revision": "main"},
    ],
)
def test_a_source_that_contradicts_or_means_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        model(**fields)
    assert all(problem.field.startswith("model") for problem in caught.value.problems)


def test_a_prefix_is_followed_or_pinned() -> None:
    assert model(source="s3://bucket/model", repo="meta/llama").revision == "main"
    assert model(source="s3://bucket/model", repo="meta/llama", revision=SHA).revision == SHA


def test_a_request_pins_and_replaces_what_an_entry_says_by_address(tmp_path: Path) -> None:
    write_entry(tmp_path, entry(model={"source": "hf://meta/llama@main"}))
    pinned = catalogue.resolve(tmp_path, Request(release="llama", revision=SHA))
    assert (pinned.model.repo, pinned.model.revision) == ("meta/llama", SHA)
    other = Request(release="llama", overrides={"model": {"source": "hf://meta/other@v2"}})
    assert catalogue.resolve(tmp_path, other).model == ModelSource(repo="meta/other", revision="v2")
    write_entry(tmp_path, entry(model={"repo": "meta/llama", "source": "s3://bucket/model"}))
    assert catalogue.resolve(tmp_path, other).model == ModelSource(repo="meta/other", revision="v2")
