from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from local.apiserver.__main__ import make_cluster
from local.apiserver.calls import Call, Cluster, Target
from local.apiserver.server import Server as Application
from local.apiserver.watching import Watch
from local.apiserver.writing import create as put
from tests.local.apiserver.conftest import TOKEN, Http

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def config_maps_call(cluster: Cluster, body: Any = None, **query: str) -> Call:
    resource = cluster.registry.find("", "v1", "configmaps")
    assert resource is not None
    target = Target("", "v1", "configmaps", "default", "")
    return Call(cluster, resource, target, query, "test", "application/json", json.dumps(body).encode())


class Stream:
    def __init__(self, http: Http, query: str, path: str = CONFIG_MAPS) -> None:
        self._request = http.client.request("GET", f"{path}?watch=1&{query}", headers=http.headers)

    async def __aenter__(self) -> Stream:
        self._answer = await self._request.__aenter__()
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._answer.close()

    async def next(self) -> tuple[str, dict[str, Any]]:
        event = json.loads(await asyncio.wait_for(self._answer.content.readline(), 60))
        return event["type"], event["object"]

    async def names(self, count: int) -> list[tuple[str, str]]:
        found = [await self.next() for _ in range(count)]
        return [(kind, obj["metadata"].get("name", "")) for kind, obj in found]


async def create(http: Http, name: str, **more: Any) -> str:
    status, body = await http.call("POST", CONFIG_MAPS, {"metadata": {"name": name, **more}})
    assert status == 201, body
    return str(body["metadata"]["resourceVersion"])


async def test_a_watch_continues_where_a_list_ended(http: Http) -> None:
    await create(http, "before")
    _, listed = await http.call("GET", CONFIG_MAPS)
    await create(http, "between")
    async with Stream(http, f"resourceVersion={listed['metadata']['resourceVersion']}") as stream:
        await create(http, "after")
        assert await stream.names(2) == [("ADDED", "between"), ("ADDED", "after")]


async def test_a_watch_older_than_the_history_is_told_that_it_is_gone(http: Http) -> None:
    first = await create(http, "a")
    for i in range(30):
        await create(http, f"b{i}")
    async with Stream(http, f"resourceVersion={first}") as stream:
        kind, status = await stream.next()
    assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")


async def test_a_page_whose_snapshot_is_forgotten_is_gone(http: Http) -> None:
    for i in range(4):
        await create(http, f"a{i}")
    _, page = await http.call("GET", f"{CONFIG_MAPS}?limit=2")
    for i in range(30):
        await create(http, f"b{i}")
    status, body = await http.call("GET", f"{CONFIG_MAPS}?limit=2&continue={page['metadata']['continue']}")
    assert (status, body["reason"]) == (410, "Expired")


async def test_pages_show_one_moment_whatever_is_written_meanwhile(http: Http) -> None:
    for name in "abcd":
        await create(http, name)
    _, page = await http.call("GET", f"{CONFIG_MAPS}?limit=2")
    await http.call("DELETE", f"{CONFIG_MAPS}/c")
    await create(http, "e")
    _, rest = await http.call("GET", f"{CONFIG_MAPS}?continue={page['metadata']['continue']}")
    assert [o["metadata"]["name"] for o in rest["items"]] == ["c", "d"]
    assert rest["metadata"]["resourceVersion"] == page["metadata"]["resourceVersion"]


async def test_initial_events_end_with_a_marked_bookmark(http: Http) -> None:
    await create(http, "a")
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with Stream(http, query) as stream:
        assert await stream.names(1) == [("ADDED", "a")]
        kind, obj = await stream.next()
        assert kind == "BOOKMARK"
        assert obj["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await create(http, "b")
        assert await stream.names(1) == [("ADDED", "b")]


async def test_initial_events_without_their_match_are_refused(http: Http) -> None:
    status, body = await http.call("GET", f"{CONFIG_MAPS}?watch=1&sendInitialEvents=true")
    assert status == 422
    assert "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan" in body["message"]


async def test_an_object_that_leaves_the_selection_is_deleted_for_its_watcher(http: Http) -> None:
    async with Stream(http, "labelSelector=k%3Dv") as stream:
        await create(http, "a", labels={"k": "v"})
        patch = {"metadata": {"labels": {"k": None}}}
        media = "application/merge-patch+json"
        _, patched = await http.call("PATCH", f"{CONFIG_MAPS}/a", patch, Content_Type=media)
        assert await stream.names(1) == [("ADDED", "a")]
        kind, obj = await stream.next()
    assert (kind, obj["metadata"]["labels"]) == ("DELETED", {"k": "v"})
    assert obj["metadata"]["resourceVersion"] == patched["metadata"]["resourceVersion"]


async def test_a_watch_of_a_removed_definition_ends(http: Http) -> None:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    spec = {
        "group": "example.com",
        "scope": "Cluster",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
    }
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await http.call("POST", definitions, {"metadata": {"name": "things.example.com"}, "spec": spec})
    await http.call("POST", "/apis/example.com/v1/things", {"metadata": {"name": "t"}})
    async with Stream(http, "", "/apis/example.com/v1/things") as stream:
        assert await stream.names(1) == [("ADDED", "t")]
        await http.call("DELETE", f"{definitions}/things.example.com")
        assert await stream.names(1) == [("DELETED", "t")]
        assert await asyncio.wait_for(stream._answer.content.read(), 60) == b""
    answer = await http.call("GET", "/apis/example.com/v1/things/t")
    assert answer == (404, "404 page not found\n")


async def test_a_watch_whose_server_stood_still_past_its_end_tells_the_rest_first() -> None:
    cluster = make_cluster([])
    watch = Watch(config_maps_call(cluster, allowWatchBookmarks="true", timeoutSeconds="1"), lambda obj: obj)
    watch._seconds = 0  # what a second is to a process that is stopped for two
    lines = watch.lines()
    assert await anext(lines) == b""
    made = put(config_maps_call(cluster, {"metadata": {"name": "late"}})).body
    told = [json.loads(line) for chunk in [chunk async for chunk in lines] for line in chunk.splitlines()]
    assert [(each["type"], each["object"]["metadata"].get("name")) for each in told] == [
        ("ADDED", "late"),
        ("BOOKMARK", None),
    ]
    version = told[1]["object"]["metadata"]["resourceVersion"]
    assert version == made["metadata"]["resourceVersion"]


async def test_a_watcher_that_goes_away_is_forgotten() -> None:
    cluster = make_cluster([])
    site = TestServer(Application(cluster, TOKEN).application())  # cancels handlers as __main__ does
    async with TestClient(site) as opened:
        async with Stream(Http(opened), "") as stream:
            await create(Http(opened), "a")
            assert await stream.names(1) == [("ADDED", "a")]
            subscriptions = cluster.store.collection(("", "configmaps")).subscriptions
            assert len(subscriptions) == 1
        for _ in range(1200):
            if not subscriptions:
                return
            await asyncio.sleep(0.05)
    raise AssertionError("the watch outlived its watcher")


async def test_a_version_from_the_future_is_too_large(http: Http) -> None:
    status, body = await http.call("GET", f"{CONFIG_MAPS}?resourceVersion=99999")
    assert (status, body["reason"]) == (504, "Timeout")
    assert body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
