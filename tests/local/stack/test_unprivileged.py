"""Root starts PostgreSQL as somebody else, and below folders that only root may enter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.stack.home import REPOSITORY
from local.stack.services.postgres import programs

WAYS = pytest.mark.parametrize("way", [(), ("--no-namespace",)], ids=["namespace", "another uid"])


def run(folder: Path, way: tuple[str, ...], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "local.stack.unprivileged", *way, "--folder", str(folder), "--", *command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's command is run as it is")
@WAYS
def test_roots_command_is_run_by_somebody_else_in_a_folder_that_only_root_may_enter(
    tmp_path: Path, way: tuple[str, ...]
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    folder = closed / "data"
    folder.mkdir(mode=0o700)

    assert run(folder, way, "/bin/sh", "-c", "echo x > written; id -u") != "0"
    assert (folder / "written").read_text() == "x\n"


@WAYS
def test_postgresql_makes_its_data_folder(tmp_path: Path, way: tuple[str, ...]) -> None:
    data = tmp_path / "data"

    run(
        tmp_path,
        way,
        str(programs() / "initdb"),
        "--no-sync",
        "--no-locale",
        "-U",
        "postgres",
        "-D",
        str(data),
    )

    assert (data / "PG_VERSION").exists()
