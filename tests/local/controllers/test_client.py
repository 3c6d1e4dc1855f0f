"""The shared client: kubeconfigs, caches that see their own writes, queues."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from local.client.api import Api, ApiError
from local.client.informer import Cache, Informer
from local.client.kinds import CONFIGMAPS, Obj, Resource
from local.client.kubeconfig import KubeconfigError, load_kubeconfig
from local.client.queue import Queue
from tests.support.cluster import Cluster


def thing(name: str, version: int, uid: str = "u") -> Obj:
    return {"metadata": {"namespace": "n", "name": name, "uid": uid, "resourceVersion": str(version)}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "is not a mapping"),
        ("current-context: c", "contexts has no entry named 'c'"),
        (
            "{current-context: c, contexts: [{name: c, context: {cluster: k}}]}",
            "clusters has no entry named 'k'",
        ),
        (
            (
                "{current-context: c, contexts: [{name: c, context: {cluster: k}}], "
                "clusters: [{name: k, cluster: {server: 'ftp://x'}}]}"
            ),
            "is not an http(s) address",
        ),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_refused_by_field(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(KubeconfigError) as refused:
        load_kubeconfig(file)
    assert words in str(refused.value)
    assert str(file) in str(refused.value)


def cached(api: Api | None = None) -> tuple[Informer, list[tuple[object, object]]]:
    informer = Informer(api, CONFIGMAPS)  # type: ignore[arg-type]
    seen: list[tuple[object, object]] = []

    def note(old: Obj | None, new: Obj | None) -> None:
        seen.append(tuple(each and each["metadata"]["resourceVersion"] for each in (old, new)))  # type: ignore[arg-type]

    informer.on_change(note)
    return informer, seen


def test_an_event_older_than_the_cache_is_dropped() -> None:
    informer, seen = cached()
    informer.observe(thing("a", 5))
    informer.observe(thing("a", 4))
    informer.observe(thing("a", 6))
    assert seen == [(None, "5"), ("5", "6")]


def test_what_is_gone_does_not_come_back_by_a_late_event() -> None:
    informer, seen = cached()
    informer.observe(thing("a", 5))
    informer.forget(thing("a", 6))
    informer.observe(thing("a", 5))
    informer.observe(thing("a", 7, uid="another"))
    assert seen == [(None, "5"), ("5", None), (None, "7")]


def test_a_namesake_is_another_object() -> None:
    informer, seen = cached()
    informer.observe(thing("a", 5))
    informer.observe(thing("a", 7, uid="another"))
    assert seen == [(None, "5"), ("5", None), (None, "7")]


async def test_what_is_written_while_the_list_is_on_its_way_is_not_taken_for_gone() -> None:
    class Slow:
        async def list(self, *_: object) -> Obj:
            informer.observe(thing("written", 7, uid="w"))
            return {"metadata": {"resourceVersion": "6"}, "items": []}

    informer, seen = cached(Slow())  # type: ignore[arg-type]
    informer.observe(thing("gone", 3, uid="g"))
    assert await informer._list() == "6"
    informer.observe(thing("written", 8, uid="w"))
    assert seen == [(None, "3"), (None, "7"), ("3", None), ("7", "8")]


async def test_a_write_is_in_the_cache_when_it_returns(cluster: Cluster, namespace: str) -> None:
    async with Api(load_kubeconfig(cluster.kubeconfig), "tests") as api:
        cache = Cache(api)
        await cache.sync(CONFIGMAPS)
        made = await cache.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": namespace}})
        await cache.patch(CONFIGMAPS, made, {"data": {"k": "v"}})
        assert (cache.of(CONFIGMAPS).get(namespace, "a") or {})["data"] == {"k": "v"}
        with pytest.raises(ApiError) as refused:
            await cache.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": namespace}})
        assert refused.value.already_exists
        await cache.close()


async def test_a_resource_that_is_not_served_counts_as_empty(cluster: Cluster) -> None:
    async with Api(load_kubeconfig(cluster.kubeconfig), "tests") as api:
        cache = Cache(api)
        absent = Resource("nothing.example", "v1", "things", "Thing")
        await asyncio.wait_for(cache.sync(absent), 60)
        assert list(cache.of(absent).items()) == []
        await cache.close()


async def test_a_key_is_worked_on_once_at_a_time_and_again_when_added_meanwhile() -> None:
    runs: list[str] = []
    entered, leave, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(key: str) -> None:
        runs.append(key)
        if len(runs) == 1:
            entered.set()
            await leave.wait()
        else:
            done.set()

    queue: Queue[str] = Queue("test", work)
    task = asyncio.create_task(queue.run(workers=2))
    queue.add("a")
    await entered.wait()
    queue.add("a")
    queue.add("a")
    await asyncio.sleep(0)
    assert runs == ["a"]
    leave.set()
    await done.wait()
    await asyncio.sleep(0)
    assert runs == ["a", "a"]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_failed_key_is_tried_again() -> None:
    runs: list[str] = []
    done = asyncio.Event()

    async def work(key: str) -> None:
        runs.append(key)
        if len(runs) < 3:
            raise ApiError(409, "Conflict", "someone was faster")
        done.set()

    queue: Queue[str] = Queue("test", work)
    task = asyncio.create_task(queue.run())
    queue.add("a")
    await asyncio.wait_for(done.wait(), 60)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert runs == ["a"] * 3
