"""What has to be known of a result besides its figures: of which code, by what, on what, told what."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

# What the benchmarks run, and what they run beside it in the same environment.
PACKAGES = ("trainyard", "apache-airflow", "locust", "gevent", "numpy", "boto3", "aiohttp", "httpx")
SETTINGS = "TRAINYARD_BENCH_"  # environment variables that change what is measured
PROCESSORS = Path("/proc/cpuinfo")


def commit(repository: Path) -> str | None:
    """Of the code, with `-dirty` where files differ from it; None outside of git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=repository, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def versions() -> dict[str, str]:
    """Of PACKAGES, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    return {key: value for key, value in sorted(environment.items()) if key.startswith(SETTINGS)}


def machine(load: float) -> dict[str, Any]:
    """load: of the machine when the benchmark began (1-minute average)."""
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(load, 2),
    }


def _processor() -> str | None:
    """What it calls itself; Arm's do not."""
    try:
        lines = PROCESSORS.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
