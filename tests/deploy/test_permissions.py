"""The Roles grant what the code uses: the list in Python, the manifests and the calls in the code agree."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.access import Granted, granted
from tests.support.manifests import ROOT, composed, rendered
from trainyard.kube.cluster import KINDS
from trainyard.kube.permissions import NEEDS, OPERATOR_NEEDS, permissions

NAMESPACES = {"jobs": "trainyard-jobs", "serving": "trainyard-serving", "cluster": ""}
# The account that Airflow's tasks run as in the local stack.
USER = "system:serviceaccount:airflow:airflow-worker"
# How the methods of trainyard.kube.cluster.Cluster appear to the API server.
VERBS = {
    "get": {"get"},
    "find": {"get"},
    "list": {"list"},
    "create": {"create"},
    "apply": {"create", "patch"},
    "merge": {"patch"},
    "delete": {"delete"},
}
# Called by the provider's KubernetesPodOperator and its trigger, not by name in our code.
BY_THE_PROVIDER = {("pods", "create"), ("pods", "patch"), ("pods/log", "get"), ("events", "watch")}
# Called with what is only known at run time.
BY_VARIABLE = {
    ("services", "get"), ("services", "patch"), ("services", "create"), ("services", "delete"),
    ("deployments", "patch"), ("deployments", "create"), ("pods/exec", "get"), ("pods/exec", "create"),
    ("httproutes", "create"),
}  # fmt: skip


def calls() -> set[tuple[str, str]]:
    """(resource, verb) of every call of a Cluster with a kind in its text."""
    found = set()
    for file in [*(ROOT / "include/trainyard").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]:
        if "doctor" in file.relative_to(ROOT).as_posix():
            continue  # asks with its own rights, and says what it may not see
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                kind = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                for verb in VERBS.get(node.func.attr, set()):
                    if isinstance(kind, str) and kind in KINDS:
                        found.add((KINDS[kind].plural, verb))
    return found


def test_the_roles_grant_exactly_what_the_list_names() -> None:
    named = {Granted(NAMESPACES[each.scope], each.group, each.resource, each.verb) for each in permissions()}

    assert granted(rendered("base"), USER) == named


def test_a_component_grants_what_the_reusable_operators_need_besides(tmp_path: Path) -> None:
    more = {Granted("", each.group, each.resource, each.verb) for each in permissions(OPERATOR_NEEDS)}
    found = granted(composed(tmp_path, "base", ["operators"]), USER)

    assert found - granted(rendered("base"), USER) == more


def test_the_list_names_nothing_twice_and_says_why() -> None:
    found = permissions()

    assert len(found) == len(set(found))
    assert all(need.why for need in NEEDS)


def test_the_code_asks_for_nothing_that_is_not_granted() -> None:
    allowed = {(each.resource, each.verb) for each in permissions(NEEDS + OPERATOR_NEEDS)}

    assert calls() - allowed == set()


def test_nothing_is_granted_that_the_code_does_not_ask_for() -> None:
    allowed = {(each.resource, each.verb) for each in permissions()}

    assert allowed - calls() - BY_THE_PROVIDER - BY_VARIABLE == set()


def test_the_messages_that_send_people_to_the_roles_name_a_folder_that_is_there() -> None:
    text = (ROOT / "include/trainyard/kube/cluster.py").read_text(encoding="utf-8")

    assert "deploy/cluster/base" in text
    assert Path(ROOT / "deploy/cluster/base/rbac.yaml").is_file()
