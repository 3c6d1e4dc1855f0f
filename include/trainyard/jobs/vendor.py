"""botocore and what it needs, out of the zipapp: it reads its data from real files, so they are unpacked
once."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

VENDOR = "vendor.zip"
DIGEST = "vendor.sha256"


def provide() -> None:
    """Put the vendored packages in front of `sys.path`, if this process runs from the zipapp. Idempotent."""
    archive = running_archive()
    if archive is None:
        return
    folder = str(_unpacked(archive))
    if folder not in sys.path:
        sys.path.insert(0, folder)


def running_archive() -> Path | None:
    """The zipapp that this module was imported from, if it was."""
    # .../trainyard.pyz/trainyard/jobs/vendor.py
    archive = Path(__file__).parents[2]
    return archive if archive.is_file() else None


def _unpacked(archive: Path) -> Path:
    """The folder with the packages, named by their digest; complete whenever it exists."""
    with zipfile.ZipFile(archive) as outer:
        digest = outer.read(DIGEST).decode().strip()
        folder = Path(tempfile.gettempdir()) / f"trainyard-{digest[:16]}-{os.getuid()}"
        if _is_ours(folder):
            return folder
        fresh = Path(tempfile.mkdtemp(prefix="trainyard-"))  # mode 0700
        with zipfile.ZipFile(io.BytesIO(outer.read(VENDOR))) as inner:
            inner.extractall(fresh)
    try:
        os.rename(fresh, folder)
    except OSError:
        if not _is_ours(folder):
            return fresh  # somebody else sits on the name: keep our own copy
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _is_ours(folder: Path) -> bool:
    """Made by this user and writable by nobody else: what is on `sys.path` is run."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return (
        folder.is_dir()
        and not folder.is_symlink()
        and status.st_uid == os.getuid()
        and not status.st_mode & 0o022
    )
