"""What `trainyard plan` is asked: a spec, what it leaves open, and the facts of its model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trainyard import catalogue, hub_policy
from trainyard.errors import Problem, Refused
from trainyard.neuron.instances import INSTANCES, NODEPOOLS
from trainyard.neuron.models import ModelFacts, Weights, read_facts, weights_of_index
from trainyard.neuron.prices import TABLE, Prices, parse_prices
from trainyard.settings import Settings
from trainyard.spec import Spec, merge, parse_spec

# Of a local file that should be a page or an index of tensors.
_MOST_BYTES = 64 << 20
_INDEX, _WEIGHTS = "model.safetensors.index.json", "weights.json"


class BadQuestion(Exception):
    """What was asked cannot be read; nothing is known about the model yet."""


@dataclass(frozen=True)
class Options:
    """What the command line lays over the spec; None: nothing."""

    engine: str | None = None
    instance_type: str | None = None
    tensor_parallel: int | None = None
    batch_size: int | None = None
    sequence_length: int | None = None


@dataclass(frozen=True)
class Asked:
    """document: the spec as it was given, with the options in it; open: its fields that are to be proposed.

    spec: the same, with defaults where fields are open.
    """

    document: dict[str, Any]
    spec: Spec
    open: frozenset[str] = field(default_factory=frozenset)

    def has(self, path: str) -> bool:
        return _has(self.document, path)


def read_question(name: str, options: Options, releases: Path) -> Asked:
    """name: an entry of the catalogue, or the path of a YAML file. Raises BadQuestion."""
    path = Path(name)
    try:
        if path.suffix == ".yaml" or len(path.parts) > 1:
            if not path.is_file():
                raise BadQuestion(f"{name} is no file. Name an entry of the catalogue, or a YAML file.")
            document = catalogue.load(path.resolve().parent, path.stem)
        else:
            document = catalogue.load(releases, name)
        document = _with_nodepool(merge(document, _overrides(options)), options)
        open_fields = frozenset(
            key
            for key in ("engine", "hardware.instance_type", "hardware.tensor_parallel")
            if not _has(document, key)
        )
        filled = document
        if "hardware.tensor_parallel" in open_fields:
            filled = merge(document, {"hardware": {"tensor_parallel": 1}})
        return Asked(document, parse_spec(filled, name), open_fields)
    except Refused as error:
        raise BadQuestion(str(error)) from None


def facts_from(path: Path) -> tuple[ModelFacts, tuple[Problem, ...]]:
    """Without a network: from a config.json, or a folder that holds one, and what else says what it weighs.

    Facts come even where the model wants its own code to run; the problems say so.

    Raises BadQuestion for what cannot be read, Refused for a model that cannot be planned.
    """
    folder = path if path.is_dir() else path.parent
    config = _object(path / "config.json" if path.is_dir() else path)
    weights, gated = None, False
    if path.is_dir() and (folder / _WEIGHTS).is_file():
        found = _object(folder / _WEIGHTS)
        counts, total = found.get("parameters"), found.get("total_size")
        if not isinstance(counts, Mapping) or not isinstance(total, int) or isinstance(total, bool):
            raise BadQuestion(
                f"{folder / _WEIGHTS} must say `parameters` (numbers by dtype) and `total_size` (bytes)."
            )
        weights, gated = Weights(total, counts), bool(found.get("gated"))
    elif path.is_dir() and (folder / _INDEX).is_file():
        weights = weights_of_index(_object(folder / _INDEX))
    return read_facts(_without_code(config), weights, gated=gated), tuple(hub_policy.config_problems(config))


def facts_from_source(spec: Spec, settings: Settings) -> tuple[ModelFacts, str]:
    """Facts and the revision that they are of, from the Hub (the token is HF_TOKEN's), a prefix in S3, or a
    folder of this machine. Raises as `trainyard.origins` does."""
    from trainyard.hub import Hub
    from trainyard.origins import Origin
    from trainyard_cli import records

    token = os.environ.get("HF_TOKEN") or None
    origin = Origin(spec.model, lambda: Hub(settings.hub_endpoint, token), records.objects, folders=True)
    found = origin.read()
    return read_facts(found.config, found.weights, gated=found.gated), found.revision


def read_prices(path: Path | None) -> Prices:
    """The built-in table, or a YAML or JSON file. Raises BadQuestion."""
    if path is None:
        return TABLE
    try:
        # YAML reads JSON too; a date without quotes is one.
        return parse_prices(yaml.safe_load(_text(path)), str(path))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadQuestion(f"{path} is neither YAML nor JSON ({error}).") from None
    except Refused as error:
        raise BadQuestion(str(error)) from None


def _without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "auto_map"}


def _overrides(options: Options) -> dict[str, Any]:
    laid: dict[str, Any] = {}
    for path, value in (
        ("engine", options.engine),
        ("hardware.instance_type", options.instance_type),
        ("hardware.tensor_parallel", options.tensor_parallel),
        ("compile.batch_size", options.batch_size),
        ("compile.sequence_length", options.sequence_length),
    ):
        if value is not None:
            part, _, key = path.rpartition(".")
            laid = merge(laid, {part: {key: value}} if part else {key: value})
    return laid


def _with_nodepool(document: dict[str, Any], options: Options) -> dict[str, Any]:
    """Another instance type than the spec's is in another of our NodePools; one's own is left alone."""
    kind = INSTANCES.get(options.instance_type or "")
    if kind is None or (document.get("hardware") or {}).get("nodepool", kind.nodepool) not in NODEPOOLS:
        return document
    return merge(document, {"hardware": {"nodepool": kind.nodepool}})


def _has(document: Mapping[str, Any], path: str) -> bool:
    node: Any = document
    for key in path.split("."):
        if not isinstance(node, Mapping) or node.get(key) is None:
            return False
        node = node[key]
    return True


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadQuestion(f"{path} is larger than {_MOST_BYTES >> 20} MiB: that is no such file.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadQuestion(f"{path} cannot be read ({error}).") from None


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise BadQuestion(f"{path} is no JSON ({error}).") from None
    if not isinstance(found, dict):
        raise BadQuestion(f"{path} holds a JSON {type(found).__name__}, not an object.")
    return found
