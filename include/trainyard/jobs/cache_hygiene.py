"""What killed and failed compiles leave in libneuronxla's cache folder, found and removed.

neuronxcc-<version>+<hash>/MODULE_<hlo hash>+<flags hash>/
    model.neff, model.done        a compilation that ended well
    model.log, no neff            one that failed: every later compile gives up there (poisoned)
    neither                       one that was killed: it is compiled again
    model.hlo_module.pb.lock      somebody compiles it, or was killed: then others wait for ever
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainyard.store.compile_cache import DONE, LOG, NEFF, is_module

COMPILER = "neuronx-cc"
# libneuronxla's, where nothing names another.
DEFAULT_FOLDER = "/var/tmp/neuron-compile-cache"
# An entry is a handful of files.
MOST_FILES = 32
# The native plugin writes it last.
NATIVE_DONE = ".compilation_complete"
_MD5 = re.compile(r"[0-9a-f]{32}")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """Entries below a cache folder, by what became of them. Paths are absolute."""

    complete: tuple[Path, ...]
    poisoned: tuple[Path, ...]
    broken: tuple[Path, ...]


@dataclass(frozen=True)
class Cleaned:
    poisoned: int = 0
    broken: int = 0
    locks: int = 0


def survey(cache: Path) -> Survey:
    """Looks at every entry. A neff without its `model.done`, or an empty one, is broken."""
    complete, poisoned, broken = [], [], []
    for entry in entries(cache):
        if is_complete(entry):
            complete.append(entry)
        elif (entry / LOG).exists():
            poisoned.append(entry)
        elif (entry / NEFF).exists() or (entry / DONE).exists():
            broken.append(entry)
    return Survey(tuple(complete), tuple(poisoned), tuple(broken))


def is_complete(entry: Path) -> bool:
    """Does a compile take this entry as its result?"""
    neff = entry / NEFF
    with suppress(OSError):
        return neff.is_file() and neff.stat().st_size > 0 and (entry / DONE).is_file()
    return False


def entries(cache: Path) -> Iterator[Path]:
    """Folders `neuronxcc-…/MODULE_…`; links are nobody's entries."""
    for version in sorted(cache.glob("neuronxcc-*")):
        if version.is_symlink() or not version.is_dir():
            continue
        for entry in sorted(version.glob("MODULE_*")):
            if entry.is_dir() and not entry.is_symlink() and is_module(module_of(entry)):
                yield entry


def module_of(entry: Path) -> str:
    return f"{entry.parent.name}/{entry.name}"


def clean(cache: Path, *, alone: bool) -> Cleaned:
    """Removes what would fail or block the next compile here.

    alone: nobody else may write to the folder. Otherwise, and while a compiler works on it, nothing is
    touched: a lock or half an entry may be of somebody who is alive.
    """
    if not alone or compiler_runs(cache):
        return Cleaned()
    found = survey(cache)
    for entry in found.poisoned:
        log.warning("removing the failed entry %s: %s", entry, _first_line(entry / LOG))
        shutil.rmtree(entry, ignore_errors=True)
    for entry in found.broken:
        log.warning("removing the unfinished entry %s", entry)
        shutil.rmtree(entry, ignore_errors=True)
    return Cleaned(len(found.poisoned), len(found.broken), clear_stale_locks(cache))


def clear_stale_locks(cache: Path) -> int:
    """Remove lock files that a killed compile left, for which the next one would wait for ever; returns how
    many.

    Only when no compiler works on this folder. A pod sees its own processes only: who shares the folder with
    other pods has to hold the lease of its key.
    """
    if compiler_runs(cache):
        return 0
    locks = list(cache.rglob("*.lock"))
    for lock in locks:
        log.warning("removing the stale lock %s", lock)
        lock.unlink(missing_ok=True)
    return len(locks)


def drop_unfinished(output: Path) -> int:
    """Removes what a killed or failed compile left in the native plugin's cache: a server would take such a
    folder for nothing, and have to compile. Returns how many folders went."""
    dropped = 0
    for folder in sorted(output.glob("**/compile_cache/*")):
        if not folder.is_dir() or folder.is_symlink() or not _MD5.fullmatch(folder.name):
            continue
        neffs = [path for path in folder.glob("*.neff") if path.stat().st_size > 0]
        if not neffs or not (folder / NATIVE_DONE).is_file():
            log.warning("leaving out the unfinished entry %s", folder)
            shutil.rmtree(folder)
            dropped += 1
    for lock in output.glob("**/compile_cache/.*.lock"):
        lock.unlink(missing_ok=True)
    return dropped


def remove_poisoned(paths: tuple[str, ...]) -> int:
    """Removes the entries that the compiler itself named as failed: the cache may be elsewhere than told."""
    removed = 0
    for path in paths:
        entry = Path(path).parent
        if is_module(module_of(entry)) and entry.is_dir() and not entry.is_symlink():
            log.warning("removing the failed entry %s: %s", entry, _first_line(entry / LOG))
            shutil.rmtree(entry, ignore_errors=True)
            removed += 1
    return removed


def compiler_runs(cache: Path | None = None) -> bool:
    """Does a `neuronx-cc` run here that may write to `cache`? One that says to use another folder does not.

    Without `cache`: any.
    """
    return any(cache is None or may_use(process, cache) for process in _compilers())


def _compilers() -> Iterator[Path]:
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if entry.name != str(os.getpid()) and _is_compiler(words):
                yield entry


def _is_compiler(words: list[bytes]) -> bool:
    """`neuronx-cc …` itself, or an interpreter or shell that runs it: not whoever only names it."""
    return any(os.path.basename(word) == COMPILER.encode() for word in words[:3])


def may_use(process: Path, cache: Path) -> bool:
    """process: its folder below /proc. In doubt it may: better wait than harm."""
    try:
        variables = dict(
            pair.split("=", 1)
            for pair in (process / "environ").read_bytes().decode("utf-8", "replace").split("\0")
            if "=" in pair
        )
    except ProcessLookupError:
        return False  # it has ended, though its number may stay until somebody reaps it
    except OSError:
        return process.exists()
    named = cache_folder(variables)
    if named is None:
        return True
    return os.path.realpath(named) == os.path.realpath(cache)


def cache_folder(variables: dict[str, str]) -> str | None:
    """The folder that libneuronxla uses in this environment; None: the flags cannot be read."""
    with suppress(ValueError):
        words = shlex.split(variables.get("NEURON_CC_FLAGS", ""))
        for number, word in enumerate(words):
            if word.startswith("--cache_dir="):
                return word.partition("=")[2]
            if word == "--cache_dir" and number + 1 < len(words):
                return words[number + 1]
        return variables.get("NEURON_COMPILE_CACHE_URL") or DEFAULT_FOLDER
    return None


def _first_line(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        return file.read(300).decode("utf-8", "replace").split("\n")[0]
    return "(no log)"
