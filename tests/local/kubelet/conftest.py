"""Each test here has a namespace of its own in the session's cluster."""

from __future__ import annotations

from tests.support.cluster import namespace

__all__ = ["namespace"]
