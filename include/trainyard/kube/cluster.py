"""One small client over the provider's own `kubernetes.client.ApiClient`: plain dicts in and out, typed
errors.

Custom and built-in kinds go the same way, so Karpenter's and the Gateway's objects need no generated classes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from trainyard.errors import ClusterUnavailable, Conflict, Forbidden, LeaseLost, NotFound, PermanentError

Object = dict[str, Any]
# The method `list` below hides the built-in in annotations.
Objects = list[Object]
Words = list[str]

FIELD_MANAGER = "trainyard"
_MOST_PAGES = 2000
_TIMEOUT = (5, 30)  # seconds: connect, read


@dataclass(frozen=True)
class Kind:
    """Where a kind lives in the API."""

    api_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str | None = None) -> str:
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        middle = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        return f"{root}{middle}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")


KINDS: Mapping[str, Kind] = {
    "Pod": Kind("v1", "pods"),
    "Service": Kind("v1", "services"),
    "Event": Kind("v1", "events"),
    "Node": Kind("v1", "nodes", namespaced=False),
    "Deployment": Kind("apps/v1", "deployments"),
    "ReplicaSet": Kind("apps/v1", "replicasets"),
    "DaemonSet": Kind("apps/v1", "daemonsets"),
    "EndpointSlice": Kind("discovery.k8s.io/v1", "endpointslices"),
    "HTTPRoute": Kind("gateway.networking.k8s.io/v1", "httproutes"),
    "Gateway": Kind("gateway.networking.k8s.io/v1", "gateways"),
    "GatewayClass": Kind("gateway.networking.k8s.io/v1", "gatewayclasses", namespaced=False),
    "NodePool": Kind("karpenter.sh/v1", "nodepools", namespaced=False),
    "NodeClaim": Kind("karpenter.sh/v1", "nodeclaims", namespaced=False),
    "EC2NodeClass": Kind("karpenter.k8s.aws/v1", "ec2nodeclasses", namespaced=False),
    "Namespace": Kind("v1", "namespaces", namespaced=False),
    "ServiceAccount": Kind("v1", "serviceaccounts"),
    "Secret": Kind("v1", "secrets"),
    "PriorityClass": Kind("scheduling.k8s.io/v1", "priorityclasses", namespaced=False),
    "SelfSubjectAccessReview": Kind("authorization.k8s.io/v1", "selfsubjectaccessreviews", namespaced=False),
}


_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class _Expired(PermanentError):
    """410: the version that a list was to go on with is forgotten."""


class Cluster:
    """Reads and writes objects. Errors: NotFound, Conflict, ClusterUnavailable (after retries),
    PermanentError."""

    def __init__(
        self, api_client: Any, *, attempts: int = 4, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.api_client = api_client
        # urllib3 tries again by itself, and sleeps as long as any Retry-After says: retries are made here.
        api_client.rest_client.pool_manager.connection_pool_kw["retries"] = False
        self._attempts, self._sleep = attempts, sleep

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        return self._call("GET", KINDS[kind].path(namespace, name))

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Like get, with None for what does not exist."""
        try:
            return self.get(kind, name, namespace)
        except NotFound:
            return None

    def read(self, path: str) -> Object:
        """What is no object: the version, discovery. Raises NotFound."""
        return self._call("GET", path)

    def exists(self, kind: str, name: str, namespace: str | None = None) -> bool:
        """Whether it is there, without its content: the only way to look at a Secret. Raises Forbidden."""
        try:
            self._call("GET", KINDS[kind].path(namespace, name), accept=_METADATA)
        except NotFound:
            return False
        return True

    def list(self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = "") -> Objects:
        """All objects, page by page; from the start where the list expired between two pages."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": "500"}
        out: list[Object] = []
        for _ in range(_MOST_PAGES):
            try:
                page = self._call("GET", KINDS[kind].path(namespace), {k: v for k, v in query.items() if v})
            except _Expired:
                query.pop("continue", None)
                out = []
                continue
            out += page.get("items") or []
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return out
            query["continue"] = more
        raise ClusterUnavailable(f"listing {kind} came to no end in {_MOST_PAGES} pages")

    def create(self, body: Object) -> Object:
        """Raises Conflict where it exists."""
        kind, meta = KINDS[body["kind"]], body["metadata"]
        path = kind.path(meta.get("namespace"))
        return self._call("POST", path, {"fieldManager": FIELD_MANAGER}, body, "application/json")

    def apply(self, body: Object, *, force: bool = True) -> Object:
        """Server-side apply as field manager `trainyard`: the same body twice changes nothing."""
        kind, meta = KINDS[body["kind"]], body["metadata"]
        return self._call(
            "PATCH",
            kind.path(meta.get("namespace"), meta["name"]),
            {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"},
            body,
            "application/apply-patch+yaml",
        )

    def merge(self, kind: str, name: str, namespace: str | None, body: Object) -> Object:
        """JSON merge patch. With metadata.resourceVersion in the body it is a compare-and-swap."""
        return self._call(
            "PATCH",
            KINDS[kind].path(namespace, name),
            {"fieldManager": FIELD_MANAGER},
            body,
            "application/merge-patch+json",
        )

    def delete(
        self, kind: str, name: str, namespace: str | None = None, *, propagation: str = "Background"
    ) -> bool:
        """Deletes; False if it was gone already."""
        try:
            self._call("DELETE", KINDS[kind].path(namespace, name), {"propagationPolicy": propagation})
        except NotFound:
            return False
        return True

    def events(self, namespace: str, name: str) -> Objects:
        """Events about one object, oldest first."""
        found = self.list("Event", namespace, fields=f"involvedObject.name={name}")
        return sorted(
            found, key=lambda e: e.get("lastTimestamp") or e["metadata"].get("creationTimestamp") or ""
        )

    def log(self, pod: str, namespace: str, container: str, *, tail: int = 40, previous: bool = False) -> str:
        """The last lines of a container's log; empty where there is none to read."""
        query = {"container": container, "tailLines": str(tail)}
        if previous:
            query["previous"] = "true"
        try:
            raw = self._request("GET", KINDS["Pod"].path(namespace, pod) + "/log", query)
        except (PermanentError, ClusterUnavailable):
            return ""
        return raw.decode(errors="replace")

    def through(self, pod: str, namespace: str, port: int, path: str) -> str:
        """GET of what a pod serves, passed on by the API server (`pods/proxy`)."""
        raw = self._request("GET", f"{KINDS['Pod'].path(namespace, f'{pod}:{port}')}/proxy/{path}")
        return raw.decode(errors="replace")

    def execute(self, pod: str, namespace: str, container: str, argv: Words, *, seconds: float) -> str:
        """Runs a command in a container and returns its output, what it said on stderr at the end; stops
        listening after `seconds`."""
        from kubernetes import client, stream
        from kubernetes.client.exceptions import ApiException

        # stream() swaps the request method of the client that it is given for websockets: give it one of its
        # own.
        core = client.CoreV1Api(client.ApiClient(self.api_client.configuration))
        try:
            shell = stream.stream(
                core.connect_get_namespaced_pod_exec,
                pod,
                namespace,
                container=container,
                command=argv,
                stdout=True,
                stderr=True,
                stdin=False,
                tty=False,
                _preload_content=False,
            )
        except (ApiException, AttributeError) as error:
            # The client itself trips over a refusal without a body (kubernetes 36: None has no decode).
            told = error if isinstance(error, ApiException) else error.__context__
            words = getattr(told, "reason", None) or told
            raise ClusterUnavailable(f"exec in pod {namespace}/{pod} was refused: {words}") from error
        deadline = time.monotonic() + seconds
        out: Words = []
        complaints: Words = []
        while shell.is_open() and time.monotonic() < deadline:
            shell.update(timeout=0.5)
            if shell.peek_stdout():
                out.append(shell.read_stdout())
            if shell.peek_stderr():
                complaints.append(shell.read_stderr())
        shell.close()
        return "".join([*out, *complaints])

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str | None = None,
        accept: str = "application/json",
    ) -> Object:
        raw = self._request(method, path, query, body, content_type, accept) or b"{}"
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            # A proxy on the way, most likely.
            raise ClusterUnavailable(f"{method} {path}: the answer is no object: {raw[:200]!r}")
        return answer

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str | None = None,
        accept: str = "application/json",
    ) -> bytes:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        headers = {"Accept": accept}
        if content_type:
            headers["Content-Type"] = content_type
        last = ""
        for attempt in range(self._attempts):
            try:
                answer = self.api_client.call_api(
                    path,
                    method,
                    {},
                    list((query or {}).items()),
                    headers,
                    body=body,
                    auth_settings=["BearerToken"],
                    _preload_content=False,
                    _return_http_data_only=True,
                    _request_timeout=_TIMEOUT,
                )
                data: bytes = answer.data
                return data
            except ApiException as error:
                if error.status and error.status != 429 and error.status < 500:
                    raise _typed(error, method, path) from None
                last = f"{error.status} {error.reason}"
                pause = _retry_after(error) or 0.25 * 2**attempt
            # UnicodeDecodeError: the client decodes what an error says, whatever answered it.
            except (HTTPError, OSError, UnicodeDecodeError) as error:
                last, pause = f"{type(error).__name__}: {error}", 0.25 * 2**attempt
            if attempt + 1 < self._attempts:
                self._sleep(min(pause, 10.0))
        raise ClusterUnavailable(
            f"{method} {path}: the Kubernetes API did not answer properly in {self._attempts} tries ({last})"
        )


def guard_token(live: Object, token: int) -> None:
    """Refuses to change an object that a newer lease holder has changed already. Raises LeaseLost."""
    written = written_token(live)
    if written > token:
        raise LeaseLost(
            f"{live['kind']} {live['metadata']['name']} was last changed under lease token {written}, this "
            f"release "
            f"holds {token}: another release has taken over. Nothing was changed."
        )


def written_token(live: Object) -> int:
    """The lease token that an object was last changed under; 0 where nobody wrote one."""
    text = str((live["metadata"].get("annotations") or {}).get("trainyard.dev/lease-token", ""))
    return int(text) if text.isdecimal() else 0


def _retry_after(error: Any) -> float | None:
    value = (error.headers or {}).get("Retry-After") if error.headers else None
    try:
        seconds = float(value) if value is not None else 0.0
    except ValueError:
        return None
    return seconds if seconds > 0 else None


def _typed(error: Any, method: str, path: str) -> Exception:
    try:
        message = json.loads(error.body).get("message") or error.reason
    except (ValueError, TypeError, AttributeError):
        message = error.reason
    text = f"{method} {path}: {message}"
    if error.status == 404:
        return NotFound(text)
    if error.status == 410:
        return _Expired(text)
    if error.status == 409:
        return Conflict(text)
    if error.status == 401:
        return PermanentError(
            f"{text}. The cluster refuses the credentials of connection kubernetes_default."
        )
    if error.status == 403:
        return Forbidden(f"{text}. Grant it: deploy/cluster/base has the roles that Trainyard needs.")
    return PermanentError(text)
