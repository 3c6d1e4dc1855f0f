"""`--name value` for the small commands: argparse alone would take longer to import than they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def parse(arguments: Sequence[str], defaults: Mapping[str, str]) -> dict[str, str] | None:
    """The options, `--name value` or `--name=value`, laid over the defaults; None where one is unknown."""
    options = dict(defaults)
    rest = list(arguments)
    while rest:
        name, _, value = rest.pop(0).partition("=")
        if not name.startswith("--") or name[2:] not in options or not (value or rest):
            return None
        options[name[2:]] = value or rest.pop(0)
    return options
