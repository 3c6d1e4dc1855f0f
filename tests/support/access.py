"""Who used what of the Kubernetes API (by its audit log), and who was granted what (by the manifests)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from local.apiserver.audit import ALSO
from tests.support.validation import Schemas

Object = dict[str, Any]
# Granted to every authenticated user of every cluster: reviews of oneself, and discovery.
EVERYBODYS = {"authorization.k8s.io", "authentication.k8s.io"}


@dataclass(frozen=True, order=True)
class Granted:
    """namespace: "" for a grant that holds in all of them. resource: with `/subresource` where it is one."""

    namespace: str
    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        group = f".{self.group}" if self.group else ""
        return f"{self.verb} {self.resource}{group} in {self.namespace or 'all namespaces'}"


def granted(objects: Iterable[Object], user: str) -> set[Granted]:
    """What Roles and ClusterRoles grant to a service account through their bindings."""
    known = list(objects)
    rules = {
        (each["kind"], _namespace(each), each["metadata"]["name"]): each.get("rules") or [] for each in known
    }
    found = set()
    for binding in known:
        if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        names = {
            f"system:serviceaccount:{each.get('namespace')}:{each['name']}" for each in binding["subjects"]
        }
        if user not in names:
            continue
        role, where = binding["roleRef"], _namespace(binding)
        at_home = where if role["kind"] == "Role" else ""
        for rule in rules[role["kind"], at_home, role["name"]]:
            found |= {
                Granted(where, group, resource, verb)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return found


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace") or "")


def events_of(events: Iterable[Object], user: str) -> list[Object]:
    """Each request of a user once, as it ended; whoever acted as the user counts as the user."""
    latest: dict[str, Object] = {}
    for event in events:
        who = event.get("impersonatedUser") or event.get("user") or {}
        if who.get("username") == user and event["stage"] in ("ResponseStarted", "ResponseComplete"):
            latest[event["auditID"]] = event
    return list(latest.values())


def used(events: Iterable[Object]) -> set[Granted]:
    """What the requests of one user needed, whether they were allowed or not."""
    found = set()
    for event in events:
        about = event.get("objectRef")
        if about is None or about.get("apiGroup", "") in EVERYBODYS:
            continue  # discovery, health, reviews
        resource = about["resource"] + (f"/{about['subresource']}" if about.get("subresource") else "")
        where, group = about.get("namespace", ""), about.get("apiGroup", "")
        also = (event.get("annotations") or {}).get(ALSO, "")  # the local API server's own word
        verbs = {event["verb"], *filter(None, also.split(","))}
        # Server-side apply and update create what is not there, and need to be allowed to.
        if event["verb"] in ("patch", "update") and event.get("responseStatus", {}).get("code") == 201:
            verbs.add("create")
        # A websocket upgrade is a GET; the API server asks for `create` as well.
        if resource in ("pods/exec", "pods/attach", "pods/portforward"):
            verbs.add("create")
        found |= {Granted(where, group, resource, verb) for verb in verbs}
    return found


def covers(grant: Granted, need: Granted) -> bool:
    return grant.namespace in ("", need.namespace) and (grant.group, grant.resource, grant.verb) == (
        need.group,
        need.resource,
        need.verb,
    )


def not_granted(needs: Iterable[Granted], grants: Iterable[Granted]) -> set[Granted]:
    grants = list(grants)
    return {need for need in needs if not any(covers(grant, need) for grant in grants)}


def not_used(grants: Iterable[Granted], needs: Iterable[Granted]) -> set[Granted]:
    """Grants that no request needed: a narrower grant that covers a request comes before a wider one."""
    grants, useful = list(grants), set()
    for need in needs:
        able = [grant for grant in grants if covers(grant, need)]
        narrow = [grant for grant in able if grant.namespace]
        useful |= set(narrow or able)
    return set(grants) - useful


def refused(events: Iterable[Object]) -> list[str]:
    """Requests that the API server did not allow."""
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in events
        if event.get("responseStatus", {}).get("code") in (401, 403)
    ]


@dataclass(frozen=True)
class Written:
    """An object on its way into the API server (partial where it was a patch), or as it came out."""

    what: str
    body: Object
    partial: bool


def written(events: Iterable[Object]) -> Iterator[Written]:
    """Every object that the requests created or changed: as sent and, where it was taken, as answered."""
    for event in events:
        if event["stage"] != "ResponseComplete" or event["verb"] not in ("create", "update", "patch"):
            continue
        code, about = event.get("responseStatus", {}).get("code", 0), event.get("objectRef") or {}
        if about.get("subresource") in ("exec", "eviction", "binding") or not 200 <= code < 300:
            continue
        if about.get("apiGroup", "") in EVERYBODYS:
            continue
        sent, answer = event.get("requestObject"), event.get("responseObject")
        group, version = about.get("apiGroup", ""), about.get("apiVersion", "v1")
        types = {"apiVersion": f"{group}/{version}" if group else version, "kind": (answer or {}).get("kind")}
        words = f"{event['verb']} {event['requestURI']}"
        if isinstance(sent, dict) and types["kind"]:
            partial = event["verb"] == "patch" and sent.get("kind") is None
            yield Written(f"{words}, as sent", {**types, **sent}, partial)
        if isinstance(answer, dict) and answer.get("kind"):
            yield Written(f"{words}, as answered", answer, False)


def check_written(events: Iterable[Object], schemas: Schemas) -> tuple[set[str], list[str]]:
    """The kinds that were written, and what is not valid of them."""
    kinds, problems = set(), []
    for item in written(events):
        kinds.add(str(item.body["kind"]))
        problems += [
            f"{item.what}: {problem}" for problem in schemas.problems(item.body, partial=item.partial)
        ]
    return kinds, problems
