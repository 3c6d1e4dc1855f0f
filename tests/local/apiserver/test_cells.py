from __future__ import annotations

import json
from typing import Any

import pytest

from local.apiserver.cells import human_duration, pod_status
from local.apiserver.jsonpaths import find
from tests.local.apiserver.conftest import Http


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (192, "3m12s"),
        (3600, "60m"),
        (3 * 3600 + 600, "3h10m"),
        (10 * 3600, "10h"),
        (2 * 86400 + 3 * 3600, "2d3h"),
        (400 * 86400, "400d"),
        (3 * 365 * 86400 + 12 * 86400, "3y12d"),
        (-5, "<invalid>"),
    ],
)
def test_a_duration_reads_as_kubectl_prints_it(seconds: int, text: str) -> None:
    assert human_duration(seconds) == text


def pod(status: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {"metadata": meta, "spec": {"containers": [{}], "initContainers": [{}, {}]}, "status": status}


WAITING = {"waiting": {"reason": "ImagePullBackOff"}}
DONE, FAILED = {"terminated": {"exitCode": 0, "reason": "Completed"}}, {"terminated": {"exitCode": 3}}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (pod({"phase": "Pending"}), "Pending"),
        (pod({"phase": "Pending", "containerStatuses": [{"state": WAITING}]}), "ImagePullBackOff"),
        (pod({"phase": "Pending", "initContainerStatuses": [{"state": DONE}, {"state": {}}]}), "Init:1/2"),
        (pod({"phase": "Pending", "initContainerStatuses": [{"state": FAILED}]}), "Init:ExitCode:3"),
        (pod({"phase": "Succeeded", "containerStatuses": [{"state": DONE}]}), "Completed"),
        (pod({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
        (pod({"phase": "Running"}, deletionTimestamp="now"), "Terminating"),
    ],
)
def test_the_status_of_a_pod_is_the_word_that_people_look_for(given: dict[str, Any], word: str) -> None:
    assert pod_status(given) == word


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b", [1]),
        ("a.b", [1]),
        (".l[*].n", ["x", "y"]),
        (".l[1].n", ["y"]),
        ('.l[?(@.n=="y")].v', [2]),
        (r".m.k\.io/z", ["deep"]),
        (".none.at.all", []),
        (".a[", []),
    ],
)
def test_a_column_path_finds_its_values(path: str, found: list[Any]) -> None:
    items = [{"n": "x", "v": 1}, {"n": "y", "v": 2}]
    assert find({"a": {"b": 1}, "l": items, "m": {"k.io/z": "deep"}}, path) == found


async def test_a_watch_of_tables_names_its_columns_once(http: Http) -> None:
    pods = "/api/v1/namespaces/default/pods"
    spec = {"containers": [{"name": "c", "image": "i:1"}]}
    for name in "ab":
        await http.call("POST", pods, {"metadata": {"name": name}, "spec": spec})
    query = "watch=1&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true"
    url = f"{pods}?{query}&resourceVersionMatch=NotOlderThan"
    headers = {**http.headers, "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    async with http.client.get(url, headers=headers) as answer:
        events = [json.loads(line) async for line in answer.content]
    assert [e["type"] for e in events] == ["ADDED", "ADDED", "BOOKMARK", "BOOKMARK"]  # the last as it ends
    assert [e["object"]["columnDefinitions"] is not None for e in events] == [True, False, False, False]
    assert events[0]["object"]["rows"][0]["cells"][:3] == ["a", "0/1", "Pending"]
    assert events[0]["object"]["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


async def test_a_form_that_is_not_served_is_not_acceptable(http: Http) -> None:
    status, body = await http.call("GET", "/api/v1/pods", Accept="application/yaml")
    assert (status, body["reason"]) == (406, "NotAcceptable")
