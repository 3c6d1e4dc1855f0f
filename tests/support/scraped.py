"""Scrapes of servers as a load test leaves them in S3."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from typing import Any


def pack_rows(rows: Iterable[Mapping[str, Any]]) -> bytes:
    lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    return gzip.compress(lines.encode(), mtime=0)
