"""The audit log: one `audit.k8s.io/v1` Event a line, as a real API server's log backend writes it.

The policy is fixed. Health checks are left out. Creates, updates and patches are logged with the body sent
and the object that came of it (without managedFields), everything else as metadata; so are Secrets, whatever
is done to them. Requests that stay open (watches, logs, exec) are logged when they begin to be answered and
when they end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from aiohttp import web

from local.apiserver.access import Asker, asker_of
from local.apiserver.calls import parse_body
from local.apiserver.errors import ApiError, Object

log = logging.getLogger("apiserver.audit")

FLUSH_SECONDS = 0.25
FLUSH_EVENTS = 512
MAX_BYTES = 64 << 20
BACKUPS = 3
ALSO = "authorization.local/also-required"
"""Annotation of our own: verbs that were needed besides the request's, such as create for an apply."""
_UNSEEN = ("/healthz", "/livez", "/readyz")
_IN_FULL = ("create", "update", "patch")


@dataclass
class Exchange:
    """A request, who asked, and what became of it so far."""

    uri: str
    source: str
    user_agent: str
    asker: Asker
    body: bytes = b""
    answer: Object | None = None
    """What was written, whole, whatever form the client asked for."""
    failure: Object | None = None
    """The Status of a refusal."""
    code: int = 0
    received: float = field(default_factory=time.time)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @classmethod
    def of(cls, request: web.Request) -> Exchange:
        agent = request.headers.get("User-Agent", "")
        return cls(request.path_qs, request.remote or "", agent, asker_of(request))

    @property
    def stays_open(self) -> bool:
        asked = self.asker.asked
        return asked.verb == "watch" or (asked.resource == "pods" and asked.subresource in ("log", "exec"))

    @property
    def in_full(self) -> bool:
        asked = self.asker.asked
        open_or_secret = self.stays_open or asked.resource == "secrets"
        return asked.verb in _IN_FULL and not asked.path and not open_or_secret


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _without_managed_fields(obj: Any) -> Any:
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
        return obj
    kept = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": kept}


def _sent(exchange: Exchange) -> Any:
    try:
        return _without_managed_fields(parse_body(exchange.body, "")) if exchange.body else None
    except ApiError:  # protobuf, or no object at all
        return None


def _reference(exchange: Exchange, sent: Any) -> Object:
    asked = exchange.asker.asked
    meta = sent.get("metadata") if isinstance(sent, dict) else None
    found: Object = {
        "resource": asked.resource,
        "namespace": asked.namespace,
        "name": asked.name or (meta.get("name") if isinstance(meta, dict) else ""),
        "apiGroup": asked.group,
        "apiVersion": asked.version,
        "subresource": asked.subresource,
    }
    return {name: value for name, value in found.items() if value}


def _status(exchange: Exchange) -> Object:
    status: Object = {"metadata": {}}
    if exchange.failure:
        # What is wrong with a Secret's body is told by quoting it.
        quotes = exchange.asker.asked.resource == "secrets" and exchange.code in (400, 422)
        names = ("status", "reason") if quotes else ("status", "message", "reason", "details")
        status |= {name: exchange.failure[name] for name in names if exchange.failure.get(name)}
    return {**status, "code": exchange.code}


def event(exchange: Exchange, stage: str, at: float) -> Object:
    """The Event of one stage."""
    asker, complete = exchange.asker, stage == "ResponseComplete"
    asked = asker.asked
    sent = _sent(exchange) if asked.verb in _IN_FULL and not exchange.stays_open else None
    found: Object = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse" if exchange.in_full else "Metadata",
        "auditID": exchange.id,
        "stage": stage,
        "requestURI": exchange.uri,
        "verb": asked.verb,
        "user": asker.user.shown() if asker.user else {},
    }
    if asker.acting_as:
        found["impersonatedUser"] = asker.acting_as.shown()
    found |= {"sourceIPs": [exchange.source], "userAgent": exchange.user_agent}
    if not asked.path:
        found["objectRef"] = _reference(exchange, sent)
    if exchange.code:
        found["responseStatus"] = _status(exchange)
    if exchange.in_full and complete:
        answer = exchange.answer or exchange.failure
        found |= {"requestObject": sent} if sent is not None else {}
        found |= {"responseObject": _without_managed_fields(answer)} if answer else {}
    found |= {"requestReceivedTimestamp": _stamp(exchange.received), "stageTimestamp": _stamp(at)}
    if asker.decision:
        words = {"decision": "allow" if asker.decision.allowed else "forbid", "reason": asker.decision.reason}
        found["annotations"] = {f"authorization.k8s.io/{name}": word for name, word in words.items()}
        if asker.also:
            found["annotations"][ALSO] = ",".join(asker.also)
    return found


class AuditLog:
    """Events in memory for a moment, then in the file; a full file becomes `FILE.1`, that one `FILE.2`, ….

    Objects are not copied when they are added: neither stored nor answered ones are changed afterwards.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, backups: int = BACKUPS) -> None:
        """Raises OSError when the file cannot be written."""
        self.path, self.max_bytes, self.backups = path, max_bytes, backups
        self._pending: list[tuple[Exchange, str, float]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._file = self._open()

    def _open(self) -> BinaryIO:
        # Requests hold what people send: the owner's own business.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(descriptor).st_size
        return os.fdopen(descriptor, "wb")

    def add(self, exchange: Exchange, stage: str) -> None:
        """Takes an event on record; it is in the file a quarter of a second later."""
        if exchange.asker.asked.path in _UNSEEN:
            return
        self._pending.append((exchange, stage, time.time()))
        if len(self._pending) >= FLUSH_EVENTS:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Writes what is pending. A full disk loses events, but stops no request."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, []
        try:
            for exchange, stage, at in pending:
                line = json.dumps(event(exchange, stage, at), separators=(",", ":")).encode() + b"\n"
                if self._size and self._size + len(line) > self.max_bytes:
                    self._rotate()
                self._file.write(line)
                self._size += len(line)
            self._file.flush()
        except OSError as error:
            log.warning("%s: %d events may be lost: %s", self.path, len(pending), error)

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self.backups, 0, -1):
            older = self._backup(number)
            newer = self._backup(number - 1) if number > 1 else self.path
            if newer.exists():
                newer.replace(older)
        if not self.backups:
            self.path.unlink()
        self._file = self._open()

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def close(self) -> None:
        self.flush()
        self._file.close()
