"""The serving stacks, one module each, behind one protocol. A module here with an `ENGINE` is an engine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from trainyard.errors import Problem, Refused
from trainyard.neuron.engines.base import Engine


@cache
def engines() -> Mapping[str, Engine]:
    """All engines by the name that specs use, sorted."""
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    known = [module.ENGINE for module in modules if hasattr(module, "ENGINE")]
    return {engine.name: engine for engine in sorted(known, key=lambda engine: str(engine.name))}


def engine(name: str) -> Engine:
    """Looks an engine up. Raises Refused with the known names."""
    try:
        return engines()[name]
    except KeyError:
        raise Refused(
            Problem("engine", name, "no such engine", f"Use one of {', '.join(engines())}.")
        ) from None


__all__ = ["Engine", "engine", "engines"]
