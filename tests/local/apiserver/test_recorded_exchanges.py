"""The exchanges recorded from a real API server, replayed (see conftest.replaying)."""

from __future__ import annotations

import subprocess

import pytest


def test_every_recorded_exchange_is_answered_as_recorded(replaying: subprocess.Popen[str] | None) -> None:
    if replaying is None:
        pytest.skip("the recorded exchanges are not beside this checkout")
    said, _ = replaying.communicate(timeout=300)
    assert replaying.returncode == 0, said
