"""Questions whose answer is "ready": over HTTP or TCP, never a sleep."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .service import Probe

TIMEOUT_SECONDS = 20.0
ALIVE_SECONDS = 1.5


def _fetch(
    url: str, *, body: dict[str, Any] | None = None, token: str = "", authority: Path | None = None
) -> tuple[int, bytes]:
    """Status and body; a status of 0 when nobody answers."""
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]  # loopback needs no proxy
    if authority is not None:
        context = ssl.create_default_context(cafile=str(authority))
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, urllib.error.URLError):
        return 0, b""


async def fetch(
    url: str, *, body: dict[str, Any] | None = None, token: str = "", authority: Path | None = None
) -> tuple[int, bytes]:
    """GET, or POST when there is a `body` (JSON). A status of 0 when nobody answers."""
    return await asyncio.to_thread(_fetch, url, body=body, token=token, authority=authority)


def http(url: str, *, token: str = "", authority: Path | None = None) -> Probe:
    """Ready when the address answers with a status below 400."""

    async def probe(started: float) -> bool:
        status, _ = await fetch(url, token=token, authority=authority)
        return 200 <= status < 400

    return probe


def tcp(host: str, port: int) -> Probe:
    """Ready when a connection is accepted: for what speaks no HTTP."""

    async def probe(started: float) -> bool:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), TIMEOUT_SECONDS)
        except OSError:
            return False
        writer.close()
        return True

    return probe


async def alive(started: float) -> bool:
    """For a client without a port of its own: ready when it has not given up at once."""
    return time.time() - started > ALIVE_SECONDS
