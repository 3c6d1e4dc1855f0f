"""Every pod that Trainyard makes: restricted, on Neuron chips only, without a secret in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.models import entry, paper_context, write_entry
from trainyard import catalogue
from trainyard.kube.servers import deployment, service
from trainyard.release import Release
from trainyard.spec import Request
from trainyard.stages import compile as compile_stage
from trainyard.stages import fetch, plan
from trainyard.stages.build import servers_of
from trainyard.stages.context import Context

Obj = dict[str, Any]
POD_SECRET, HUB_TOKEN = "AKIA-CANARY-KEY", "hf_canary_token_0123"


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """What a worker has in its environment must never leave it."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, HUB_TOKEN)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, POD_SECRET)
    document = entry(model={"repo": "meta/llama", "token_secret": "hub-token"})
    document["compile"]["annotations"] = {"example.com/team": "x"}
    write_entry(tmp_path, document)
    return paper_context(tmp_path)


@pytest.fixture
def release(ctx: Context) -> Release:
    found = plan.run(ctx, Request(release="llama"), "run-1").release
    assert found is not None
    return found


def loadtest(ctx: Context, release: Release) -> Obj:
    from trainyard.kube.pods import cpu_job

    return cpu_job(
        name="load-x",
        namespace="jobs",
        job_name="loadtest",
        job={"x": 1},
        image="trainyard-jobs:1",
        service_account="trainyard-loadtest",
        model=release.model,
        release=release.id,
        deadline_seconds=60,
    )


def pods(ctx: Context, release: Release) -> dict[str, Obj]:
    """Pod (or pod template) by what it is for."""
    found = {
        "fetch": fetch.pod(ctx, release),
        "compile": compile_stage.pod(ctx, release),
        "loadtest": loadtest(ctx, release),
        "server": deployment(servers_of(release, ctx.settings))["spec"]["template"],
    }
    assert all(isinstance(each, dict) for each in found.values())
    return found  # type: ignore[return-value]


def containers(pod: Obj) -> Iterator[Obj]:
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


ALL = pytest.mark.parametrize("name", ["fetch", "compile", "loadtest", "server"])
NEURON = pytest.mark.parametrize("name", ["compile", "server"])


@ALL
def test_pods_meet_the_pod_security_standard_restricted(ctx: Context, release: Release, name: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/ field by field."""
    pod = pods(ctx, release)[name]
    spec = pod["spec"]
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        assert field not in spec
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "sysctls" not in spec["securityContext"]
    for volume in spec["volumes"]:
        assert set(volume) - {"name"} <= {"configMap", "emptyDir", "projected", "secret", "ephemeral"}
    for container in containers(pod):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context.get("runAsNonRoot", True) is True
        assert not context.get("privileged")
        assert "procMount" not in context
        assert not any(port.get("hostPort") for port in container.get("ports", []))
    assert spec["automountServiceAccountToken"] is False


@ALL
def test_only_chips_are_asked_for_and_every_container_has_a_memory_limit(
    ctx: Context, release: Release, name: str
) -> None:
    for container in containers(pods(ctx, release)[name]):
        for amounts in container["resources"].values():
            assert set(amounts) <= {"cpu", "memory", "aws.amazon.com/neuron"}
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    chips = [
        container["resources"]["limits"].get("aws.amazon.com/neuron")
        for container in containers(pods(ctx, release)[name])
    ]
    assert [each for each in chips if each] == (["2"] if name in ("compile", "server") else [])


@NEURON
def test_neuron_pods_are_placed_tolerated_and_left_in_peace(
    ctx: Context, release: Release, name: str
) -> None:
    pod = pods(ctx, release)[name]
    spec, annotations = pod["spec"], pod["metadata"]["annotations"]
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    assert {"key": "aws.amazon.com/neuron", "operator": "Exists", "effect": "NoSchedule"} in spec[
        "tolerations"
    ]
    assert spec["nodeSelector"] == {
        "node.kubernetes.io/instance-type": "trn2.48xlarge",
        "karpenter.sh/nodepool": "neuron-trn2",
    }


@ALL
def test_no_pod_names_a_scheduler_of_its_own(ctx: Context, release: Release, name: str) -> None:
    assert "schedulerName" not in pods(ctx, release)[name]["spec"]


@pytest.mark.parametrize("name", ["fetch", "compile", "loadtest"])
def test_jobs_end_once_and_for_all_by_a_deadline(ctx: Context, release: Release, name: str) -> None:
    spec = pods(ctx, release)[name]["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["activeDeadlineSeconds"] > 0


def test_the_hub_token_comes_by_reference_only(ctx: Context, release: Release) -> None:
    pod = pods(ctx, release)["fetch"]
    (token,) = [item for item in pod["spec"]["containers"][0]["env"] if item["name"] == "HF_TOKEN"]
    assert token == {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub-token", "key": "token"}}}


def test_no_secret_of_the_worker_is_in_a_manifest_a_record_or_a_log(
    ctx: Context, release: Release, caplog: pytest.LogCaptureFixture
) -> None:
    written = json.dumps(pods(ctx, release)) + json.dumps(release.document()) + caplog.text
    for body in ctx.objects.content.values():  # type: ignore[attr-defined]
        written += body.decode()
    for secret in (POD_SECRET, HUB_TOKEN):
        assert secret not in written


def test_the_server_has_time_for_its_streams_and_its_first_start(ctx: Context, release: Release) -> None:
    spec = pods(ctx, release)["server"]["spec"]
    (server,) = spec["containers"]
    hook = server["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[2] == "quiesce"
    waits = int(hook[hook.index("--seconds") + 1])
    assert waits == release.spec.serving.grace_seconds
    assert spec["terminationGracePeriodSeconds"] > waits
    assert "vllm:num_requests_running" in hook[hook.index("--gauges") + 1]
    probe = server["startupProbe"]
    deadline = release.spec.serving.ready_deadline_minutes * 60
    assert probe["periodSeconds"] * probe["failureThreshold"] >= deadline
    assert probe["exec"]["command"][2] == "probe"


def test_what_serves_goes_before_what_compiles(ctx: Context, release: Release) -> None:
    file = Path(__file__).resolve().parents[3] / "deploy/cluster/base/priorities.yaml"
    classes = {item["metadata"]["name"]: item["value"] for item in yaml.safe_load_all(file.read_text())}
    found = {part: classes[pod["spec"]["priorityClassName"]] for part, pod in pods(ctx, release).items()}
    assert all(value < found["server"] for part, value in found.items() if part != "server")


def test_a_volume_for_the_compile_cache_is_mounted_only_where_one_is_named(
    ctx: Context, release: Release
) -> None:
    spec = pods(ctx, release)["compile"]["spec"]
    assert "persistentVolumeClaim" not in json.dumps(spec)
    settings = ctx.settings.model_copy(update={"compile_cache_claim": "neffs"})
    named = compile_stage.pod(replace(ctx, settings=settings), release)
    assert isinstance(named, dict)
    volume = next(item for item in named["spec"]["volumes"] if item["name"] == "cache")
    assert volume["persistentVolumeClaim"] == {"claimName": "neffs"}
    mounts = {mount["name"]: mount["mountPath"] for mount in named["spec"]["containers"][0]["volumeMounts"]}
    job = json.loads(named["spec"]["containers"][0]["env"][0]["value"])
    assert mounts["cache"] == job["cache"]["dir"]
    assert job["cache"]["shared"] is True


def test_servers_share_a_cache_on_their_node_only_where_a_volume_is_named(
    ctx: Context, release: Release
) -> None:
    assert "node-cache" not in json.dumps(deployment(servers_of(release, ctx.settings)))
    settings = ctx.settings.model_copy(update={"node_cache_claim": "blobs", "node_cache_gib": 2})
    spec = deployment(servers_of(release, settings))["spec"]["template"]["spec"]
    (bringer,) = spec["initContainers"]
    job = json.loads(bringer["env"][0]["value"])
    assert job["node_cache"] == {"folder": "/node-cache", "max_bytes": 2 * 2**30}
    assert {"name": "node-cache", "mountPath": "/node-cache"} in bringer["volumeMounts"]
    assert {"name": "node-cache", "persistentVolumeClaim": {"claimName": "blobs"}} in spec["volumes"]
    # The server itself has no business there.
    assert "node-cache" not in json.dumps(spec["containers"])


def test_manifests_are_the_same_whenever_they_are_built(ctx: Context, release: Release) -> None:
    first = json.dumps([pods(ctx, release), service(servers_of(release, ctx.settings))])
    again = ctx.load(release.model, release.id)
    assert json.dumps([pods(ctx, again), service(servers_of(again, ctx.settings))]) == first


def test_two_releases_share_no_name_and_no_selector(ctx: Context, release: Release, tmp_path: Path) -> None:
    spec = catalogue.resolve(tmp_path, Request(release="llama", overrides={"serving": {"replicas": 2}}))
    made = plan.make_plan(ctx, spec)
    other = release.model_copy(update={"id": plan.release_id_of(spec, made, ""), "spec": spec})
    one, two = (deployment(servers_of(each, ctx.settings)) for each in (release, other))
    assert one["metadata"]["name"] != two["metadata"]["name"]
    assert one["spec"]["selector"] != two["spec"]["selector"]
    labels = two["spec"]["template"]["metadata"]["labels"]
    assert not one["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_a_service_chooses_the_pods_of_its_release_and_no_others(ctx: Context, release: Release) -> None:
    servers = servers_of(release, ctx.settings)
    labels = deployment(servers)["spec"]["template"]["metadata"]["labels"]
    assert service(servers)["spec"]["selector"].items() <= labels.items()
    assert service(servers)["metadata"]["name"] == release.id
