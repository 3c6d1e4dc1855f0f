"""The serving stacks, one module each, behind one protocol."""

from __future__ import annotations

from trainyard.errors import Problem, Refused
from trainyard.neuron.engines.base import Engine
from trainyard.neuron.engines.optimum import Optimum

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (Optimum(),)}


def engine(name: str) -> Engine:
    """Looks an engine up by the name that specs use. Raises Refused with the known names."""
    try:
        return ENGINES[name]
    except KeyError:
        raise Refused(
            Problem("engine", name, "no such engine", f"Use one of {', '.join(sorted(ENGINES))}.")
        ) from None


__all__ = ["ENGINES", "Engine", "engine"]
