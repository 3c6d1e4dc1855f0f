"""Copies the zipapp where AWS's images can run it: an init container of ours, a shared volume, no image
rebuilt."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from trainyard.jobs.runtime import field
from trainyard.jobs.vendor import running_archive

NAME = "trainyard.pyz"
log = logging.getLogger(__name__)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Job: {"into": folder}. Result: {"zipapp": path, "bytes": size}."""
    target = install(Path(field(job, "into", str)))
    return {"zipapp": str(target), "bytes": target.stat().st_size}


def install(into: Path) -> Path:
    """Put `trainyard.pyz` into the folder, whole or not at all; returns its path.

    Taken from TRAINYARD_ZIPAPP (the job image brings it), from the archive that runs now, or built from what
    is installed here.
    """
    into.mkdir(parents=True, exist_ok=True)
    target, temporary = into / NAME, into / f".{NAME}.{os.getpid()}.part"
    named = os.environ.get("TRAINYARD_ZIPAPP")
    source = Path(named) if named else running_archive()
    try:
        if source is not None:
            shutil.copyfile(source, temporary)
        else:
            from trainyard.jobs.zipapp import build

            build(temporary)
        temporary.chmod(0o755)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    log.info("installed %s (%d bytes)", target, target.stat().st_size)
    return target
