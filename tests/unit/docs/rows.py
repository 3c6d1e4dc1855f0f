"""The rows that docs/spec.md and docs/settings.md must have, from the pydantic models themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from trainyard.settings import Settings
from trainyard.spec import Request, Spec

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Row:
    """name: the field's path; value: what it may be; default: as written in YAML, or `required`."""

    name: str
    value: str
    default: str

    @property
    def text(self) -> str:
        """The line up to its last column, which is free."""
        return f"| `{self.name}` | {self.value} | {self.default} |"


def spec_rows() -> list[Row]:
    return _rows(Spec, Spec.model_json_schema())


def request_rows() -> list[Row]:
    return _rows(Request, Request.model_json_schema())


def settings_rows() -> list[Row]:
    rows = _rows(Settings, Settings.model_json_schema())
    return [Row(f"TRAINYARD_{row.name.upper()}", row.value, row.default) for row in rows]


def _rows(model: type[BaseModel], schema: dict[str, Any], prefix: str = "") -> list[Row]:
    rows: list[Row] = []
    for name, field in model.model_fields.items():
        part, of_many = _part(field.annotation)
        path = f"{prefix}{name}"
        if part is not None and not of_many:
            rows += _rows(part, part.model_json_schema(), f"{path}.")
            continue
        default = field.get_default(call_default_factory=True)
        rows.append(Row(path, _value(schema["properties"][name], schema), _default(default)))
        if part is not None:
            rows += _rows(part, part.model_json_schema(), f"{path}[].")
    return rows


def _part(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that a field holds, and whether it holds many."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    many = not isinstance(annotation, UnionType)  # `Part | None` is one or none
    for inner in getattr(annotation, "__args__", ()):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner, many
    return None, False


def _value(node: dict[str, Any], schema: dict[str, Any]) -> str:
    options = [option for option in node.get("anyOf", [node]) if option.get("type") != "null"]
    option = options[0]
    if "enum" in option:
        return " or ".join(f"`{word}`" for word in option["enum"])
    kind = option.get("type")
    if kind == "array":
        most, least = option.get("maxItems"), option.get("minItems", 0)
        return f"list of {least} to {most}" if most is not None else "list"
    if kind == "object":
        return "mapping of texts" if "additionalProperties" in option and _texts(option) else "mapping"
    if kind in ("integer", "number"):
        return f"{kind}{_range(option)}"
    return {"string": "text"}.get(str(kind), str(kind))


def _texts(option: dict[str, Any]) -> bool:
    extra = option["additionalProperties"]
    return isinstance(extra, dict) and extra.get("type") == "string"


def _range(option: dict[str, Any]) -> str:
    words = {
        "minimum": "from {}",
        "exclusiveMinimum": "above {}",
        "maximum": "to {}",
        "exclusiveMaximum": "below {}",
    }
    said = [text.format(f"{option[key]:g}" if option[key] < 1e6 else f"{option[key]:.0f}")
            for key, text in words.items() if key in option]  # fmt: skip
    return f", {' '.join(said)}" if said else ""


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, Path):
        return f"`{value.relative_to(REPOSITORY)}`"
    if isinstance(value, tuple):
        if value and isinstance(value[0], BaseModel):
            return "see below"
        if not value:
            return "empty"
        return ", ".join(f"`{item}`" for item in value)
    if isinstance(value, dict):
        return f"`{value}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`" if value != "" else "empty"
