"""The image table: which images exist, and what stands for their file system."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Image:
    """What a container of the image gets."""

    name: str
    path: tuple[Path, ...]
    pythonpath: tuple[Path, ...]
    entrypoint: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    path: tuple[Path, ...]
    pythonpath: tuple[Path, ...]
    entrypoint: tuple[str, ...]
    size: int


class ImageTable:
    """Lookup of image names in the rules of a YAML file (see images.yaml)."""

    def __init__(self, rules: list[_Rule]) -> None:
        self._rules = rules

    @classmethod
    def load(cls, file: Path, checkout: Path) -> ImageTable:
        """Read the table, folders relative to `checkout`; raises ValueError naming file and rule."""
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        rules = []
        for number, entry in enumerate(content["images"]):
            try:
                pattern = re.compile(entry["pattern"])
            except (KeyError, TypeError, re.error) as error:
                raise ValueError(f"{file}: images[{number}].pattern: {error!r}") from error
            rules.append(
                _Rule(
                    pattern,
                    tuple(checkout / each for each in entry.get("path") or []),
                    tuple(checkout / each for each in entry.get("pythonpath") or []),
                    tuple(entry.get("entrypoint") or []),
                    int(entry.get("size", 0)),
                )
            )
        return cls(rules)

    def find(self, name: str) -> Image | None:
        """The image, or None when no registry would have it."""
        for rule in self._rules:
            if rule.pattern.fullmatch(name):
                return Image(name, rule.path, rule.pythonpath, rule.entrypoint, rule.size)
        return None


def full_reference(name: str) -> str:
    """The reference as containerd spells it: registry, repository and tag made explicit."""
    repository, at, digest = name.partition("@")
    first = repository.split("/", 1)[0]
    if "/" not in repository:
        repository = f"docker.io/library/{repository}"
    elif "." not in first and ":" not in first and first != "localhost":
        repository = f"docker.io/{repository}"
    if not at and ":" not in repository.rsplit("/", 1)[-1]:
        repository += ":latest"
    return repository + at + digest


def pull_error(name: str) -> str:
    """containerd's words for an image that the registry does not have."""
    full = full_reference(name)
    return (
        f'rpc error: code = NotFound desc = failed to pull and unpack image "{full}": '
        f'failed to resolve reference "{full}": {full}: not found'
    )
