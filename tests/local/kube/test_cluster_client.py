"""The cluster client against the real local API server, and against one that has bad moments."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cluster import Cluster as Server
from tests.support.moody import Answer, Moody, moody
from tests.support.world import api_client
from trainyard.errors import ClusterUnavailable, Conflict, Forbidden, LeaseLost, NotFound, PermanentError
from trainyard.kube.cluster import Cluster, guard_token, written_token
from trainyard.kube.traffic import accepted, route_manifest, set_weights, weights_of

__all__ = ["moody"]


def status(code: int, message: str = "because") -> dict[str, Any]:
    return {"kind": "Status", "code": code, "message": message}


VERBS: dict[str, Callable[[Cluster], Any]] = {
    "get": lambda cluster: cluster.get("Pod", "a", "b"),
    "apply": lambda cluster: cluster.apply({"kind": "Pod", "metadata": {"name": "a", "namespace": "b"}}),
    "merge": lambda cluster: cluster.merge("Pod", "a", "b", {}),
    "delete": lambda cluster: cluster.delete("Pod", "a", "b"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("bad", [(500, {}, {}), (503, {}, b"gateway"), (504, {}, {}), (429, {}, {}), None])
def test_a_bad_moment_is_tried_again_with_longer_pauses(moody: Moody, verb: str, bad: Answer) -> None:
    moody.answers = [bad, bad]
    VERBS[verb](moody.cluster())
    assert len(moody.slept) <= 2
    assert moody.slept == sorted(moody.slept)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("wait", ["2", "3600", "soon", "nan", "-1"])
def test_the_servers_own_wait_is_kept_within_bounds(moody: Moody, verb: str, wait: str) -> None:
    moody.answers = [(429, {"Retry-After": wait}, status(429))]
    VERBS[verb](moody.cluster())
    (pause,) = moody.slept
    assert pause == {"2": 2.0, "3600": 10.0}.get(wait, 0.25)


@pytest.mark.parametrize("bad", [(500, {}, {}), (429, {"Retry-After": "1"}, {}), None])
def test_a_server_that_stays_away_is_unavailable_in_the_end(moody: Moody, bad: Answer) -> None:
    moody.then = bad
    with pytest.raises(ClusterUnavailable, match="in 3 tries"):
        moody.cluster(attempts=3).get("Pod", "a", "b")
    assert len(moody.slept) == 2


def test_nobody_at_the_address_is_unavailable() -> None:
    from kubernetes import client

    api = client.ApiClient(client.Configuration(host="http://127.0.0.1:1"))
    with pytest.raises(ClusterUnavailable):
        Cluster(api, attempts=1, sleep=lambda _: None).get("Pod", "a", "b")


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (400, PermanentError, "because"),
        (401, PermanentError, "kubernetes_default"),
        (403, Forbidden, "deploy/cluster/base"),
        (404, NotFound, "because"),
        (409, Conflict, "because"),
        (422, PermanentError, "because"),
    ],
)
def test_a_refusal_is_typed_and_not_tried_again(
    moody: Moody, code: int, kind: type[Exception], words: str
) -> None:
    moody.then = (code, {}, status(code))
    with pytest.raises(kind, match=words) as caught:
        moody.cluster().get("Pod", "a", "b")
    assert type(caught.value) is kind
    assert "GET /api/v1/namespaces/b/pods/a" in str(caught.value)
    assert (len(moody.seen), moody.slept) == (1, [])


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'"x"'])
def test_a_refusal_of_any_form_is_typed(moody: Moody, body: bytes) -> None:
    moody.then = (403, {}, body)
    with pytest.raises(PermanentError):
        moody.cluster().get("Pod", "a", "b")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{", b"\xff"])
def test_an_answer_that_is_no_object_is_a_bad_moment(moody: Moody, body: bytes) -> None:
    moody.then = (200, {}, body)
    with pytest.raises(ClusterUnavailable):
        moody.cluster().get("Pod", "a", "b")


def test_an_error_that_is_no_text_is_a_bad_moment(moody: Moody) -> None:
    moody.then = (403, {}, b"\xff")
    with pytest.raises(ClusterUnavailable):
        moody.cluster().get("Pod", "a", "b")


def test_a_list_that_expired_between_two_pages_is_read_again(moody: Moody) -> None:
    page = {"items": [{"n": 1}], "metadata": {"continue": "more"}}
    moody.answers = [(200, {}, page), (410, {}, status(410, "expired")), (200, {}, page)]
    moody.then = (200, {}, {"items": [{"n": 2}], "metadata": {}})
    assert moody.cluster().list("Pod") == [{"n": 1}, {"n": 2}]


def test_names_cannot_climb_out_of_their_path(moody: Moody) -> None:
    moody.cluster().get("Pod", "../../nodes/x?y", "a/b")
    assert moody.seen == ["GET /api/v1/namespaces/a%2Fb/pods/..%2F..%2Fnodes%2Fx%3Fy"]


def test_a_log_that_cannot_be_read_is_empty(moody: Moody) -> None:
    moody.then = (400, {}, status(400, "container is waiting to start"))
    assert moody.cluster().log("a", "b", "c") == ""


# -- against the real one


def test_what_does_not_exist_is_not_found_none_or_false(kube: Cluster, space: str) -> None:
    with pytest.raises(NotFound):
        kube.get("Pod", "nothing", space)
    assert kube.find("Pod", "nothing", space) is None
    assert kube.delete("Pod", "nothing", space) is False


def service(space: str, name: str = "a", port: int = 80) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": space},
        "spec": {"ports": [{"port": port}], "selector": {"app": "x"}},
    }


def test_the_same_body_applied_twice_changes_nothing(kube: Cluster, space: str) -> None:
    assert kube.apply(service(space)) == kube.apply(service(space))
    assert kube.apply(service(space, port=81))["spec"]["ports"][0]["port"] == 81


def test_what_exists_cannot_be_created(kube: Cluster, space: str) -> None:
    kube.create(service(space))
    with pytest.raises(Conflict):
        kube.create(service(space))


def test_a_merge_with_an_old_version_is_a_conflict(kube: Cluster, space: str) -> None:
    first = kube.apply(service(space))
    version = first["metadata"]["resourceVersion"]
    kube.merge("Service", "a", space, {"metadata": {"labels": {"x": "1"}}})
    body = {"metadata": {"resourceVersion": version, "labels": {"x": "2"}}}
    with pytest.raises(Conflict):
        kube.merge("Service", "a", space, body)


def test_lists_follow_labels_and_all_pages(kube: Cluster, bare_server: Server, space: str) -> None:
    for number in range(4):
        kube.apply(service(space, f"s{number}"))
    kube.merge("Service", "s1", space, {"metadata": {"labels": {"x": "1"}}})
    assert [item["metadata"]["name"] for item in kube.list("Service", space, labels="x=1")] == ["s1"]
    assert len(kube.list("Service", space)) == 4


# -- weights


def weigh(cluster: Cluster, space: str, weights: dict[str, int], token: int) -> dict[str, Any]:
    return set_weights(
        cluster,
        model="m",
        namespace=space,
        gateway="g",
        gateway_namespace=space,
        weights=weights,
        token=token,
    )


def test_weights_are_set_once(kube: Cluster, space: str) -> None:
    first = weigh(kube, space, {"a": 90, "b": 10}, 1)
    assert weights_of(first) == {"a": 90, "b": 10}
    again = weigh(kube, space, {"a": 90, "b": 10}, 1)
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_newer_holder_raises_the_fence_though_the_weights_are_set_already(
    kube: Cluster, space: str
) -> None:
    first = weigh(kube, space, {"a": 100}, 1)
    second = weigh(kube, space, {"a": 100}, 2)
    assert written_token(second) == 2
    assert second["metadata"]["generation"] == first["metadata"]["generation"]
    with pytest.raises(LeaseLost, match="token 2"):
        weigh(kube, space, {"b": 100}, 1)
    assert weights_of(kube.get("HTTPRoute", "m", space)) == {"a": 100}


def test_a_change_in_between_is_read_before_the_next_try(
    kube: Cluster, bare_server: Server, space: str
) -> None:
    weigh(kube, space, {"a": 100}, 1)

    class Interrupted(Cluster):
        turns = 0

        def merge(self, *arguments: Any) -> Any:
            self.turns += 1
            if self.turns == 1:
                kube.merge("HTTPRoute", "m", space, {"metadata": {"labels": {"other": "x"}}})
            return super().merge(*arguments)

    interrupted = Interrupted(api_client(bare_server))
    assert weights_of(weigh(interrupted, space, {"a": 75, "b": 25}, 1)) == {"a": 75, "b": 25}
    assert interrupted.turns == 2


def test_a_newer_holder_in_between_wins(kube: Cluster, bare_server: Server, space: str) -> None:
    weigh(kube, space, {"a": 100}, 1)

    class Overtaken(Cluster):
        def merge(self, *arguments: Any) -> Any:
            weigh(kube, space, {"c": 100}, 2)
            return super().merge(*arguments)

    with pytest.raises(LeaseLost):
        weigh(Overtaken(api_client(bare_server)), space, {"b": 100}, 1)
    assert weights_of(kube.get("HTTPRoute", "m", space)) == {"c": 100}


def test_a_newer_holder_that_makes_the_route_first_wins(
    kube: Cluster, bare_server: Server, space: str
) -> None:
    class Overtaken(Cluster):
        def create(self, body: dict[str, Any]) -> Any:
            weigh(kube, space, {"c": 100}, 2)
            return super().create(body)

    with pytest.raises(LeaseLost):
        weigh(Overtaken(api_client(bare_server)), space, {"b": 100}, 1)
    assert weights_of(kube.get("HTTPRoute", "m", space)) == {"c": 100}


def test_of_many_holders_at_once_the_newest_has_the_last_word(
    kube: Cluster, bare_server: Server, space: str
) -> None:
    """Whatever the order, an older token never overwrites a newer one."""
    tokens = list(range(1, 9))

    def shift(token: int) -> None:
        with contextlib.suppress(LeaseLost, ClusterUnavailable):
            weigh(Cluster(api_client(bare_server)), space, {f"r{token}": 100}, token)

    threads = [threading.Thread(target=shift, args=(token,)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    route = kube.get("HTTPRoute", "m", space)
    assert weights_of(route) == {f"r{written_token(route)}": 100}
    weigh(kube, space, {"r9": 100}, 9)
    for token in tokens:
        with pytest.raises(LeaseLost):
            weigh(kube, space, {"old": 100}, token)


@pytest.mark.parametrize("weights", [{"a": 50}, {"a": 60, "b": 60}])
def test_weights_that_are_no_hundred_are_refused(kube: Cluster, space: str, weights: dict[str, int]) -> None:
    with pytest.raises(PermanentError, match="add up to 100"):
        weigh(kube, space, weights, 1)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5"])
def test_a_token_that_is_no_number_is_none(text: str) -> None:
    live = {
        "kind": "HTTPRoute",
        "metadata": {"name": "m", "annotations": {"trainyard.dev/lease-token": text}},
    }
    assert written_token(live) == 0
    guard_token(live, 1)


def test_a_route_is_taken_over_only_in_its_newest_generation() -> None:
    route = route_manifest("m", "n", "g", "n", {"a": 100}, 1)
    assert not accepted(route)[0]
    route["metadata"]["generation"] = 2
    fine = {"type": "Accepted", "status": "True", "observedGeneration": 1}
    route["status"] = {"parents": [{"conditions": [fine]}]}
    assert not accepted(route)[0]
    fine["observedGeneration"] = 2
    assert accepted(route) == (True, "")
    bad = {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "no a"}
    route["status"]["parents"][0]["conditions"].append(bad)
    assert accepted(route) == (False, "ResolvedRefs=False: BackendNotFound: no a")
