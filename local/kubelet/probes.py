"""Startup, readiness and liveness probes: one attempt, and the thresholds around it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from local.client.kinds import Obj

Run = Callable[[list[str], float], Awaitable[tuple[int, str]]]
"""Runs a command in the container: (argv, time-out in seconds) -> (exit code, output)."""


@dataclass(frozen=True)
class Probe:
    """A probe as the pod spec gives it. Times in seconds."""

    action: Mapping[str, Any]
    delay: float = 0
    period: float = 10
    timeout: float = 1
    success: int = 1
    failure: int = 3
    grace: int | None = None

    @classmethod
    def parse(cls, spec: Obj | None) -> Probe | None:
        if not spec:
            return None
        return cls(
            action={key: spec[key] for key in ("httpGet", "exec", "tcpSocket", "grpc") if key in spec},
            delay=spec.get("initialDelaySeconds") or 0,
            period=spec.get("periodSeconds") or 10,
            timeout=spec.get("timeoutSeconds") or 1,
            success=spec.get("successThreshold") or 1,
            failure=spec.get("failureThreshold") or 3,
            grace=spec.get("terminationGracePeriodSeconds"),
        )


@dataclass
class Verdict:
    """Counts results in a row. `settled` is the verdict once a threshold is reached, None before."""

    probe: Probe
    settled: bool | None = None
    _row: int = 0
    _good: bool = field(default=True)

    def count(self, good: bool) -> bool:
        """Take in one result; true when the verdict changed, or failure was reached once more."""
        self._row = self._row + 1 if good == self._good else 1
        self._good = good
        needed = self.probe.success if good else self.probe.failure
        if self._row < needed:
            return False
        changed = self.settled != good
        self.settled = good
        return changed or not good


@dataclass(frozen=True)
class Target:
    """Where a container is probed."""

    address: str
    ports: Mapping[str, int]
    run: Run
    session: aiohttp.ClientSession

    def port(self, given: int | str) -> int:
        if isinstance(given, int) or str(given).isdigit():
            return int(given)
        return self.ports[given]


async def attempt(probe: Probe, target: Target) -> tuple[bool, str]:
    """One attempt: (success, message in the kubelet's words). Never raises."""
    try:
        if "httpGet" in probe.action:
            return await _http(probe.action["httpGet"], target, probe.timeout)
        if "tcpSocket" in probe.action:
            return await _tcp(probe.action["tcpSocket"], target, probe.timeout)
        if "exec" in probe.action:
            return await _exec(probe.action["exec"], target, probe.timeout)
    except KeyError as error:
        return False, f"couldn't find port: {error}"
    return False, f"probe action {sorted(probe.action)} is not served by this node"


async def _http(action: Mapping[str, Any], target: Target, timeout: float) -> tuple[bool, str]:
    host = action.get("host") or target.address
    port = target.port(action["port"])
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    url = f"{scheme}://{host}:{port}{path if path.startswith('/') else '/' + path}"
    headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*", "Connection": "close"}
    headers.update({each["name"]: each["value"] for each in action.get("httpHeaders") or []})
    try:
        limit = aiohttp.ClientTimeout(total=timeout)
        async with target.session.get(
            url, headers=headers, timeout=limit, ssl=False, allow_redirects=False
        ) as answer:
            await answer.content.read(10 * 1024)
            if 200 <= answer.status < 400:
                return True, ""
            return False, f"HTTP probe failed with statuscode: {answer.status}"
    except TimeoutError:
        return (
            False,
            f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)',
        )
    except aiohttp.ClientConnectorError as error:
        words = (
            "connection refused"
            if isinstance(error.os_error, ConnectionRefusedError)
            else str(error.os_error)
        )
        return False, f'Get "{url}": dial tcp {host}:{port}: connect: {words}'
    except (aiohttp.ClientError, OSError) as error:
        return False, f'Get "{url}": {str(error) or "EOF"}'


async def _tcp(action: Mapping[str, Any], target: Target, timeout: float) -> tuple[bool, str]:
    host, port = action.get("host") or target.address, target.port(action["port"])
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout)
    except TimeoutError:
        return False, f"dial tcp {host}:{port}: i/o timeout"
    except OSError as error:
        words = "connection refused" if isinstance(error, ConnectionRefusedError) else str(error)
        return False, f"dial tcp {host}:{port}: connect: {words}"
    writer.close()
    return True, ""


async def _exec(action: Mapping[str, Any], target: Target, timeout: float) -> tuple[bool, str]:
    command = list(action.get("command") or [])
    try:
        code, output = await target.run(command, timeout)
    except subprocess.TimeoutExpired:
        return False, f'command timed out: "{" ".join(command)}" timed out after {timeout:g}s'
    except OSError as error:
        return False, f"failed to exec in container: {error}"
    return code == 0, output.strip()
