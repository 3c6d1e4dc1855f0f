"""The stand-in of Bedrock, for the tests of this folder."""

from __future__ import annotations

from tests.support.bedrock import bedrock, bedrock_process

__all__ = ["bedrock", "bedrock_process"]
