"""What an audit log says was used and written, against what is granted and valid: over a recorded release."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local.apiserver import usage
from tests.e2e import test_what_was_asked as asked
from tests.support import access
from tests.support.access import Granted
from tests.support.manifests import rendered
from tests.support.validation import SHARED_CRDS, Schemas

# A shortened release by Airflow's user against the local API server: 33 requests, one refused (a Secret).
SAMPLE = Path(__file__).parents[1] / "data" / "audit" / "release.jsonl"
JOBS, SERVING = "trainyard-jobs", "trainyard-serving"
Event = dict[str, Any]


@pytest.fixture
def events() -> list[Event]:
    return access.events_of(usage.events(SAMPLE), asked.USER)


def allowed(events: list[Event]) -> list[Event]:
    return [each for each in events if each["responseStatus"]["code"] != 403]


def test_what_was_used_is_told_by_namespace_group_resource_and_verb(events: list[Event]) -> None:
    used = access.used(events)

    assert Granted(JOBS, "", "pods", "create") in used
    assert Granted(JOBS, "", "events", "watch") in used
    assert Granted(JOBS, "", "pods/log", "get") in used
    assert Granted("", "karpenter.sh", "nodeclaims", "list") in used
    assert not any(each.group == "authorization.k8s.io" for each in used)


def test_an_apply_that_creates_and_an_exec_need_create_as_well(events: list[Event]) -> None:
    used = access.used(events)
    verbs = {each.verb for each in used if each.resource == "deployments"}

    assert verbs == {"create", "delete", "get", "patch"}
    assert {each.verb for each in used if each.resource == "pods/exec"} == {"create", "get"}


def test_another_users_requests_count_only_where_it_acts_as_this_one(events: list[Event]) -> None:
    everything = list(usage.events(SAMPLE))
    admins = [each for each in everything if each["user"]["username"] == "admin"]

    assert admins
    assert not {each["auditID"] for each in admins} & {each["auditID"] for each in events}
    acting = [{**each, "impersonatedUser": {"username": asked.USER}} for each in admins]
    assert len(access.events_of(acting, asked.USER)) == len({each["auditID"] for each in admins})


def test_what_is_used_and_not_granted_is_found(events: list[Event]) -> None:
    granted = access.granted(rendered("base"), asked.USER)

    assert access.not_granted(access.used(events), granted) == {Granted(JOBS, "", "secrets", "get")}
    assert access.refused(events) == [f"get /api/v1/namespaces/{JOBS}/secrets/hub-token"]
    assert access.not_granted(access.used(allowed(events)), granted) == set()


def test_what_is_granted_and_never_used_is_found(events: list[Event]) -> None:
    granted = access.granted(rendered("base"), asked.USER)
    unused = access.not_used(granted, access.used(events))

    assert unused == {Granted(SERVING, "", "pods/log", "get")}
    more = {*granted, Granted(JOBS, "", "configmaps", "list")}
    assert access.not_used(more, access.used(events)) - unused == {Granted(JOBS, "", "configmaps", "list")}


def test_a_wide_grant_is_not_used_where_a_narrow_one_is_enough() -> None:
    need = Granted(JOBS, "", "pods", "list")
    wide = Granted("", "", "pods", "list")

    assert access.not_used({need, wide}, {need}) == {wide}
    assert access.not_used({wide}, {need}) == set()


def test_grants_reach_an_account_through_its_bindings_only() -> None:
    objects = rendered("base")

    assert access.granted(objects, "system:serviceaccount:airflow:airflow-triggerer") == access.granted(
        objects, asked.USER
    )
    assert access.granted(objects, "system:serviceaccount:default:airflow-worker") == set()


@pytest.mark.skipif(not SHARED_CRDS.is_dir(), reason="the published CRDs are not beside this checkout")
def test_everything_written_is_checked_as_sent_and_as_answered(events: list[Event]) -> None:
    schemas = Schemas()
    found = {(each.body["kind"], each.what.rpartition(", ")[2]) for each in access.written(events)}

    assert found == {
        (kind, form)
        for kind in ("Pod", "Service", "Deployment", "HTTPRoute")
        for form in ("as sent", "as answered")
    }
    assert access.check_written(events, schemas) == ({"Pod", "Service", "Deployment", "HTTPRoute"}, [])

    # The API server drops what it does not know, and only warns: the request alone shows it.
    misspelt = copy.deepcopy(events)
    apply = next(each for each in misspelt if "deployments" in each["requestURI"] and each["verb"] == "patch")
    apply["requestObject"]["spec"]["template"]["spec"]["priorityClass"] = "trainyard-serving"
    _, problems = access.check_written(misspelt, schemas)
    assert len(problems) == 1
    assert "'priorityClass' was unexpected" in problems[0]


def test_a_patch_that_names_no_kind_is_checked_as_part_of_one(events: list[Event]) -> None:
    partial = [each for each in access.written(events) if each.partial]

    assert {each.body["kind"] for each in partial} == {"Pod", "Deployment", "HTTPRoute"}


def _item(stem: str) -> Any:
    return SimpleNamespace(path=Path(asked.__file__).parent / f"{stem}.py")


@pytest.mark.parametrize(
    ("stems", "keyword", "args", "failed", "words"),
    [
        (asked.NEEDED, "", ["tests/e2e"], 0, ""),
        ({"test_releases"}, "", ["tests/e2e/test_releases.py"], 0, "test_engines, test_faults did not"),
        (asked.NEEDED, "release", ["tests/e2e"], 0, "a choice"),
        (asked.NEEDED, "", ["tests/e2e/test_faults.py::test_x"], 0, "a choice"),
        (asked.NEEDED, "", ["tests/e2e"], 2, "2 tests failed"),
    ],
)
def test_a_run_of_a_part_says_nothing_of_what_is_never_used(
    stems: set[str], keyword: str, args: list[str], failed: int, words: str
) -> None:
    config: Any = SimpleNamespace(option=SimpleNamespace(keyword=keyword), args=args)

    reason = asked.why_not_whole(config, [_item(stem) for stem in stems], failed)

    assert words in reason
    assert bool(words) == bool(reason)
