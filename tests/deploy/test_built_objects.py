"""What the pipeline builds, against the published schemas and against what deploy/cluster provides for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import of_kind, rendered
from tests.support.models import entry, paper_context, write_entry
from tests.support.validation import SHARED_CRDS, Schemas
from tests.unit.kube.test_manifests_of_releases import pods
from trainyard.kube.permissions import AWS, GATEWAY, KARPENTER
from trainyard.kube.servers import deployment, service
from trainyard.kube.traffic import route_manifest
from trainyard.release import Release
from trainyard.spec import Request
from trainyard.stages import plan
from trainyard.stages.build import servers_of
from trainyard.stages.context import Context

Obj = dict[str, Any]


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    write_entry(tmp_path, entry(model={"repo": "meta/llama", "token_secret": "hub-token"}))
    return paper_context(tmp_path)


@pytest.fixture
def release(ctx: Context) -> Release:
    found = plan.run(ctx, Request(release="llama"), "run-1").release
    assert found is not None
    return found


def built(ctx: Context, release: Release) -> list[Obj]:
    """Everything that one release makes in the cluster."""
    servers = servers_of(release, ctx.settings)
    jobs = [pod for name, pod in pods(ctx, release).items() if name != "server"]
    route = route_manifest(
        release.model, "trainyard-serving", "trainyard", "trainyard-serving", {release.id: 100}, 1
    )
    fence = route_manifest(release.model, "trainyard-serving", "", "", {}, 1)
    return [*jobs, deployment(servers), service(servers), route, fence]


@pytest.mark.skipif(not SHARED_CRDS.is_dir(), reason="the published CRDs are not beside this checkout")
def test_what_a_release_makes_is_valid(ctx: Context, release: Release) -> None:
    schemas, objects = Schemas(), built(ctx, release)

    assert {each["kind"] for each in objects} == {"Pod", "Deployment", "Service", "HTTPRoute"}
    assert [problem for each in objects for problem in schemas.problems(each)] == []


def test_every_account_pool_and_priority_that_a_pod_names_is_provided(ctx: Context, release: Release) -> None:
    provided = rendered("base")
    templates = [
        (each["metadata"]["namespace"], each["spec"].get("template", each)["spec"])
        for each in built(ctx, release)
        if each["kind"] in ("Pod", "Deployment")
    ]
    accounts = {
        (each["metadata"]["namespace"], each["metadata"]["name"])
        for each in provided
        if each["kind"] == "ServiceAccount"
    }

    for namespace, spec in templates:
        assert spec["priorityClassName"] in of_kind(provided, "PriorityClass")
        pool = spec.get("nodeSelector", {}).get("karpenter.sh/nodepool", "neuron-trn2")
        assert pool in of_kind(provided, "NodePool")
        if namespace.startswith("trainyard-"):  # not where the load test's example is
            assert (namespace, spec["serviceAccountName"]) in accounts


def test_the_groups_of_the_rights_are_those_of_the_manifests() -> None:
    groups = {each["apiVersion"].partition("/")[0] for each in rendered("base")}

    assert {GATEWAY, KARPENTER, AWS} <= groups
