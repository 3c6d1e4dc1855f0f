"""For all tests: the slow ones come last, so that what is cheap to know is known first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What CI says of a change must not depend on luck; people's runs look for a few new cases each time. No test
# is timed: a machine that is busy with other tests is slow.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("people", max_examples=30, **UNTIMED)
settings.register_profile("ci", derandomize=True, **UNTIMED)
settings.load_profile("ci" if os.environ.get("CI") else "people")

SLOW = ("e2e", "faults", "browser")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def lateness(item: pytest.Item) -> int:
        folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        return SLOW.index(folder) + 1 if folder in SLOW else 0

    items.sort(key=lateness)
