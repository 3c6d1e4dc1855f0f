"""The story of `make demo`, each chapter a test: they follow each other, as releases of one model do."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.e2e.yard import Yard
from trainyard_cli import demo, records
from trainyard_cli.airflow_api import ApiError
from trainyard_cli.progress import Ended

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def told() -> dict[str, Ended]:
    """Chapters that were told already."""
    return {}


@pytest.fixture
def story(yard: Yard) -> demo.Story:
    return demo.Story(yard.console)


def assert_told(story: demo.Story) -> None:
    wrong = [text for holds, text in story.lines if not holds]
    assert story.lines
    assert not wrong, wrong


def test_a_first_revision_is_promoted_on_its_objectives_alone(
    yard: Yard, story: demo.Story, told: dict[str, Ended], tmp_path: Path
) -> None:
    told["first"] = demo.first(yard.airflow, yard.console, story, yard.stack, tmp_path)
    assert_told(story)
    record = told["first"].record or {}
    assert record["previous"] is None
    assert record["stages"]["step_1"]["state"] == "skipped"
    assert yard.is_free(demo.MODEL)


def test_a_new_revision_is_promoted_by_steps_while_streams_go_on_uncut(
    yard: Yard, story: demo.Story, told: dict[str, Ended], tmp_path: Path
) -> None:
    told["second"] = demo.second(yard.airflow, yard.console, story, yard.stack, tmp_path, told["first"])
    assert_told(story)
    record = told["second"].record or {}
    shares = [weights["percent"].get(record["id"], 0) for weights in record["weights"]]
    assert shares == [5, 25, 50, 100]
    # Of 200 probes, beside the client's streams: so far off the judge itself would call the split wrong.
    assert [weights["observed"][record["id"]] for weights in record["weights"][:3]] == pytest.approx(
        [0.05, 0.25, 0.5], abs=0.12
    )


def test_the_same_release_again_does_nothing_and_says_so(
    yard: Yard, story: demo.Story, told: dict[str, Ended]
) -> None:
    demo.again(yard.airflow, yard.console, story, told["second"])
    assert_told(story)


def test_the_refresh_finds_nothing_new_the_second_time(yard: Yard) -> None:
    before = {run.run_id for run in yard.airflow.runs("model_release")}
    refresh = yard.airflow.trigger("model_refresh", None, {})
    yard.wait_for("the refresh", lambda: yard.airflow.run("model_refresh", refresh.run_id).state == "success")
    new = {run.run_id for run in yard.airflow.runs("model_release")} - before
    assert not [run_id for run_id in new if run_id.startswith(f"{demo.MODEL}__")]
    for run_id in new:  # the other models of this catalogue have never been released: stop those
        yard.airflow.stop("model_release", run_id)


def test_a_slower_revision_is_rolled_back_and_stable_is_untouched(
    yard: Yard, story: demo.Story, told: dict[str, Ended], tmp_path: Path
) -> None:
    demo.third(yard.airflow, yard.console, story, yard.stack, tmp_path, told["second"])
    assert_told(story)
    assert yard.is_free(demo.MODEL)
    # Its load test was not run to the end, and both arms' servers were scraped meanwhile.
    found = {release.id: release.verdicts for release in records.releases(demo.MODEL)}
    load = next(iter(found.values()))["load"]
    assert load["outcome"] == "fail"
    assert load["summary"]["stopped"]["reasons"], load["summary"]
    assert any("the load test was stopped after" in check["text"] for check in load["checks"]), load["checks"]
    assert load["summary"]["live"]["servers"] >= 2
    equal = found[(told["second"].record or {})["id"]]
    assert not [phase for phase, verdict in equal.items() if verdict["summary"].get("stopped")]
    assert all(verdict["summary"]["live"]["moments"] > 2 for verdict in equal.values())


def test_every_release_left_a_report_that_airflow_shows_to_who_may_see_it(yard: Yard) -> None:
    releases = records.releases(demo.MODEL)
    assert len(releases) >= 3
    for release in releases:
        page = yard.airflow.page(f"/trainyard/runs/{release.run}/report")
        assert release.id in page
        assert "<script" not in page
    path = f"{yard.airflow.url}/trainyard/runs/{releases[0].run}/report"
    assert httpx.get(path, trust_env=False).status_code in (401, 403)


@pytest.mark.parametrize(
    ("conf", "word"),
    [
        ({"release": "no-such-model"}, "no-such-model"),
        ({"release": "../tiny-llama"}, "tiny-llama"),
        ({"release": "tiny-llama", "overrides": {"hardware": {"tensor_paralel": 4}}}, "tensor_paralel"),
        ({"release": "tiny-llama", "overrides": {"serving": {"replicas": 0}}}, "0"),
        ({"release": "tiny-llama", "revision": "../../main"}, "main"),
    ],
)
def test_what_the_schema_can_refuse_is_refused_by_the_api_itself(
    yard: Yard, conf: dict[str, object], word: str
) -> None:
    with pytest.raises(ApiError) as refused:
        yard.airflow.trigger("model_release", None, conf)
    assert refused.value.status == 400
    assert word in refused.value.detail


def test_what_only_the_plan_can_know_is_refused_there_with_field_rule_and_remedy(yard: Yard) -> None:
    run_id = yard.ask(demo.MODEL, hardware__tensor_parallel=3)
    yard.wait_for("the refusal", lambda: yard.ended(run_id))
    assert yard.task(run_id, "plan")["state"] == "failed"
    assert yard.task(run_id, "fetch_model")["state"] == "upstream_failed"
    log = yard.airflow.log("model_release", run_id, "plan")
    assert "hardware.tensor_parallel = 3" in log
    assert "engine optimum takes TP 1, 2, 4, 8, 16, 32, 64" in log
