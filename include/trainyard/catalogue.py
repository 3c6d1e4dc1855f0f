"""The catalogue: one YAML file a model below `include/releases/`."""

from __future__ import annotations

import re
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from trainyard.errors import Problem, Refused
from trainyard.spec import FIXED, MODEL_NAME, Request, Spec, merge, parse_spec, plain_source

_MAX_BYTES = 64 * 1024


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a spec needs none, and a few hundred bytes of them can fill all memory.

    A key that stands twice is refused: YAML's own rule is an error, PyYAML's habit is to take the last.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(
                None, None, "aliases are not allowed here", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return found


def names(folder: Path) -> list[str]:
    """The entries, sorted; reads the folder's listing only."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def followed(folder: Path, follow: str) -> list[str]:
    """The entries that the schedule looks at. follow: names or patterns with commas between them.

    A name that has no entry is kept: who looks at it says so.
    """
    known = names(folder)
    wanted = [word for part in follow.split(",") if (word := part.strip())]
    unknown = {word for word in wanted if not set(word) & set("*?[") and word not in known}
    return sorted({name for name in known if any(fnmatchcase(name, word) for word in wanted)} | unknown)


def load(folder: Path, name: str) -> dict[str, Any]:
    """Reads one entry as a document. Raises Refused: unknown name, path in the name, malformed or huge
    YAML."""
    if not re.fullmatch(MODEL_NAME, name):
        raise Refused(
            Problem(
                "release",
                name,
                "a name has lower-case letters, digits and dashes only, and begins with a letter",
                "Correct the name.",
            )
        )
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(names(folder)) or "none yet"
        raise Refused(
            Problem(
                "release",
                name,
                "no such entry in the catalogue",
                f"Known: {known}. Add include/releases/{name}.yaml.",
            )
        )
    if path.stat().st_size > _MAX_BYTES:
        raise Refused(
            Problem(
                "release",
                name,
                f"{path.name} is larger than {_MAX_BYTES} bytes",
                "A spec is a page: trim it.",
            )
        )
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except RecursionError:
        raise Refused(
            Problem(
                "release",
                name,
                f"{path.name} is nested too deeply",
                "A spec has four levels: see docs/spec.md.",
            )
        ) from None
    # ValueError: bytes that are no UTF-8, and values such as the date 2024-13-45.
    except (yaml.YAMLError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        place = f"line {where.line + 1}, column {where.column + 1}" if where else "somewhere"
        what = getattr(error, "problem", None) or str(error)
        raise Refused(
            Problem("release", name, f"{path.name} is no YAML: {what} ({place})", "Correct that place.")
        ) from None
    if not isinstance(document, dict):
        raise Refused(Problem("release", name, f"{path.name} must hold a mapping", "See docs/spec.md."))
    if document.get("name") != name:
        raise Refused(
            Problem(
                "name", document.get("name"), f"{path.name} must carry its own name", f"Write `name: {name}`."
            )
        )
    return document


def resolve(folder: Path, request: Request) -> Spec:
    """A request over its catalogue entry -> the spec to plan. Raises Refused."""
    base = load(folder, request.release)
    document = merge(_plain(base), _plain(request.overrides))
    if request.revision is not None:
        document = merge(document, {"model": {"revision": request.revision}})
    for name in FIXED:
        if document.get(name) != base.get(name):
            raise Refused(
                Problem(f"overrides.{name}", "…", "a request cannot change this of its entry", "Remove it.")
            )
    return parse_spec(document, f"include/releases/{request.release}.yaml or the request's overrides")


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """With repo and revision where it says `source: hf://…`, so that what is laid over it replaces them."""
    model = document.get("model")
    if not isinstance(model, dict):
        return document
    with suppress(ValueError):  # what contradicts itself is refused when it is parsed
        return {**document, "model": plain_source(model)}
    return document
