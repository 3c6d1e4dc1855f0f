"""The part of JSONPath that printer columns use: `.a.b`, `\\.` in names, `[0]`, `[*]`, `[?(@.type=="X")]`."""

from __future__ import annotations

import re
from typing import Any

_STEP = re.compile(
    r"""\.(?P<name>(?:\\.|[^.\[\\])+)"""
    r"""|\[\?\(@\.(?P<field>[\w.]+)\s*==\s*["'](?P<value>[^"']*)["']\)\]"""
    r"""|\[(?P<index>\d+|\*)\]"""
)


def find(obj: Any, path: str) -> list[Any]:
    """Every value at `path`, in order; [] where there is none."""
    found, at = [obj], 0
    text = path if path.startswith((".", "[")) else "." + path
    while at < len(text):
        step = _STEP.match(text, at)
        if not step:
            return []
        at = step.end()
        found = [v for value in found for v in _step(value, step)]
    return found


def _step(value: Any, step: re.Match[str]) -> list[Any]:
    if step["name"] is not None:
        name = step["name"].replace("\\", "")
        return [value[name]] if isinstance(value, dict) and name in value else []
    if not isinstance(value, list):
        return []
    if step["field"] is not None:
        return [v for v in value if find(v, step["field"]) == [step["value"]]]
    if step["index"] == "*":
        return value
    index = int(step["index"])
    return value[index : index + 1]
