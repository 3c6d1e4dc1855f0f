"""The plugin's compile cache.

$VLLM_CACHE_ROOT/neuron/compile_cache/
    <md5>/graph.hlo  graph_<md5>.neff  command.txt  log-neuron-cc.txt  .artifact_metadata_v0.json
    <md5>/.compilation_complete            written last
    <md5>/.cache_accessed                  after a hit
    .<md5>.compilation_metadata            who compiles or has compiled, and its .lock
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from local.shims import logs
from local.shims.compiler.cache import BIN
from local.shims.compiler.graph import Graph
from local.shims.logs import ToolError

POLL_SECONDS = 0.2
COMPLETE, METADATA = ".compilation_complete", ".artifact_metadata_v0.json"


@dataclass(frozen=True)
class Cache:
    """Where graphs are found. remote: a folder that is copied from on a miss, None without one."""

    root: Path
    timeout: float
    remote: Path | None = None

    @classmethod
    def configured(cls) -> Cache:
        """The cache that the environment names."""
        root = Path(os.environ.get("VLLM_CACHE_ROOT") or Path.home() / ".cache" / "vllm")
        remote = os.environ.get("NEURON_LIBTORCH_REMOTE_CACHE")
        return cls(
            root / "neuron" / "compile_cache",
            float(_timeout() or 600),
            Path(remote) if remote else None,
        )

    def local(self, key: str) -> bytes | None:
        """The NEFF of a complete entry; marks the entry as used."""
        entry = self.root / key
        if not is_complete(entry):
            _say(f"Local cache miss for key: {key}")
            return None
        with suppress(OSError):  # the cache may be read-only
            (entry / ".cache_accessed").write_text(str(int(time.time())))
        _say(f"Local cache hit for key: {key}")
        return _read(entry)

    def fetch_or_compile(self, key: str, graph: Graph, target: str, *, invalidate: bool) -> bytes:
        """Have an entry made by whoever gets its lock first.

        Raises ToolError when the compiler fails or somebody else's compilation takes too long.
        """
        entry = self.root / key
        with self._locked(key):
            if is_complete(entry) and not invalidate:
                _say(f"Lock acquired but local cache already populated: {key}")
                return _read(entry)
            (entry / COMPLETE).unlink(missing_ok=True)
            if self.remote is not None and not invalidate and is_complete(self.remote / key):
                _say(f"Remote cache hit for key {key} — copying from {self.remote / key}")
                shutil.rmtree(entry, ignore_errors=True)
                shutil.copytree(self.remote / key, entry, ignore=shutil.ignore_patterns(".cache_accessed"))
                return _read(entry)
            try:
                _compile(entry, key, graph, target)
            except ToolError as error:
                _say(f"Compilation failed - terminating process for cleanup: {error}", "ERROR")
                raise ToolError("SystemExit", f"FATAL: {error}") from None
            return _read(entry)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """The entry's lock. One that a dead process held is free: the system released it."""
        self.root.mkdir(parents=True, exist_ok=True)
        metadata = self.root / f".{key}.compilation_metadata"
        with (self.root / f".{key}.compilation_metadata.lock").open("w") as file:
            began = time.monotonic()
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waited = time.monotonic() - began
                    if waited > self.timeout:
                        raise ToolError(
                            "TimeoutError",
                            f"Shared compilation timeout after {waited:.1f}s in {self.root / key}",
                        ) from None
                    time.sleep(POLL_SECONDS)
            process = psutil.Process()
            metadata.write_text(
                f"pid:{process.pid}\nprocess_name:{process.name()}\ncmdline:{process.cmdline()}\n"
                f"timestamp:{time.time()}\n"
            )
            _say(f"Acquired compilation lock for cache: {self.root / key}")
            yield


def _timeout() -> str | None:
    """Seconds to wait for others; the second name is the one before release 0.24."""
    return os.environ.get("NEURON_LIBTORCH_COMPILATION_TIMEOUT") or os.environ.get(
        "VLLM_NEURON_COMPILATION_TIMEOUT"
    )


def key_of(graph: Graph, compiler: str, target: str) -> str:
    """32 hexadecimal digits: the graph, its inputs, the compiler, its arguments and the target."""
    content = graph.hlo + "\0".join([*graph.flags, compiler, target]).encode()
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def is_complete(entry: Path) -> bool:
    """All files are there; the marker is written last."""
    needed = ("graph.hlo", f"graph_{entry.name}.neff", COMPLETE, METADATA)
    return all((entry / name).exists() for name in needed)


def _read(entry: Path) -> bytes:
    """The NEFF, when the entry is what its name says; raises ToolError for one that was renamed."""
    found = json.loads((entry / METADATA).read_text()).get("cache_key")
    if found != entry.name:
        raise ToolError(
            "RuntimeError",
            f"Cache key mismatch: expected '{entry.name}', found '{found}' in {entry}. "
            "The cache entry may have been corrupted or moved.",
        )
    return (entry / f"graph_{entry.name}.neff").read_bytes()


def _compile(entry: Path, key: str, graph: Graph, target: str) -> None:
    entry.mkdir(parents=True, exist_ok=True)
    output = entry / f"graph_{key}.neff"
    (entry / "graph.hlo").write_bytes(graph.hlo)
    command = ["neuronx-cc", "compile", str(entry / "graph.hlo"), "--framework", "XLA", "--target", target]
    command += ["--output", str(output), "--logfile", str(entry / "log-neuron-cc.txt"), *graph.flags]
    (entry / "command.txt").write_text(shlex.join(command))
    _say("Compiling...")
    began = time.monotonic()
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = os.environ | {"PATH": path, "LOCAL_COMPILE_PHASES": "1"}
    done = subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=False)
    if done.returncode:
        raise ToolError(
            "RuntimeError", f"neuronx-cc compilation failed with {done.returncode}. Check compiler logs."
        )
    took = time.monotonic() - began
    _say(f"Compilation complete in {took:.2f} seconds")
    metadata = {"version": 0, "cache_key": key, "output_count": 1, "unused_input_indices": [], "io_map": {}}
    (entry / METADATA).write_text(json.dumps(metadata | {"has_rng_seed_parameter": False}, indent=2))
    (entry / COMPLETE).write_text(f"completed:{time.time()}\nneff_size:{output.stat().st_size}\n")
    _say(f"Stored compilation artifacts in local cache: {entry}")


def _say(message: str, level: str = "INFO") -> None:
    logs.vllm(message, level, "cache.py:166")
