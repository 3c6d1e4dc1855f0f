"""A job in a pod's shoes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.seaweed import S3Server


class Pod:
    """Runs a job as a container would: the zipapp, a bare interpreter, everything else by environment."""

    def __init__(self, pyz: Path, server: S3Server, folder: Path) -> None:
        self.pyz, self.folder = pyz, folder
        self.termination = folder / "termination-log"
        self.environment = {
            **server.environment,
            "PATH": os.environ["PATH"],
            "TMPDIR": str(pyz.parent),
            "TRAINYARD_TERMINATION_LOG": str(self.termination),
        }

    def start(self, name: str, job: dict[str, Any]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(self.pyz), name],
            env={**self.environment, "TRAINYARD_JOB": json.dumps(job)},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, name: str, job: dict[str, Any]) -> tuple[int, str]:
        process = self.start(name, job)
        output, _ = process.communicate(timeout=180)
        return process.returncode, output

    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.termination.read_text())
        return found
