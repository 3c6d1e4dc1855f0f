"""One look at the cluster: what every watcher gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Look:
    """done: nothing is left to wait for. note: what was seen, for people. data: for the record, JSON."""

    done: bool
    note: str
    data: Mapping[str, Any] = field(default_factory=dict)
