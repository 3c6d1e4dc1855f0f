"""The stand-in for the Hugging Face Hub."""

from __future__ import annotations

from .. import probes
from ..ports import HOST
from ..service import Service
from .setting import Setting, module


def hub(setting: Setting) -> Service:
    port = setting.ports["hub"]
    return Service(
        "hub",
        module(
            "local.hub",
            "--root",
            str(setting.home.hub),
            "--listen",
            f"{HOST}:{port}",
            "--access-log",
            str(setting.home.logs / "hub-access.jsonl"),
        ),
        ready=probes.tcp(HOST, port),
        address=setting.url("hub"),
    )
