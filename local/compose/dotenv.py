"""`python3 -m local.compose.dotenv`: make `.env` of `.env.example`, with every secret generated.

Needs nothing but Python. A `.env` that is there keeps its values; what it lacks is added.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

LINE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
GENERATED: Mapping[str, Callable[[], str]] = {
    "POSTGRES_PASSWORD": lambda: secrets.token_hex(24),  # goes into a URL: nothing that would need escaping
    "AIRFLOW_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(12),
    "AIRFLOW_FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "AIRFLOW_SECRET_KEY": lambda: secrets.token_hex(32),
    "AIRFLOW_JWT_SECRET": lambda: secrets.token_hex(32),
    "S3_ACCESS_KEY": lambda: f"LOCAL{secrets.token_hex(8).upper()}",
    "S3_SECRET_KEY": lambda: secrets.token_hex(24),
    "CLUSTER_TOKEN": lambda: secrets.token_hex(24),
    "KUBELET_TOKEN": lambda: secrets.token_hex(24),
}


def fill(example: str, existing: str = "") -> str:
    """`existing` with what it lacks: lines of `example` whose variable it does not set, secrets generated."""
    known = {match[1] for match in map(LINE.fullmatch, existing.splitlines()) if match and match[2]}
    lines = [line for line in existing.splitlines() if not _is_empty_secret(line)]
    if not existing:
        return "".join(f"{_filled(line)}\n" for line in example.splitlines())
    mentioned = {match[1] for match in map(LINE.fullmatch, lines) if match}
    added = [
        _filled(line)
        for line in example.splitlines()
        if (match := LINE.fullmatch(line)) and match[1] not in known | mentioned
    ]
    return "".join(f"{line}\n" for line in [*lines, *added])


def _filled(line: str) -> str:
    match = LINE.fullmatch(line)
    return f"{match[1]}={GENERATED[match[1]]()}" if match and _is_empty_secret(line) else line


def _is_empty_secret(line: str) -> bool:
    match = LINE.fullmatch(line)
    return bool(match and match[1] in GENERATED and not match[2])


def main() -> int:
    """Write `.env` beside docker-compose.yaml, readable by its owner only."""
    root = Path(__file__).resolve().parents[2]
    target = root / ".env"
    existing = target.read_text(encoding="utf-8") if target.exists() else ""
    text = fill((root / ".env.example").read_text(encoding="utf-8"), existing)
    if text == existing:
        print(f"{target} has all it needs")
        return 0
    temporary = target.with_name(f".env.{os.getpid()}")
    with os.fdopen(
        os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
    temporary.replace(target)
    print(
        f"{'completed' if existing else 'wrote'} {target}; Airflow's user is admin, its password is in there"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
