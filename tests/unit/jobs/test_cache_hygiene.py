"""What killed and failed compiles left, with real compilers that run or do not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainyard.jobs.cache_hygiene import (
    Cleaned,
    cache_folder,
    clean,
    clear_stale_locks,
    compiler_runs,
    drop_unfinished,
    may_use,
    remove_poisoned,
    survey,
)

VERSION = "neuronxcc-2.21.33363.0+82129205"


def entry(cache: Path, number: int, **files: str) -> Path:
    folder = cache / VERSION / f"MODULE_{number:020x}+d41d8cd9"
    folder.mkdir(parents=True)
    for name, content in {"hlo_module.pb": "hlo", **files}.items():
        (folder / f"model.{name}").write_text(content)
    return folder


@contextmanager
def running_compiler(tmp_path: Path, **environment: str) -> Iterator[None]:
    """A process whose command is `neuronx-cc`: it says a line when it runs, and waits."""
    script = tmp_path / "bin" / "neuronx-cc"
    script.parent.mkdir(exist_ok=True)
    script.write_text("import sys\nprint('up', flush=True)\nsys.stdin.read()\n")
    process = subprocess.Popen(
        [sys.executable, "-S", str(script), "compile"],
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"up\n"
        yield
    finally:
        process.communicate()


def test_what_ended_well_stays_and_the_rest_goes(tmp_path: Path) -> None:
    good = entry(tmp_path, 1, neff="neff", done="")
    poisoned = entry(tmp_path, 2, log="[NCC_INLA001] no\nmore")
    unfinished = entry(tmp_path, 3, neff="half")
    empty = entry(tmp_path, 4, neff="", done="")
    killed = entry(tmp_path, 5, **{"hlo_module.pb.lock": ""})
    assert clean(tmp_path, alone=True) == Cleaned(poisoned=1, broken=2, locks=1)
    assert sorted(path.name for path in (tmp_path / VERSION).iterdir()) == [good.name, killed.name]
    assert not list(tmp_path.rglob("*.lock"))
    assert not any(path.exists() for path in (poisoned, unfinished, empty))


def test_a_folder_that_others_use_is_not_touched(tmp_path: Path) -> None:
    entry(tmp_path, 1, log="failed", **{"hlo_module.pb.lock": ""})
    assert clean(tmp_path, alone=False) == Cleaned()
    assert len(survey(tmp_path).poisoned) == 1


def test_nothing_is_removed_while_a_compiler_works_here(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    entry(cache, 1, log="failed", **{"hlo_module.pb.lock": ""})
    with running_compiler(tmp_path, NEURON_COMPILE_CACHE_URL=str(cache)):
        assert compiler_runs(cache)
        assert clear_stale_locks(cache) == 0
        assert clean(cache, alone=True) == Cleaned()
    assert clear_stale_locks(cache) == 1


def test_a_process_that_does_not_say_which_cache_it_uses_may_use_any(tmp_path: Path) -> None:
    # Not named neuronx-cc: other tests look for those at the same time.
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "print('up', flush=True); input()"],
        env={"NEURON_CC_FLAGS": "'unclosed"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"up\n"
        assert may_use(Path(f"/proc/{process.pid}"), tmp_path)
    finally:
        process.communicate(b"\n")


def test_a_compiler_of_another_cache_is_no_concern(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    entry(cache, 1, **{"hlo_module.pb.lock": ""})
    with running_compiler(tmp_path, NEURON_CC_FLAGS="--model-type=x --cache_dir=/elsewhere"):
        assert clear_stale_locks(cache) == 1


def test_who_only_names_the_compiler_is_none(tmp_path: Path) -> None:
    program = "import sys; sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", program, "--", "how-to-run", "neuronx-cc"],
        env={"NEURON_COMPILE_CACHE_URL": str(tmp_path)},
        stdin=subprocess.PIPE,
    )
    try:
        assert not compiler_runs(tmp_path)
    finally:
        process.communicate()


@pytest.mark.parametrize(
    ("flags", "url", "folder"),
    [
        ("--cache_dir=/a", "/b", "/a"),
        ("--cache_dir /a -O2", "/b", "/a"),
        ("-O2", "/b", "/b"),
        ("'unclosed", "/b", None),
        ("", "", "/var/tmp/neuron-compile-cache"),
    ],
)
def test_flags_come_before_the_variable(flags: str, url: str, folder: str | None) -> None:
    assert cache_folder({"NEURON_CC_FLAGS": flags, "NEURON_COMPILE_CACHE_URL": url}) == folder


def test_only_entries_are_removed_whatever_path_the_log_names(tmp_path: Path) -> None:
    poisoned, precious = entry(tmp_path, 1, log="failed"), tmp_path / "precious"
    precious.mkdir()
    named = (f"{poisoned}/model.neff", f"{precious}/model.neff", "/etc/model.neff", "model.neff")
    assert remove_poisoned(named) == 1
    assert precious.exists()
    assert not poisoned.exists()


def test_links_are_nobodys_entries(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "model.log").write_text("failed")
    (tmp_path / "cache" / VERSION).mkdir(parents=True)
    (tmp_path / "cache" / VERSION / "MODULE_1+2").symlink_to(precious)
    assert clean(tmp_path / "cache", alone=True) == Cleaned()
    assert precious.exists()


def test_unfinished_graphs_of_the_native_plugin_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "neuron" / "compile_cache"
    done, half, other = root / ("a" * 32), root / ("b" * 32), root / "notes"
    for folder in (done, half, other):
        folder.mkdir(parents=True)
        (folder / f"graph_{folder.name}.neff").write_text("neff")
    (done / ".compilation_complete").touch()
    (root / f".{'b' * 32}.compilation_metadata.lock").touch()
    assert drop_unfinished(tmp_path) == 1
    assert sorted(path.name for path in root.iterdir()) == [done.name, "notes"]
