"""After all other end-to-end tests: what the API server put on record about Airflow's account.

Every object that it made or changed is valid by the published CRDs and the built-in types, and it needed
exactly the rights that deploy/cluster grants. The record is the audit log of the local API server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local.apiserver import usage
from tests.e2e.yard import Yard
from tests.support import access
from tests.support.access import Granted
from tests.support.manifests import rendered
from tests.support.validation import SHARED_CRDS, Schemas

pytestmark = pytest.mark.e2e

USER = "system:serviceaccount:airflow:airflow-worker"
NEEDED = {"test_engines", "test_faults", "test_releases"}
# Granted, and perhaps not used by these tests, and why it is granted all the same.
RARELY_USED = {
    Granted("trainyard-jobs", "", "pods", "patch"): "the provider marks a failed pod, if it is still there",
    Granted("trainyard-jobs", "", "events", "watch"): "only while a pod waits to be started",
    Granted("", "karpenter.sh", "nodeclaims", "list"): "only while a pod waits for its node: seconds here",
}


def why_not_whole(config: pytest.Config, items: list[pytest.Item], failed: int) -> str:
    """Why this run cannot say what a whole one uses; empty where it can."""
    ran = {item.path.stem for item in items if item.path.parent == Path(__file__).parent}
    missing = sorted(NEEDED - ran)
    if missing:
        return f"only part of the end-to-end tests ran: {', '.join(missing)} did not"
    if config.option.keyword or any("::" in word for word in config.args):
        return "only a choice of the end-to-end tests ran"
    return f"{failed} tests failed before: what they would have used is not on record" if failed else ""


@pytest.fixture(scope="module")
def events(yard: Yard) -> list[dict[str, Any]]:
    """The requests of Airflow's account."""
    log = yard.stack.home / "logs" / "apiserver-audit.log"
    if not log.is_file():
        pytest.skip(f"no audit log at {log}: the control plane is not the local stack's")
    return access.events_of(usage.events(log), USER)


def test_everything_that_airflow_wrote_is_valid(events: list[dict[str, Any]]) -> None:
    if not SHARED_CRDS.is_dir():
        pytest.skip(f"the published CRDs are not beside this checkout ({SHARED_CRDS})")
    kinds, problems = access.check_written(events, Schemas())

    assert {"Pod", "Deployment", "Service", "HTTPRoute"} <= kinds
    assert problems == []


def test_airflow_was_refused_nothing(events: list[dict[str, Any]]) -> None:
    assert access.refused(events) == []


def test_airflow_used_what_it_is_granted_and_nothing_else(
    yard: Yard, events: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    used, granted = access.used(events), access.granted(rendered("overlays/local"), USER)
    assert access.not_granted(used, granted) == set()

    reason = why_not_whole(request.config, request.session.items, request.session.testsfailed)
    if reason:
        pytest.skip(reason)
    if (yard.stack.home / "logs" / "apiserver-audit.log.3").exists():
        pytest.skip("the audit log was rotated so often that its beginning is lost")
    assert access.not_used(granted, used) - set(RARELY_USED) == set()
