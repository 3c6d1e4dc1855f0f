"""Waits of tests, which end as soon as there is nothing to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(what: Callable[[], object], seconds: float = 120.0) -> None:
    """Until it holds; fails where it does not for so long."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
