"""May I: the answers of access reviews, and that they are what a request would be told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client

from local.apiserver.attributes import Attributes
from local.apiserver.errors import ApiError
from local.apiserver.protobuf import read_review
from local.apiserver.rbac import allows
from tests.local.apiserver.conftest import JANE, NOBODY, WORKER, Http, Kubectl, Server

GROUP = "rbac.authorization.k8s.io"


@pytest.fixture
def jane(server: Server) -> Iterator[client.ApiClient]:
    with server.api(JANE) as opened:
        yield opened


READ_PODS = {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]}


def bind(api: client.ApiClient, where: str, rules: list[dict[str, Any]], **subject: str) -> None:
    """(Re)places the one Role of a namespace, and binds it."""
    rbac = client.RbacAuthorizationV1Api(api)
    body = {"metadata": {"name": "r"}, "rules": rules}
    try:
        rbac.replace_namespaced_role("r", where, body)
    except client.ApiException:
        rbac.create_namespaced_role(where, body)
        ref = {"apiGroup": GROUP, "kind": "Role", "name": "r"}
        binding = {"metadata": {"name": "r"}, "roleRef": ref, "subjects": [subject]}
        rbac.create_namespaced_role_binding(where, binding)


def test_kubectl_can_i_answers_for_the_user_who_asks(
    kubectl: Kubectl, api: client.ApiClient, namespace: str
) -> None:
    bind(api, namespace, [READ_PODS], kind="User", name="jane")
    at = ("-n", namespace, "--token", JANE)
    assert kubectl("auth", "can-i", "list", "pods", *at).out == "yes\n"
    assert kubectl("auth", "can-i", "get", "pods", "--subresource=log", *at).out == "yes\n"
    assert kubectl("auth", "can-i", "create", "pods", *at, fails=True).out == "no\n"
    assert kubectl("auth", "can-i", "list", "pods", "-A", "--token", JANE, fails=True).out == "no\n"
    assert kubectl("auth", "can-i", "*", "*").out == "yes\n"
    acting = ("--as=system:serviceaccount:airflow:worker", "-n", namespace)
    assert kubectl("auth", "can-i", "list", "pods", *acting, fails=True).out == "no\n"
    assert kubectl("auth", "can-i", "get", "/version", "--token", NOBODY).out == "yes\n"
    assert kubectl("auth", "can-i", "get", "/metrics", "--token", NOBODY, fails=True).out == "no\n"


def test_kubectl_lists_what_one_may_do(kubectl: Kubectl, api: client.ApiClient, namespace: str) -> None:
    only = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"], "resourceNames": ["web"]}
    bind(api, namespace, [READ_PODS, only], kind="Group", name="developers")
    lines = kubectl("auth", "can-i", "--list", "-n", namespace, "--token", JANE).out.splitlines()
    said = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert said["pods"] == "[] [] [get list]"
    assert said["pods/log"] == "[] [] [get list]"
    assert said["deployments.apps"] == "[] [web] [patch]"
    assert said["selfsubjectaccessreviews.authorization.k8s.io"] == "[] [] [create]"
    elsewhere = kubectl("auth", "can-i", "--list", "-n", "default", "--token", JANE).out
    assert "pods" not in elsewhere


def test_a_review_says_which_binding_allowed_it(
    server: Server, api: client.ApiClient, namespace: str
) -> None:
    bind(api, namespace, [READ_PODS], kind="ServiceAccount", name="worker", namespace="airflow")
    attributes = {"namespace": namespace, "verb": "list", "resource": "pods"}
    with server.api(WORKER) as own:
        review = client.AuthorizationV1Api(own).create_self_subject_access_review(
            {"spec": {"resourceAttributes": attributes}}
        )
    assert review.status.allowed
    assert review.status.reason == (
        f'RBAC: allowed by RoleBinding "r/{namespace}" of Role "r" to ServiceAccount "worker/airflow"'
    )


def test_whoever_may_can_ask_for_others(server: Server, api: client.ApiClient, namespace: str) -> None:
    bind(api, namespace, [READ_PODS], kind="Group", name="developers")
    attributes = {"namespace": namespace, "verb": "get", "resource": "pods"}
    body = {"spec": {"resourceAttributes": attributes, "user": "x", "groups": ["developers"]}}
    asking = client.AuthorizationV1Api(api)
    assert asking.create_subject_access_review(body).status.allowed
    assert asking.create_namespaced_local_subject_access_review(namespace, body).status.allowed
    body["spec"]["groups"] = ["others"]
    assert not asking.create_subject_access_review(body).status.allowed
    with server.api(JANE) as own, pytest.raises(client.ApiException) as error:
        client.AuthorizationV1Api(own).create_subject_access_review(body)
    assert error.value.status == 403


@pytest.mark.parametrize(
    ("plural", "spec", "code", "said"),
    [
        ("selfsubjectaccessreviews", {}, 422, "exactly one of nonResourceAttributes or resourceAttributes"),
        (
            "selfsubjectaccessreviews",
            {"resourceAttributes": {}, "nonResourceAttributes": {"path": "/"}},
            422,
            "cannot be specified in combination",
        ),
        ("subjectaccessreviews", {"resourceAttributes": {}}, 422, "at least one of user or group"),
        ("selfsubjectrulesreviews", {}, 400, "no namespace on request"),
        (
            "namespaces/default/localsubjectaccessreviews",
            {"resourceAttributes": {"namespace": "other"}, "user": "x"},
            422,
            "must match metadata.namespace",
        ),
    ],
)
async def test_a_review_that_asks_nothing_is_refused(
    http: Http, plural: str, spec: dict[str, Any], code: int, said: str
) -> None:
    status, body = await http.call("POST", f"/apis/authorization.k8s.io/v1/{plural}", {"spec": spec})
    assert (status, said in body["message"]) == (code, True)


def test_reviews_are_read_as_kubectl_sends_them() -> None:
    sent = (
        b"k8s\x00\n2\n\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview\x129\n\x10\n\x00\x12\x00\x1a"
        b'\x00"\x00*\x002\x008\x00B\x00\x12\x1b\n\x19\n\x01x\x12\x06create\x1a\x00"\x00*\x04pods2\x00:\x00'
        b'\x1a\x08\x08\x00\x12\x00\x1a\x00 \x00\x1a\x00"\x00'
    )
    assert read_review(sent, "SelfSubjectAccessReview") == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": "x", "verb": "create", "resource": "pods"}},
    }


@given(st.binary(max_size=60))
def test_bytes_that_are_no_review_are_refused_plainly(raw: bytes) -> None:
    for sent in (raw, b"k8s\x00" + raw):
        with suppress(ApiError):  # anything else would be answered with 500
            assert isinstance(read_review(sent, "SubjectAccessReview"), dict)


VERBS = ("get", "list", "create", "delete", "patch", "*")
RESOURCES = (
    "pods",
    "pods/status",
    "*/status",
    "configmaps",
    "deployments",
    "deployments/scale",
    "*/scale",
    "*",
)
RULES = st.fixed_dictionaries(
    {
        "verbs": st.lists(st.sampled_from(VERBS), min_size=1, max_size=2),
        "apiGroups": st.lists(st.sampled_from(("", "apps", "*")), min_size=1, max_size=2),
        "resources": st.lists(st.sampled_from(RESOURCES), min_size=1, max_size=2),
    },
    optional={"resourceNames": st.lists(st.sampled_from(("a", "b")), max_size=2)},
)
SUBRESOURCES = {"pods": "status", "deployments": "scale"}


@st.composite
def requests(draw: st.DrawFn) -> Attributes:
    """Something that is harmless to ask for: the objects do not exist, and nothing can be created."""
    resource = draw(st.sampled_from(("pods", "configmaps", "deployments")))
    verb = draw(st.sampled_from(("get", "list", "create", "delete", "patch")))
    named = verb not in ("list", "create")
    sub = SUBRESOURCES.get(resource, "") if named and verb != "delete" and draw(st.booleans()) else ""
    name = draw(st.sampled_from(("a", "b"))) if named else ""
    group = "apps" if resource == "deployments" else ""
    return Attributes(verb, group, "v1", resource, sub, name=name)


METHODS = {"get": "GET", "list": "GET", "create": "POST", "delete": "DELETE", "patch": "PATCH"}


def ask(api: client.ApiClient, asked: Attributes) -> int:
    """The status code of a request."""
    base = f"/apis/{asked.group}/v1" if asked.group else "/api/v1"
    parts = [base, "namespaces", asked.namespace, asked.resource, asked.name, asked.subresource]
    media = "application/merge-patch+json" if asked.verb == "patch" else "application/json"
    body: Any = {"metadata": {}} if asked.verb in ("create", "patch") else None
    try:
        _, code, _ = api.call_api(
            "/".join(part for part in parts if part),
            METHODS[asked.verb],
            header_params={"Content-Type": media},
            body=body,
            auth_settings=["BearerToken"],
            response_types_map={},
        )
    except client.ApiException as error:
        return int(error.status)
    return int(code)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=st.lists(RULES, max_size=3), asked=requests())
def test_a_review_says_what_a_request_would_be_told(
    jane: client.ApiClient,
    api: client.ApiClient,
    namespace: str,
    rules: list[dict[str, Any]],
    asked: Attributes,
) -> None:
    asked = replace(asked, namespace=namespace)
    bind(api, namespace, rules, kind="User", name="jane")
    names = ("verb", "group", "resource", "subresource", "name", "namespace")
    review = client.AuthorizationV1Api(jane).create_self_subject_access_review(
        {"spec": {"resourceAttributes": {name: getattr(asked, name) for name in names}}}
    )
    expected = any(allows(rule, asked) for rule in rules)
    assert (review.status.allowed, ask(jane, asked) != 403) == (expected, expected)


@pytest.mark.parametrize(
    ("rule", "asked", "allowed"),
    [
        ("* | * | *", "get pods", True),
        ("get | | pods", "get pods", True),
        ("get | | pods", "get pods/log", False),
        ("get | | pods/log", "get pods/log", True),
        ("get | | */log", "get pods/log", True),
        ("get | | */log", "get pods", False),
        ("get | | pods/*", "get pods/log", False),
        ("get | | */exec", "get pods/log", False),
        ("get | apps | deployments", "get pods", False),
        ("get | apps | pods", "get pods", False),
        ("list | | pods", "get pods", False),
        ("get | | *", "get pods/log", True),
    ],
)
def test_rules_match_as_the_documentation_has_it(rule: str, asked: str, allowed: bool) -> None:
    verbs, groups, resources = (part.strip() for part in rule.split("|"))
    verb, resource = asked.split()
    found = {"verbs": verbs.split(), "apiGroups": [groups], "resources": resources.split()}
    plural, _, sub = resource.partition("/")
    assert allows(found, Attributes(verb, "", "v1", plural, sub)) is allowed
