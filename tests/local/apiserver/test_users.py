"""Who a request comes from: token files, headers, and acting as somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.apiserver.errors import ApiError
from local.apiserver.users import ADMIN, ANONYMOUS, Tokens, impersonation, read_token_file, service_account
from tests.local.apiserver.conftest import JANE, Http, Kubectl


def read(path: Path, text: str) -> object:
    path.write_text(text)
    return read_token_file(path)


def test_a_token_file_is_read_as_a_real_server_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text('t1,jane,1,"a, b"\n\nt2,bob,2\nt3,eve,3,one,more,columns\n')
    users = read_token_file(file)
    assert [(u.name, u.uid) for u in users.values()] == [("jane", "1"), ("bob", "2"), ("eve", "3")]
    assert users["t1"].groups == ("a", "b", "system:authenticated")
    assert users["t2"].groups == ("system:authenticated",)
    assert users["t3"].groups == ("one", "system:authenticated")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("secret,jane\n", "record 1 has 2 columns"),
        ("ok,a,1\nsecret,,2\n", "record 2 has no token or no user name"),
        ("secret,a,1\nsecret,b,2\n", "record 2 repeats a token"),
    ],
)
def test_a_bad_token_file_is_refused_without_showing_its_tokens(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        read(tmp_path / "tokens.csv", text)
    assert "secret" not in str(error.value)


def test_only_the_exact_token_names_a_user() -> None:
    tokens = Tokens({"right": ADMIN})
    assert tokens.identify("Bearer right") is ADMIN
    assert tokens.identify("bearer right") is ADMIN
    assert tokens.identify("") is ANONYMOUS
    for header in ("Bearer wrong", "Bearer", "Basic right", "right", "Bearer right right"):
        with pytest.raises(ApiError) as error:
            tokens.identify(header)
        assert error.value.code == 401


def test_service_accounts_are_told_by_their_names() -> None:
    assert service_account("system:serviceaccount:ns:name") == ("ns", "name")
    for name in (
        "jane",
        "system:serviceaccount:ns",
        "system:serviceaccount::x",
        "system:serviceaccount:a:b:c",
    ):
        assert service_account(name) is None


def groups_of(*headers: tuple[str, str]) -> tuple[str, ...]:
    wanted = impersonation(headers)
    assert wanted is not None
    return wanted.user().groups


def test_an_impersonated_user_has_the_groups_that_go_without_saying() -> None:
    assert groups_of(("Impersonate-User", "jane")) == ("system:authenticated",)
    account = ("Impersonate-User", "system:serviceaccount:a:b")
    mine = ("system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated")
    assert groups_of(account) == mine
    assert groups_of(account, ("Impersonate-Group", "g")) == ("g", "system:authenticated")
    assert groups_of(("impersonate-user", "system:anonymous")) == ("system:unauthenticated",)


async def test_a_group_without_a_user_is_an_error_as_on_a_real_server(http: Http) -> None:
    status, body = await http.call("GET", "/api", Impersonate_Group="system:masters")
    assert (status, body["reason"]) == (500, "InternalError")
    assert "without impersonating a user" in body["message"]


def test_kubectl_says_who_one_is(kubectl: Kubectl) -> None:
    assert "system:masters" in kubectl("auth", "whoami").out
    said = kubectl("auth", "whoami", "--token", JANE).out
    assert "jane" in said
    assert "uid-of-jane" in said
    assert "[developers reviewers system:authenticated]" in said
    acting = kubectl("auth", "whoami", "--as=bob", "--as-group=x", "--as-uid=7").out
    assert "bob" in acting
    assert "[x system:authenticated]" in acting


def test_who_acts_as_another_has_that_ones_permissions_and_not_more(kubectl: Kubectl) -> None:
    refused = kubectl("get", "pods", "--as=bob", fails=True)
    assert 'User "bob" cannot list resource "pods"' in refused.err
    assert kubectl("get", "pods", "--as=bob", "--as-group=system:masters").code == 0


def test_not_everybody_may_act_as_another(kubectl: Kubectl) -> None:
    refused = kubectl("get", "pods", "--token", JANE, "--as=admin", fails=True)
    assert refused.err == (
        'Error from server (Forbidden): users "admin" is forbidden: User "jane" cannot impersonate resource '
        '"users" in API group "" at the cluster scope\n'
    )
    group = kubectl("get", "pods", "--token", JANE, "--as=jane", "--as-group=system:masters", fails=True)
    assert "is forbidden" in group.err
