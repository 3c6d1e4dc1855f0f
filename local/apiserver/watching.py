"""Watches: what was, then what happens, as a stream of JSON lines that ends at its time-out."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable

from local.apiserver.calls import Call
from local.apiserver.errors import ApiError, FieldError, Object, forbidden_field, internal, invalid
from local.apiserver.reading import list_options, number, requested_revision, selection
from local.apiserver.selectors import Predicate
from local.apiserver.store import Change, Subscription
from local.apiserver.views import to_view

BOOKMARK_SECONDS = 30.0
INITIAL_END = "k8s.io/initial-events-end"

Show = Callable[[Object], Object]


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in ("1", "true")


def _check_options(call: Call) -> None:
    match, initial = call.query.get("resourceVersionMatch"), call.query.get("sendInitialEvents")
    errors: list[FieldError] = []
    if initial is not None and match != "NotOlderThan":
        text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        errors.append(forbidden_field("resourceVersionMatch", text))
    elif initial is None and match:
        text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        errors.append(forbidden_field("resourceVersionMatch", text))
    if errors:
        raise invalid(list_options(), errors)
    text = call.query.get("resourceVersion", "")
    if text and not text.isdigit():  # a watch answers this with 500, a list with 400
        raise internal(f'strconv.ParseUint: parsing "{text}": invalid syntax')


class Watch:
    """One watch, opened before the response begins so that its errors still have a status code."""

    def __init__(self, call: Call, show: Show) -> None:
        _check_options(call)
        self._call, self._show = call, show
        self._predicate: Predicate | None = selection(call)
        self._seconds = number(call.query, "timeoutSeconds") or random.randint(1800, 3600)
        self._bookmarks = _is_true(call.query.get("allowWatchBookmarks"))
        revision = requested_revision(call)
        self._first: list[Object] = []
        self._broken = False
        collection = call.collection
        send_initial = call.query.get("sendInitialEvents")
        if _is_true(send_initial) or (send_initial is None and not revision):
            self._first = [
                self._event("ADDED", o) for _, o in collection.scan(call.namespace) if self._wants(o)
            ]
            if _is_true(send_initial):
                self._first.append(self._bookmark({INITIAL_END: "true"}))
        elif revision:
            try:
                self._first = [e for c in collection.since(revision) for e in self._translate(c)]
            except ApiError as error:  # as the watch cache does it: 200, then an ERROR event
                self._first, self._broken = [{"type": "ERROR", "object": error.status()}], True
        self._subscription = Subscription(collection)

    def _wants(self, obj: Object) -> bool:
        return self._predicate is None or self._predicate(obj)

    def _event(self, kind: str, obj: Object) -> Object:
        return {"type": kind, "object": self._show(to_view(self._call.resource, obj))}

    def _bookmark(self, annotations: Object | None = None) -> Object:
        meta: Object = {"resourceVersion": str(self._call.cluster.store.revision), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        resource = self._call.resource
        shown: Object = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
        return {"type": "BOOKMARK", "object": self._show(shown)}

    def _translate(self, change: Change) -> list[Object]:
        """A change as this watcher sees it: leaving the selection is DELETED, entering it ADDED."""
        namespace = self._call.namespace
        if namespace is not None and not change.key.startswith(namespace + "/"):
            return []
        was = change.previous is not None and self._wants(change.previous)
        if change.type == "DELETED":
            return [self._event("DELETED", change.object)] if was else []
        if self._wants(change.object):
            return [self._event("MODIFIED" if was else "ADDED", change.object)]
        if not was or change.previous is None:
            return []
        meta = {**change.previous["metadata"], "resourceVersion": str(change.revision)}
        return [self._event("DELETED", {**change.previous, "metadata": meta})]

    def close(self) -> None:
        self._subscription.close()

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Chunks of JSON lines; changes that come together go out together."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        queue = self._subscription.queue
        yield _encode(self._first)
        while not self._broken:
            left = end - loop.time()
            changes = await _taken(queue, min(left, BOOKMARK_SECONDS))
            events = [e for c in changes if c is not None for e in self._translate(c)]
            if events:
                yield _encode(events)
            if None in changes:
                return
            over = left <= 0 or (not changes and left <= BOOKMARK_SECONDS)
            # Who goes on from a bookmark is told nothing from before it: there is none while changes wait.
            if self._bookmarks and (over or not changes) and queue.empty():
                yield _encode([self._bookmark()])
            if over:
                return


async def _taken(queue: asyncio.Queue[Change | None], seconds: float) -> list[Change | None]:
    """All that is there, else what comes first within so many seconds and all that comes with it."""
    changes: list[Change | None] = []
    if queue.empty():
        try:
            changes.append(await asyncio.wait_for(queue.get(), seconds))
        except TimeoutError:
            pass
    while not queue.empty():
        changes.append(queue.get_nowait())
    return changes


def _encode(events: list[Object]) -> bytes:
    return "".join(json.dumps(e, separators=(",", ":")) + "\n" for e in events).encode()
