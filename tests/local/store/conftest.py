"""A real S3, and one that fails on purpose."""

from __future__ import annotations

from tests.support.shaky_store import faulty, shaky

__all__ = ["faulty", "shaky"]
