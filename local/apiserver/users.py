"""Who asks: bearer tokens, and the headers with which one user acts as another."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from local.apiserver.errors import ApiError, Object, internal

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
_SERVICE_ACCOUNT = "system:serviceaccount:"
_EXTRA = "impersonate-extra-"


@dataclass(frozen=True)
class User:
    """A subject as user.Info has it."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def shown(self) -> Object:
        """As `authentication.k8s.io/v1` UserInfo; empty fields are left out."""
        fields: Object = {"username": self.name, "uid": self.uid, "groups": list(self.groups)}
        fields["extra"] = {key: list(values) for key, values in self.extra.items()}
        return {name: value for name, value in fields.items() if value}


ADMIN = User("admin", groups=(MASTERS, AUTHENTICATED))
ANONYMOUS = User("system:anonymous", groups=(UNAUTHENTICATED,))


def service_account(name: str) -> tuple[str, str] | None:
    """Namespace and name of the service account that a user name stands for; None for any other user."""
    parts = name.removeprefix(_SERVICE_ACCOUNT).split(":")
    if not name.startswith(_SERVICE_ACCOUNT) or len(parts) != 2 or not all(parts):
        return None
    return parts[0], parts[1]


def account_groups(namespace: str) -> tuple[str, ...]:
    """The groups that every service account of a namespace is in, as its own token would say."""
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Tokens:
    """Users by bearer token. Kept as digests, so that the time of a look-up says nothing of a token."""

    def __init__(self, users: Mapping[str, User]) -> None:
        self._users = {_digest(token): user for token, user in users.items()}

    def identify(self, authorization: str) -> User:
        """The user of an `Authorization` header, "" for none; ApiError 401 for a token nobody has."""
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        user = self._users.get(_digest(token.strip())) if scheme.lower() == "bearer" else None
        if user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user


def read_token_file(path: Path) -> dict[str, User]:
    """A file as `kube-apiserver --token-auth-file` reads it: lines of `token,user,uid,"group1,group2"`.

    Raises ValueError, which names the line but shows none of it.
    """
    users: dict[str, User] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for record in csv.reader(file, skipinitialspace=True):
            if not any(record):
                continue
            number = len(users) + 1
            if len(record) < 3:
                raise ValueError(
                    f"token file {path}: record {number} has {len(record)} columns; "
                    "give at least 3: token,user name,user uid"
                )
            token, name, uid = (column.strip() for column in record[:3])
            if not token or not name:
                raise ValueError(f"token file {path}: record {number} has no token or no user name")
            if token in users:
                raise ValueError(
                    f"token file {path}: record {number} repeats a token: give each user its own"
                )
            given = record[3].split(",") if len(record) > 3 else []
            groups = tuple(group.strip() for group in given if group.strip())
            users[token] = User(name, uid, with_group(groups, AUTHENTICATED))
    return users


def with_group(groups: Iterable[str], group: str) -> tuple[str, ...]:
    """`groups` in their order, each once, with `group` among them."""
    return tuple(dict.fromkeys((*groups, group)))


@dataclass(frozen=True)
class Impersonation:
    """What the `Impersonate-*` headers of a request ask for."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def user(self) -> User:
        """The user to act as, with the groups that go without saying."""
        groups = self.groups
        account = service_account(self.name)
        if account and not groups:
            groups = account_groups(account[0])
        if self.name == ANONYMOUS.name:
            groups = with_group(groups, UNAUTHENTICATED)
        elif UNAUTHENTICATED not in groups:
            groups = with_group(groups, AUTHENTICATED)
        return User(self.name, self.uid, groups, self.extra)


def impersonation(headers: Iterable[tuple[str, str]]) -> Impersonation | None:
    """None when nobody is to be impersonated; ApiError 500, as on a real server, for a group alone."""
    name, uid, groups = "", "", list[str]()
    extra: dict[str, list[str]] = {}
    for header, value in headers:
        lowered = header.lower()
        if lowered == "impersonate-user":
            name = value
        elif lowered == "impersonate-uid":
            uid = value
        elif lowered == "impersonate-group":
            groups.append(value)
        elif lowered.startswith(_EXTRA):
            extra.setdefault(unquote(lowered.removeprefix(_EXTRA)), []).append(value)
    if not name:
        if uid or groups or extra:
            raise internal("requested groups, uid or extra without impersonating a user")
        return None
    kept = {key: tuple(values) for key, values in extra.items()}
    return Impersonation(name, uid, tuple(groups), kept)
