"""Roles and bindings, enforced: what they allow, and the words in which the rest is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client

from tests.local.apiserver.conftest import JANE, NOBODY, WORKER, Http, Kubectl, Server

Rules = list[dict[str, Any]]
Grant = Callable[..., None]
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}}
JANE_HERSELF = {"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}


def rule(verbs: str, resources: str, group: str = "", **more: Any) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split(), **more}


@pytest.fixture
def grant(api: client.ApiClient, namespace: str) -> Grant:
    """Makes a Role with a RoleBinding to a subject; later calls of one test add to earlier ones."""
    rbac, count = client.RbacAuthorizationV1Api(api), iter(range(99))

    def grant(subject: dict[str, str], *rules: dict[str, Any]) -> None:
        name = f"role-{next(count)}"
        rbac.create_namespaced_role(namespace, {"metadata": {"name": name}, "rules": list(rules)})
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        binding = {"metadata": {"name": name}, "roleRef": ref, "subjects": [subject]}
        rbac.create_namespaced_role_binding(namespace, binding)

    return grant


@pytest.fixture
def jane(server: Server) -> Iterator[client.CoreV1Api]:
    with server.api(JANE) as api:
        yield client.CoreV1Api(api)


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
    """The Status of a request that is answered with 403."""
    with pytest.raises(client.ApiException) as error:
        call(*arguments, **options)
    assert error.value.status == 403
    status: dict[str, Any] = json.loads(error.value.body)
    assert (status["reason"], status["code"]) == ("Forbidden", 403)
    return status


def test_without_a_role_one_may_do_nothing(jane: client.CoreV1Api, namespace: str) -> None:
    status = refused(jane.list_namespaced_pod, namespace)
    assert status["message"] == (
        f'pods is forbidden: User "jane" cannot list resource "pods" in API group "" '
        f'in the namespace "{namespace}"'
    )
    assert status["details"] == {"kind": "pods"}
    everywhere = refused(jane.list_pod_for_all_namespaces)
    assert everywhere["message"].endswith('cannot list resource "pods" in API group "" at the cluster scope')
    named = refused(client.AppsV1Api(jane.api_client).delete_namespaced_deployment, "web", namespace)
    assert named["message"] == (
        'deployments.apps "web" is forbidden: User "jane" cannot delete resource "deployments" '
        f'in API group "apps" in the namespace "{namespace}"'
    )
    assert named["details"] == {"name": "web", "group": "apps", "kind": "deployments"}
    log = refused(jane.read_namespaced_pod_log, "p", namespace)
    assert 'pods "p" is forbidden: User "jane" cannot get resource "pods/log"' in log["message"]


def test_a_role_allows_its_verbs_on_its_resources_in_its_namespace(
    jane: client.CoreV1Api, core: client.CoreV1Api, namespace: str, grant: Grant
) -> None:
    grant(JANE_HERSELF, rule("get list create", "pods"))
    jane.create_namespaced_pod(namespace, POD)
    assert jane.read_namespaced_pod("p", namespace).metadata.name == "p"
    assert len(jane.list_namespaced_pod(namespace).items) == 1
    assert 'cannot delete resource "pods"' in refused(jane.delete_namespaced_pod, "p", namespace)["message"]
    body = {"metadata": {"labels": {"a": "b"}}}
    assert (
        'cannot patch resource "pods"' in refused(jane.patch_namespaced_pod, "p", namespace, body)["message"]
    )
    watched = refused(jane.list_namespaced_pod, namespace, watch=True, _preload_content=False)
    assert 'cannot watch resource "pods"' in watched["message"]
    collection = refused(jane.delete_collection_namespaced_pod, namespace)
    assert 'cannot deletecollection resource "pods"' in collection["message"]
    refused(jane.list_namespaced_pod, "default")
    core.read_namespaced_pod("p", namespace)


def test_a_role_taken_away_counts_at_once(
    jane: client.CoreV1Api, api: client.ApiClient, namespace: str, grant: Grant
) -> None:
    grant(JANE_HERSELF, rule("list", "pods"))
    jane.list_namespaced_pod(namespace)
    client.RbacAuthorizationV1Api(api).delete_namespaced_role("role-0", namespace)
    status = refused(jane.list_namespaced_pod, namespace)
    assert status["message"].endswith(': RBAC: role.rbac.authorization.k8s.io "role-0" not found')


@pytest.mark.parametrize(
    ("subject", "token"),
    [
        ({"kind": "Group", "name": "developers"}, JANE),
        ({"kind": "Group", "name": "system:authenticated"}, NOBODY),
        ({"kind": "ServiceAccount", "name": "worker", "namespace": "airflow"}, WORKER),
        ({"kind": "Group", "name": "system:serviceaccounts"}, WORKER),
        ({"kind": "Group", "name": "system:serviceaccounts:airflow"}, WORKER),
        ({"kind": "User", "name": "system:serviceaccount:airflow:worker"}, WORKER),
    ],
)
def test_groups_and_service_accounts_are_subjects_too(
    server: Server, namespace: str, grant: Grant, subject: dict[str, str], token: str
) -> None:
    grant(subject, rule("list", "configmaps"))
    for other in {JANE, NOBODY, WORKER} - {token}:
        if subject["name"] != "system:authenticated":
            with server.api(other) as api:
                refused(client.CoreV1Api(api).list_namespaced_config_map, namespace)
    with server.api(token) as api:
        assert client.CoreV1Api(api).list_namespaced_config_map(namespace).items == []


def test_a_service_account_of_another_namespace_is_another_one(
    server: Server, namespace: str, grant: Grant
) -> None:
    grant({"kind": "ServiceAccount", "name": "worker"}, rule("list", "pods"))
    grant({"kind": "ServiceAccount", "name": "worker", "namespace": namespace}, rule("list", "pods"))
    with server.api(WORKER) as api:
        refused(client.CoreV1Api(api).list_namespaced_pod, namespace)


def test_resource_names_narrow_a_rule_to_single_objects(
    jane: client.CoreV1Api, core: client.CoreV1Api, namespace: str, grant: Grant
) -> None:
    for name in ("mine", "yours"):
        core.create_namespaced_config_map(namespace, {"metadata": {"name": name}})
    grant(JANE_HERSELF, rule("get list watch create update patch", "configmaps", resourceNames=["mine"]))
    jane.read_namespaced_config_map("mine", namespace)
    jane.patch_namespaced_config_map("mine", namespace, {"data": {"a": "1"}})
    refused(jane.read_namespaced_config_map, "yours", namespace)
    refused(jane.list_namespaced_config_map, namespace)
    only = jane.list_namespaced_config_map(namespace, field_selector="metadata.name=mine")
    assert [c.metadata.name for c in only.items] == ["mine"]
    refused(jane.list_namespaced_config_map, namespace, field_selector="metadata.name!=mine")
    # A create names nothing yet, as far as an authorizer sees.
    refused(jane.create_namespaced_config_map, namespace, {"metadata": {"name": "mine"}})


def test_a_subresource_needs_a_permission_of_its_own(
    jane: client.CoreV1Api, core: client.CoreV1Api, api: client.ApiClient, namespace: str, grant: Grant
) -> None:
    core.create_namespaced_pod(namespace, POD)
    labels = {"matchLabels": {"a": "b"}}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]}
    body = {"metadata": {"name": "d"}, "spec": {"selector": labels, "template": template}}
    client.AppsV1Api(api).create_namespaced_deployment(namespace, body)
    grant(JANE_HERSELF, rule("get patch", "pods"), rule("get patch", "*/scale", "apps"))
    refused(jane.patch_namespaced_pod_status, "p", namespace, {"status": {"phase": "Failed"}})
    refused(jane.read_namespaced_pod_log, "p", namespace)
    apps = client.AppsV1Api(jane.api_client)
    refused(apps.patch_namespaced_deployment, "d", namespace, {"spec": {"replicas": 2}})
    assert (
        apps.patch_namespaced_deployment_scale("d", namespace, {"spec": {"replicas": 2}}).spec.replicas == 2
    )
    grant(JANE_HERSELF, rule("get", "pods/log"), rule("patch", "pods/status"))
    jane.patch_namespaced_pod_status("p", namespace, {"status": {"phase": "Running"}})
    assert not jane.read_namespaced_pod_log("p", namespace)


def test_a_cluster_role_holds_where_it_is_bound(
    jane: client.CoreV1Api, api: client.ApiClient, namespace: str
) -> None:
    rbac = client.RbacAuthorizationV1Api(api)
    name = f"reader-{namespace}"
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    rules = [rule("list", "nodes pods namespaces"), {"nonResourceURLs": ["/metrics*"], "verbs": ["get"]}]
    rbac.create_cluster_role({"metadata": {"name": name}, "rules": rules})
    binding = {"metadata": {"name": name}, "roleRef": ref, "subjects": [JANE_HERSELF]}
    rbac.create_namespaced_role_binding(namespace, binding)
    jane.list_namespaced_pod(namespace)
    refused(jane.list_node)
    refused(jane.list_pod_for_all_namespaces)
    rbac.create_cluster_role_binding(binding)
    try:
        jane.list_node()
        jane.list_pod_for_all_namespaces()
        with pytest.raises(client.ApiException) as error:
            jane.api_client.call_api("/metrics/x", "GET", auth_settings=["BearerToken"])
        assert error.value.status == 404
    finally:
        rbac.delete_cluster_role_binding(name)
    missing = refused(jane.api_client.call_api, "/metrics", "GET", auth_settings=["BearerToken"])
    assert missing["message"] == 'forbidden: User "jane" cannot get path "/metrics"'


def test_an_apply_that_creates_needs_both_permissions(kubectl: Kubectl, namespace: str, grant: Grant) -> None:
    apply = ("apply", "--server-side", "-n", namespace, "--token", JANE, "-f", "-")
    body = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}'
    grant(JANE_HERSELF, rule("get patch", "configmaps"))
    assert (
        'configmaps "c" is forbidden: User "jane" cannot create'
        in kubectl(*apply, stdin=body, fails=True).err
    )
    grant(JANE_HERSELF, rule("create", "configmaps"))
    kubectl(*apply, stdin=body)


async def test_whoever_may_only_read_runs_nothing_in_a_pod(http: Http) -> None:
    base = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    path = "/api/v1/namespaces/default/pods/p/exec?command=id&stdout=1"
    as_bob = {"Impersonate_User": "bob"}
    role = {"metadata": {"name": "r"}, "rules": [rule("get", "pods/exec")]}
    await http.call("POST", f"{base}/roles", role)
    ref = {"kind": "Role", "name": "r"}
    subjects = [{"kind": "User", "name": "bob"}]
    await http.call(
        "POST", f"{base}/rolebindings", {"metadata": {"name": "r"}, "roleRef": ref, "subjects": subjects}
    )
    status, body = await http.call("GET", path, **as_bob)
    assert (status, 'cannot create resource "pods/exec"' in body["message"]) == (403, True)
    await http.call("PUT", f"{base}/roles/r", {**role, "rules": [rule("get create", "pods/exec")]})
    assert (await http.call("GET", path, **as_bob))[0] == 404  # there is no such pod


def test_a_role_may_let_one_read_its_own_namespace(
    jane: client.CoreV1Api, namespace: str, grant: Grant
) -> None:
    status = refused(jane.read_namespace, namespace)
    assert status["message"] == (
        f'namespaces "{namespace}" is forbidden: User "jane" cannot get resource "namespaces" '
        f'in API group "" in the namespace "{namespace}"'
    )
    grant(JANE_HERSELF, rule("get", "namespaces"))
    assert jane.read_namespace(namespace).metadata.name == namespace


def test_whoever_has_a_token_may_look_around(server: Server, kubectl: Kubectl) -> None:
    assert "deployments" in kubectl("api-resources", "--token", NOBODY).out
    assert "replicas <integer>" in kubectl("explain", "deploy.spec.replicas", "--token", NOBODY).out
    with server.api(NOBODY) as api:
        assert client.VersionApi(api).get_code().major == "1"


async def test_whoever_has_none_may_ask_for_health_and_version_alone(http: Http) -> None:
    del http.headers["Authorization"]
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        assert (await http.call("GET", path))[0] == 200
    status, body = await http.call("GET", "/apis")
    assert (status, body["message"]) == (
        403,
        'forbidden: User "system:anonymous" cannot get path "/apis"',
    )
    for path in ("/version", "/healthz"):
        assert (await http.call("POST", path))[0] == 403


async def test_what_does_not_exist_is_told_only_to_those_who_may_know(http: Http) -> None:
    as_bob = {"Impersonate_User": "bob"}
    assert (await http.call("GET", "/apis/no.such/v1/things", **as_bob))[0] == 403
    assert (await http.call("GET", "/api/v1/namespaces/none/pods/none", **as_bob))[0] == 403
    assert (await http.call("GET", "/apis/no.such/v1/things"))[0] == 404


@pytest.mark.parametrize(
    ("plural", "body", "said"),
    [
        ("roles", {"rules": [{"apiGroups": [""], "resources": ["pods"]}]}, "rules[0].verbs: Required value"),
        (
            "roles",
            {"rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}]},
            "namespaced rules cannot apply to non-resource URLs",
        ),
        ("roles", {"rules": [{"apiGroups": [""], "verbs": ["get"]}]}, "must supply at least one resource"),
        ("roles", {"rules": [{"resources": ["pods"], "verbs": ["get"]}]}, "at least one api group"),
        ("rolebindings", {"roleRef": {"kind": "Group", "name": "x"}}, "roleRef.kind: Unsupported value"),
        (
            "rolebindings",
            {"roleRef": {"kind": "Role", "name": "x"}, "subjects": [{"kind": "Robot", "name": "r"}]},
            "subjects[0].kind: Unsupported value",
        ),
    ],
)
async def test_roles_that_say_nothing_are_refused(
    http: Http, plural: str, body: dict[str, Any], said: str
) -> None:
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/default/{plural}"
    status, answer = await http.call("POST", path, {"metadata": {"name": "x"}, **body})
    assert status == 422
    assert said in answer["message"]


def test_nobody_gives_what_they_do_not_have(
    jane: client.CoreV1Api, api: client.ApiClient, namespace: str, grant: Grant
) -> None:
    rbac = client.RbacAuthorizationV1Api(jane.api_client)
    roles = rule("create update patch", "roles rolebindings", "rbac.authorization.k8s.io")
    grant(JANE_HERSELF, roles, rule("get list", "pods"), rule("get", "*/scale", "apps"))

    def role(name: str, *rules: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"name": name}, "rules": list(rules)}

    rbac.create_namespaced_role(namespace, role("less", rule("get", "pods", resourceNames=["p"])))
    rbac.create_namespaced_role(namespace, role("scale", rule("get", "deployments/scale", "apps")))
    more = role("more", rule("get delete", "pods secrets"))
    status = refused(rbac.create_namespaced_role, namespace, more)
    assert status["message"] == (
        'roles.rbac.authorization.k8s.io "more" is forbidden: user "jane" '
        '(groups=["developers" "reviewers" "system:authenticated"]) is attempting to grant RBAC permissions '
        'not currently held:\n{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete"]}'
    )
    refused(rbac.patch_namespaced_role, "less", namespace, {"rules": [rule("*", "*", "*")]})
    rbac.patch_namespaced_role("less", namespace, {"metadata": {"labels": {"a": "b"}}})

    client.RbacAuthorizationV1Api(api).create_namespaced_role(namespace, more)

    def binding(name: str, kind: str = "Role") -> dict[str, Any]:
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        return {"metadata": {"name": f"to-{name}"}, "roleRef": ref, "subjects": [JANE_HERSELF]}

    rbac.create_namespaced_role_binding(namespace, binding("less"))
    refused(rbac.create_namespaced_role_binding, namespace, binding("more"))
    refused(rbac.create_namespaced_role_binding, namespace, binding("cluster-admin", "ClusterRole"))
    bindable = rule("bind", "roles", "rbac.authorization.k8s.io", resourceNames=["more"])
    grant(JANE_HERSELF, bindable)
    rbac.create_namespaced_role_binding(namespace, binding("more"))
    jane.list_namespaced_pod(namespace)


def test_whoever_may_escalate_may_write_any_role(
    jane: client.CoreV1Api, namespace: str, grant: Grant
) -> None:
    grant(JANE_HERSELF, rule("create escalate", "roles", "rbac.authorization.k8s.io"))
    rbac = client.RbacAuthorizationV1Api(jane.api_client)
    rbac.create_namespaced_role(namespace, {"metadata": {"name": "all"}, "rules": [rule("*", "*", "*")]})
