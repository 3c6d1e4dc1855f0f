"""Numbers of a config.json that nobody vouches for: each is looked up by its known names and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.errors import Problem, Refused

# A thousand times what any published model has, and small enough that all products stay cheap.
MOST = 1 << 40
_SHOWN = 200


@dataclass(frozen=True)
class Numbers:
    """One section of a config; field: where it stands, for messages."""

    section: Mapping[str, Any]
    field: str = "model.config"

    def need(self, *names: str, default: int | None = None) -> int:
        """The first of `names` that is set; transformers writes null where it means its default.

        Raises Refused: not there and no default, or no positive whole number.
        """
        for name in names:
            if self.section.get(name) is not None:
                return self._checked(name, self.section[name], least=1)
        return self._checked(names[0], default, least=1)

    def maybe(self, *names: str, default: int = 0) -> int:
        """As `need`, where 0 or absence means that the model has no such part."""
        for name in names:
            if self.section.get(name) is not None:
                return self._checked(name, self.section[name], least=0)
        return default

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.section.get(name)
        return default if value is None else bool(value)

    def part(self, name: str) -> Numbers:
        """A section below this one; empty where there is none."""
        found = self.section.get(name)
        return Numbers(found if isinstance(found, Mapping) else {}, f"{self.field}.{name}")

    def _checked(self, name: str, value: Any, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
            raise Refused(
                Problem(
                    f"{self.field}.{name}",
                    shown(value),
                    f"must be a positive whole number, at most {MOST}"
                    if isinstance(value, int) and value > MOST
                    else "must be a positive whole number",
                    "Check the model's config.json: without it nothing can be planned.",
                )
            )
        return value


def shown(value: Any) -> Any:
    """A value for a message: short, whatever a file holds."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) <= MOST else f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
    return f"a {type(value).__name__}"


def text_section(config: Mapping[str, Any]) -> Numbers:
    """The language model's own section: the whole config, or its `text_config` and the like."""
    for name in ("text_config", "language_config", "llm_config"):
        found = config.get(name)
        if isinstance(found, Mapping) and found:
            return Numbers(found, f"model.config.{name}")
    return Numbers(config)
