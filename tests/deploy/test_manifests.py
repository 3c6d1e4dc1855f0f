"""What a cluster is given: rendered by kubectl, taken by an API server, right where nobody would notice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from local.stack.certificates import Certificates, ensure
from local.stack.ports import HOST, choose
from tests.support.manifests import CLUSTER, COMPONENTS, DEPLOY, OVERLAYS, ROOT, kubectl, of_kind, rendered
from tests.support.validation import SHARED_CRDS


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kubeconfig of an API server with the published definitions where they are, else with our own."""
    folder = SHARED_CRDS if SHARED_CRDS.is_dir() else ROOT / "local" / "crds"
    crds = [word for file in sorted(folder.glob("*.yaml")) for word in ("--crd", str(file))]
    port = choose(("api",), {}, paired=frozenset(), seed=4711)["api"]
    command = [sys.executable, "-m", "local.apiserver", "--listen", f"{HOST}:{port}", "--token", "t", *crds]
    state = tmp_path_factory.mktemp("deploy")
    # kubectl sends its token over TLS only.
    files = Certificates.within(state / "certificates")
    ensure(files)
    command += ["--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
    kubeconfig = state / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": f"https://{HOST}:{port}",
                    "certificate-authority": str(files.authority),
                },
            }
        ],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    kubeconfig.write_text(json.dumps(config))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert "serving on" in server.stdout.readline()
        yield kubeconfig
        server.terminate()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_api_server_takes_every_manifest(api_server: Path, overlay: str) -> None:
    output = kubectl(
        f"--kubeconfig={api_server}",
        "apply",
        "--server-side",
        "--force-conflicts",
        "-k",
        str(CLUSTER / overlay),
    )

    for family in ("trn2", "trn1", "inf2"):
        assert f"nodepool.karpenter.sh/neuron-{family}" in output
    assert "gateway.gateway.networking.k8s.io/trainyard" in output


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_of_both_namespaces_are_held_to_the_restricted_standard(overlay: str) -> None:
    namespaces = of_kind(rendered(overlay), "Namespace")

    assert set(namespaces) == {"trainyard-jobs", "trainyard-serving"}
    for namespace in namespaces.values():
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_each_kind_of_pod_has_a_role_and_no_token_for_the_kubernetes_api() -> None:
    accounts = of_kind(rendered("base"), "ServiceAccount")

    assert set(accounts) == {f"trainyard-{job}" for job in ("fetch", "compile", "loadtest", "serve")}
    for name, account in accounts.items():
        assert account["automountServiceAccountToken"] is False
        assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith(f":role/{name}")


def test_airflow_may_only_read_what_is_not_its_own() -> None:
    for role in of_kind(rendered("base"), "ClusterRole").values():
        for rule in role["rules"]:
            assert set(rule["verbs"]) <= {"get", "list", "watch"}
            assert "secrets" not in rule["resources"]


def test_nothing_is_granted_by_a_wildcard() -> None:
    objects = rendered("base")
    roles = [*of_kind(objects, "ClusterRole").values(), *(each for each in objects if each["kind"] == "Role")]
    words = {word for role in roles for rule in role["rules"] for entry in rule.values() for word in entry}

    assert "*" not in words


def test_the_chart_runs_the_airflow_that_is_tested_here() -> None:
    values = yaml.safe_load((DEPLOY / "airflow" / "values.yaml").read_text())
    requirements = (ROOT / "requirements.txt").read_text()

    assert f"apache-airflow=={values['airflowVersion']} " in requirements


def test_the_charts_accounts_are_those_that_the_roles_name() -> None:
    values = yaml.safe_load((DEPLOY / "airflow" / "values.yaml").read_text())
    bindings = [each for each in rendered("base") if each["kind"].endswith("RoleBinding")]

    for binding in bindings:
        subjects = {(subject["namespace"], subject["name"]) for subject in binding["subjects"]}
        assert {("airflow", "airflow-scheduler"), ("airflow", "airflow-triggerer")} <= subjects
    assert values["executor"] == "LocalExecutor"


def test_every_component_is_offered_by_the_overlay_and_explained() -> None:
    overlay = (CLUSTER / "overlays/eks/kustomization.yaml").read_text(encoding="utf-8")
    page = (ROOT / "docs/eks.md").read_text(encoding="utf-8")
    found = sorted(folder.name for folder in (CLUSTER / "components").iterdir())

    assert found == sorted(COMPONENTS)
    for name in found:
        assert f"../../components/{name}\n" in overlay
        assert f"| `{name}` |" in page


def test_the_page_on_eks_names_what_is_made_and_its_limits() -> None:
    page = (ROOT / "docs/eks.md").read_text(encoding="utf-8")
    objects = rendered("base")
    kinds = (
        "NodePool",
        "EC2NodeClass",
        "PriorityClass",
        "Namespace",
        "Gateway",
        "HTTPRoute",
        "ServiceAccount",
    )
    names = [name for kind in kinds for name in of_kind(objects, kind)]
    pools = of_kind(objects, "NodePool")
    limits = [
        pools[f"neuron-{each}"]["spec"]["limits"]["aws.amazon.com/neuron"]
        for each in ("trn2", "trn1", "inf2")
    ]

    assert [name for name in names if f"`{name}`" not in page] == []
    assert "limits of {}, {} and {} chips".format(*limits) in page
    assert "deploy/cluster/charts/neuron-helm-chart.yaml" in page
