"""`trainyard plan` as people and machines see it, without a network."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from tests.support.published import MODELS
from trainyard_cli.plan_question import Options
from trainyard_cli.planning import run

PLANS = Path(__file__).resolve().parents[1] / "unit" / "cli" / "plans"
LLAMA = MODELS / "meta-llama--Llama-3.3-70B-Instruct"
QWEN = MODELS / "Qwen--Qwen3-32B"
WIDTH = 110


def folder_of(spec: Path) -> Path:
    repo: str = yaml.safe_load(spec.read_text())["model"]["repo"]
    return MODELS / repo.replace("/", "--")


def printed(spec: str | Path, config: Path | None, **options: Any) -> tuple[int, str]:
    """Exit code and text, as on a terminal of 110 columns without colours."""
    laid = {key: options.pop(key) for key in list(options) if key in Options.__dataclass_fields__}
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    code = run(str(spec), Options(**laid), console, config=config, **options)
    assert isinstance(console.file, io.StringIO)
    return code, "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def answered(spec: str | Path, config: Path | None, **options: Any) -> tuple[int, dict[str, Any]]:
    code, text = printed(spec, config, as_json=True, **options)
    found: dict[str, Any] = json.loads(text)
    return code, found


def spec_file(folder: Path, **document: Any) -> Path:
    document = {"name": "model", "model": {"repo": "org/model", "token_secret": "hub"}, **document}
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
