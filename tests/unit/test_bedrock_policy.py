"""Whether an entry is in step with Bedrock: versions, ends, commits, and the words for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.bedrock_policy import LEAST_NOTICE, Offered, Step, compare, order, parse_id
from trainyard.spec import Bedrock

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LLAMA = "meta.llama3-1-8b-instruct"
ONE, TWO = "1" * 40, "2" * 40

VERSIONS = st.one_of(
    st.integers(0, 30).map(lambda major: f"v{major}"),
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: f"v{pair[0]}:{pair[1]}"),
)
STATUSES = st.sampled_from(["ACTIVE", "LEGACY"])
VARIANTS = st.sampled_from(["", ":128k", ":512", ":mm", ":1m"])
BASES = st.sampled_from([LLAMA, "meta.llama3-1-70b-instruct", "anthropic.claude", f"{LLAMA}-v1"])
ENDS = st.one_of(st.none(), st.integers(-900, 900).map(lambda days: NOW + timedelta(days=days)))
OFFERS = st.lists(
    st.builds(
        lambda base, version, variant, status, ends: Offered(f"{base}-{version}{variant}", status, ends),
        *(BASES, VERSIONS, VARIANTS, STATUSES, ENDS),
    ),
    max_size=12,
)
COMMITS = st.sampled_from([None, ONE, TWO])


def step(
    *offered: Offered | str,
    version: str = "v1:0",
    model_id: str = LLAMA,
    revision: str | None = None,
    tracked: str | None = None,
    stable: str | None = None,
) -> Step:
    named = Bedrock(model_id=model_id, version=version, revision=revision)
    models = [Offered(each) if isinstance(each, str) else each for each in offered]
    return compare(named, models, tracked, stable, region="us-east-2", now=NOW)


def fields(found: Step) -> list[str]:
    return [each.field for each in found.mismatches]


# -- ids and versions


@pytest.mark.parametrize(
    ("model_id", "parts"),
    [
        ("meta.llama3-1-8b-instruct-v1:0", ("meta.llama3-1-8b-instruct", "v1:0", "")),
        ("meta.llama3-1-8b-instruct-v1:0:128k", ("meta.llama3-1-8b-instruct", "v1:0", "128k")),
        ("mistral.mistral-7b-instruct-v0:2", ("mistral.mistral-7b-instruct", "v0:2", "")),
        ("deepseek.v3-v1:0", ("deepseek.v3", "v1:0", "")),
        ("anthropic.claude-v2:1:18k", ("anthropic.claude", "v2:1", "18k")),
        ("cohere.embed-english-v3:0:512", ("cohere.embed-english", "v3:0", "512")),
        ("amazon.titan-text-express-v1", ("amazon.titan-text-express", "v1", "")),
        ("openai.gpt-oss-120b-1:0", ("openai.gpt-oss-120b", "1:0", "")),
        ("minimax.minimax-m2", None),
        ("meta.llama3-1-8b-instruct", None),
    ],
)
def test_ids_as_bedrock_writes_them_are_taken_apart(model_id: str, parts: Any) -> None:
    assert parse_id(model_id) == parts


@given(BASES, VERSIONS, VARIANTS)
def test_an_id_is_the_sum_of_its_parts(base: str, version: str, variant: str) -> None:
    parts = parse_id(f"{base}-{version}{variant if ':' in version else ''}")
    assert parts is not None
    assert (parts.base, parts.version) == (base, version)


@given(st.text(max_size=60))
def test_any_text_is_an_id_or_none(text: str) -> None:
    parts = parse_id(text)
    assert parts is None or order(parts.version) >= (0, 0)


def test_versions_are_numbers_not_texts() -> None:
    versions = ["v10:0", "v2:0", "v1:10", "v1:2", "v1:0", "v0:2"]
    assert sorted(versions, key=order) == ["v0:2", "v1:0", "v1:2", "v1:10", "v2:0", "v10:0"]
    assert order("v1") == order("v1:0") == order("1:0")


# -- what Bedrock has


def test_the_named_version_and_nothing_newer_is_in_step() -> None:
    found = step(f"{LLAMA}-v1:0", f"{LLAMA}-v0:9", f"{LLAMA}-v1:0:128k", "meta.llama3-3-70b-instruct-v2:0")
    assert found.state == "in_step"
    assert found.words == f"In step with {LLAMA}-v1:0 of Bedrock in us-east-2."


def test_a_newer_version_is_told_and_is_no_mismatch() -> None:
    found = step(f"{LLAMA}-v1:0", f"{LLAMA}-v1:1", f"{LLAMA}-v10:0", f"{LLAMA}-v2:0")
    assert (found.state, found.mismatches) == ("notice", ())
    (notice,) = found.notices
    assert (notice.field, notice.value, notice.there) == ("bedrock.version", "v1:0", "Bedrock has v10:0 too")


def test_a_longer_context_and_a_legacy_version_are_not_newer() -> None:
    found = step(f"{LLAMA}-v1:0", f"{LLAMA}-v2:0:128k", Offered(f"{LLAMA}-v3:0", "LEGACY"))
    assert found.state == "in_step"


def test_a_version_that_is_gone_names_those_that_are_there() -> None:
    found = step(f"{LLAMA}-v2:0", Offered(f"{LLAMA}-v1:1", "LEGACY"), f"{LLAMA}-v1:0:128k")
    assert fields(found) == ["bedrock.version"]
    assert found.words == (
        f"Out of step with {LLAMA}-v1:0 of Bedrock in us-east-2. bedrock.version = v1:0: Bedrock in "
        "us-east-2 does not have it any more, or not yet; it has v1:1, v2:0. Name one of these "
        "(written v2:0), or take `bedrock` out of the entry."
    )


def test_v1_is_not_the_id_v1_0_and_the_words_say_how_to_write_it() -> None:
    assert "written v1)" in step(f"{LLAMA}-v1").words


def test_a_model_that_is_not_there_is_a_mismatch_of_its_id() -> None:
    found = step("meta.llama3-3-70b-instruct-v1:0")
    assert fields(found) == ["bedrock.model_id"]
    assert "Bedrock in us-east-2 has no such model" in found.words


def test_an_inference_profile_is_pointed_to_its_model() -> None:
    found = step(f"{LLAMA}-v1:0", model_id=f"us.{LLAMA}")
    assert "without the prefix of an inference profile" in found.words


@pytest.mark.parametrize(
    ("days", "state"),
    [(400, "notice"), (90, "notice"), (89, "out_of_step"), (0, "out_of_step"), (-5, "out_of_step")],
)
def test_the_end_of_a_legacy_version_becomes_urgent(days: int, state: str) -> None:
    ends = NOW + timedelta(days=days)
    found = step(Offered(f"{LLAMA}-v1:0", "LEGACY", ends))
    assert found.state == state
    assert f"{'ended' if days <= 0 else 'ends'} it on {ends:%Y-%m-%d}" in found.words


def test_legacy_without_a_date_is_told() -> None:
    found = step(Offered(f"{LLAMA}-v1:0", "LEGACY"))
    assert found.state == "notice"
    assert "does not say until when" in found.words


def test_a_status_that_nobody_knows_is_not_taken_for_active() -> None:
    found = step(Offered(f"{LLAMA}-v1:0", "PREVIEW"))
    assert found.state == "notice"
    assert "PREVIEW" in found.words


def test_an_end_without_a_time_zone_is_utc() -> None:
    ends = (NOW + LEAST_NOTICE).replace(tzinfo=None)
    assert step(Offered(f"{LLAMA}-v1:0", "LEGACY", ends)).state == "notice"


# -- what we have


@pytest.mark.parametrize(
    ("tracked", "stable", "wrong"),
    [
        (ONE, ONE, []),
        (ONE, None, []),
        (TWO, ONE, ["model.revision"]),
        (ONE, TWO, ["stable"]),
        (TWO, TWO, ["model.revision", "stable"]),
    ],
)
def test_both_commits_must_be_the_named_one(tracked: str, stable: str | None, wrong: list[str]) -> None:
    found = step(f"{LLAMA}-v1:0", revision=ONE, tracked=tracked, stable=stable)
    assert fields(found) == wrong
    assert all("v1:0 equals 111111111111" in str(each) for each in found.mismatches)
    assert all(each.value == TWO[:12] for each in found.mismatches)


def test_without_a_named_commit_any_may_serve() -> None:
    assert step(f"{LLAMA}-v1:0", tracked=ONE, stable=TWO).state == "in_step"


# -- always


@given(OFFERS, VERSIONS, COMMITS, COMMITS, COMMITS)
def test_in_step_means_all_that_was_named_is_so(
    offered: list[Offered], version: str, revision: str | None, tracked: str | None, stable: str | None
) -> None:
    found = step(*offered, version=version, revision=revision, tracked=tracked, stable=stable)
    there = [each for each in offered if each.model_id == f"{LLAMA}-{version}"]
    same = revision is None or {tracked, stable} <= {revision, None}
    if found.state != "out_of_step":
        assert there
        assert same
    else:
        ending = bool(there) and there[0].status == "LEGACY" and there[0].ends is not None
        assert not there or not same or ending
    if found.state == "in_step":
        assert there[0].status == "ACTIVE"


@given(OFFERS, VERSIONS)
def test_only_a_greater_active_version_of_the_same_id_is_called_newer(
    offered: list[Offered], version: str
) -> None:
    found = step(*offered, version=version)
    named = any(each.model_id == f"{LLAMA}-{version}" for each in offered)
    ids = [parse_id(each.model_id) for each in offered if each.status == "ACTIVE"]
    greater = {
        order(each.version)
        for each in ids
        if each and each.base == LLAMA and not each.variant and order(each.version) > order(version)
    }
    said = [each.there for each in found.notices if each.there.startswith("Bedrock has ")]
    assert bool(said) == (named and bool(greater))
    if said:
        assert order(said[0].split()[2]) == max(greater)


@given(OFFERS, VERSIONS, COMMITS, COMMITS, COMMITS, st.randoms())
def test_the_order_of_the_list_does_not_matter(
    offered: list[Offered], version: str, revision: Any, tracked: Any, stable: Any, random: Any
) -> None:
    offered = list({each.model_id: each for each in offered}.values())
    shuffled = random.sample(offered, len(offered))
    made: dict[str, Any] = {"version": version, "revision": revision, "tracked": tracked, "stable": stable}
    assert step(*offered, **made) == step(*shuffled, **made)


@given(OFFERS, VERSIONS, COMMITS, COMMITS, COMMITS)
def test_every_finding_says_what_to_do(
    offered: list[Offered], version: str, revision: Any, tracked: Any, stable: Any
) -> None:
    found = step(*offered, version=version, revision=revision, tracked=tracked, stable=stable)
    for each in (*found.mismatches, *found.notices):
        assert each.field
        assert each.value
        assert each.there
        assert each.remedy.endswith(".")
        assert str(each) in found.words
    document = found.document()
    assert document["state"] == found.state
    assert len(document["mismatches"]) == len(found.mismatches)
