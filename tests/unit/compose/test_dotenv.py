"""`.env`: secrets are generated once and kept."""

from __future__ import annotations

import base64
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from local.compose.dotenv import GENERATED, fill

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


def values(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z][A-Z0-9_]*)=(.*)$", text, flags=re.MULTILINE))


def test_every_secret_of_the_example_is_filled_in_and_all_else_stays() -> None:
    filled, example = values(fill(EXAMPLE)), values(EXAMPLE)
    assert {name for name in filled if filled[name] != example[name]} == set(GENERATED)
    assert all(len(filled[name]) >= 16 for name in GENERATED)
    assert len(base64.urlsafe_b64decode(filled["AIRFLOW_FERNET_KEY"])) == 32


def test_no_two_files_share_a_secret() -> None:
    first, second = values(fill(EXAMPLE)), values(fill(EXAMPLE))
    assert not {first[name] for name in GENERATED} & {second[name] for name in GENERATED}


@given(st.sets(st.sampled_from(sorted(GENERATED))), st.sets(st.sampled_from(sorted(GENERATED))))
def test_what_is_set_stays_and_what_is_empty_or_missing_is_added(kept: set[str], empty: set[str]) -> None:
    existing = "".join(f"{name}=mine\n" for name in sorted(kept))
    existing += "".join(f"{name}=\n" for name in sorted(empty - kept)) + "AIRFLOW_PORT=9999\n"
    once = fill(EXAMPLE, existing)
    result = values(once)
    assert all(result[name] == "mine" for name in kept)
    assert all(result[name] for name in GENERATED)
    assert result["AIRFLOW_PORT"] == "9999"
    assert fill(EXAMPLE, once) == once


def test_the_command_needs_nothing_but_python_and_writes_a_private_file(tmp_path: Path) -> None:
    folder = tmp_path / "local" / "compose"
    folder.mkdir(parents=True)
    for name in ("local/__init__.py", "local/compose/__init__.py", "local/compose/dotenv.py", ".env.example"):
        shutil.copy(ROOT / name, tmp_path / name)
    run = (
        "import runpy, sys; sys.path.insert(0, '.'); runpy.run_module('local.compose.dotenv', {}, '__main__')"
    )
    command = [sys.executable, "-I", "-S", "-c", run]
    for said in ("wrote", "has all it needs"):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
