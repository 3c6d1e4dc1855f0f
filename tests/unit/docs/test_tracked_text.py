"""What is committed says nothing of the machine that it was written on."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]

# Put together from parts, so that this file does not find itself.
HOME = "/" + r"(?:root/\w|home/(?!(?:me|x|airflow)\b)[a-z0-9_-]+|Users/[A-Za-z0-9_-]+|work/(?:main|shared))\b"
SCRATCH = "/" + r"tmp/(?:scratch|bash_jobs)\b"
REGISTRY = "|".join(
    host.replace("_", r"\.")
    for host in (
        "pypi_org",
        "pythonhosted_org",
        "registry_npmjs_org",
        "proxy_golang_org",
        "jfrog_io",
        "pkg_dev",
    )
)


@cache
def tracked() -> dict[str, str]:
    """Text by path, of every file that git tracks; the working tree's where there is no git."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("no git checkout: nothing says which files are tracked")
    texts = {}
    for name in filter(None, done.stdout.split("\0")):
        path = REPOSITORY / name
        try:
            texts[name] = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # binary, or deleted and not committed yet
    return texts


def lines_with(pattern: str) -> list[str]:
    wanted = re.compile(pattern)
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in tracked().items()
        if wanted.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if wanted.search(line)
    ]


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    assert lines_with(rf"(?<![\w.~}}-]){HOME}|{SCRATCH}") == []


def test_no_tracked_file_names_a_package_registry() -> None:
    assert lines_with(REGISTRY) == []
