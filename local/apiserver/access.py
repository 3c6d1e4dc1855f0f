"""The way in: who asks, as whom, and whether that is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from aiohttp import web

from local.apiserver.attributes import Attributes, attributes_of, refusal
from local.apiserver.rbac import Decision, Rbac
from local.apiserver.users import Impersonation, Tokens, User, impersonation, service_account


@dataclass
class Asker:
    """What is known of a request's user: more with every step, so that a refusal can be put on record."""

    asked: Attributes
    user: User | None = None
    acting_as: User | None = None
    decision: Decision | None = None
    also: list[str] = field(default_factory=list)
    """Further verbs on the same resource that the request turned out to need, allowed or not."""

    @property
    def effective(self) -> User:
        """Whose permissions count."""
        found = self.acting_as or self.user
        assert found is not None
        return found


def asker_of(request: web.Request) -> Asker:
    return Asker(attributes_of(request.method, request.path, request.query))


@dataclass(frozen=True)
class Gate:
    """Authentication, impersonation and authorization, in this order."""

    tokens: Tokens
    rbac: Rbac

    def admit(self, request: web.Request, asker: Asker) -> None:
        """Fills in `asker`; ApiError 401 or 403."""
        user = asker.user = self.tokens.identify(request.headers.get("Authorization", ""))
        wanted = impersonation(request.headers.items())
        if wanted is not None:
            self._check_impersonation(user, wanted)
            asker.acting_as = wanted.user()
        asker.decision = self.rbac.authorize(asker.effective, asker.asked)
        if not asker.decision.allowed:
            raise refusal(asker.effective, asker.asked, asker.decision.reason)

    def require(self, asker: Asker, verb: str) -> None:
        """ApiError 403 unless the asker may do this to what was asked for, too."""
        asker.also.append(verb)
        asked = replace(asker.asked, verb=verb)
        decision = self.rbac.authorize(asker.effective, asked)
        if not decision.allowed:
            raise refusal(asker.effective, asked, decision.reason)

    def _check_impersonation(self, user: User, wanted: Impersonation) -> None:
        for asked in _impersonated(wanted):
            decision = self.rbac.authorize(user, asked)
            if not decision.allowed:
                raise refusal(user, asked, decision.reason)


def _impersonated(wanted: Impersonation) -> Iterator[Attributes]:
    """What a user needs to be allowed, to act as another one."""
    account = service_account(wanted.name)
    if account:
        namespace, name = account
        yield Attributes("impersonate", "", "v1", "serviceaccounts", namespace=namespace, name=name)
    else:
        yield Attributes("impersonate", "", "v1", "users", name=wanted.name)
    for group in wanted.groups:
        yield Attributes("impersonate", "", "v1", "groups", name=group)
    authentication = ("impersonate", "authentication.k8s.io", "v1")
    if wanted.uid:
        yield Attributes(*authentication, "uids", name=wanted.uid)
    for key, values in wanted.extra.items():
        for value in values:
            yield Attributes(*authentication, "userextras", subresource=key, name=value)
