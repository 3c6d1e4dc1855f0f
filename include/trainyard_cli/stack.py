"""The local stack as the command line sees it: its folder, its environment, its supervisor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Stack:
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What stack.env says; empty where no stack was ever started here."""
        path = self.home / "stack.env"
        if not path.exists():
            return {}
        lines = path.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    @property
    def state(self) -> dict[str, Any]:
        path = self.home / "stack.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def supervise(self, *words: str) -> int:
        """Runs the supervisor's command in the foreground; its exit code."""
        command = [sys.executable, "-m", "local.stack", *words, "--home", str(self.home)]
        return subprocess.call(command, cwd=REPOSITORY)

    def adopt(self) -> bool:
        """Makes this process a client of the stack; False where none was started. Set variables win."""
        found = self.environment
        for name, value in found.items():
            os.environ.setdefault(name, value)
        return bool(found)


def stack(home: Path | None = None) -> Stack:
    return Stack(Path(home or os.environ.get("TRAINYARD_HOME") or REPOSITORY / ".trainyard").resolve())
