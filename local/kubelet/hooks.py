"""Lifecycle hooks: exec, httpGet, sleep."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

from local.client.kinds import Obj
from local.kubelet.probes import Probe, Target, attempt

if TYPE_CHECKING:
    from local.kubelet.container import Container


def probe_target(container: Container) -> Target:
    """Where probes and hooks reach the container."""
    ports = {
        each["name"]: each["containerPort"] for each in container.spec.get("ports") or [] if each.get("name")
    }
    context = container.context
    return Target(context.ip, ports, container.execute, context.host.http)


async def run_hook(hook: Obj, container: Container, timeout: float | None) -> str:
    """Run one hook; the empty string when it went well, else what went wrong."""
    try:
        if "sleep" in hook:
            await asyncio.wait_for(asyncio.sleep(hook["sleep"]["seconds"]), timeout)
        elif "exec" in hook:
            code, output = await container.execute(list(hook["exec"]["command"]), timeout)
            if code:
                return f"command '{' '.join(hook['exec']['command'])}' exited with {code}: {output.strip()}"
        elif "httpGet" in hook:
            probe = Probe(action={"httpGet": hook["httpGet"]}, timeout=timeout or 30)
            good, message = await attempt(probe, probe_target(container))
            if not good:
                return message
    except (TimeoutError, subprocess.TimeoutExpired):
        return f"did not end within the grace period of {timeout:g}s"
    except OSError as error:
        return str(error)
    return ""
