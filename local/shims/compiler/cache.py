"""libneuronxla's persistent compile cache and compiler wrapper (neuron.md, 2).

<cache>/neuronxcc-<version>/MODULE_<hlo hash>+<flags hash>/
    model.hlo_module.pb  compile_flags.json     always
    model.neff  model.done                      after success
    model.log                                   after a failure: the entry is poisoned
    model.hlo_module.pb.lock                    while somebody compiles, or after they were killed
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local.shims import logs
from local.shims.compiler.graph import Graph
from local.shims.logs import ToolError

BIN = Path(__file__).resolve().parents[1] / "bin"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class CacheOptions:
    """What NEURON_CC_FLAGS and NEURON_COMPILE_CACHE_URL say."""

    folder: Path
    retry_failed: bool = False


def options() -> CacheOptions:
    """The cache of this process: `--cache_dir` in NEURON_CC_FLAGS, NEURON_COMPILE_CACHE_URL, or the default.

    The default is below TMPDIR here, since processes of one machine share the /var/tmp that pods do not.
    Raises ToolError for s3:// addresses.
    """
    flags = shlex.split(os.environ.get("NEURON_CC_FLAGS", ""))
    chosen = os.environ.get("NEURON_COMPILE_CACHE_URL") or f"{tempfile.gettempdir()}/neuron-compile-cache"
    for index, flag in enumerate(flags):
        if flag.startswith("--cache_dir="):
            chosen = flag.partition("=")[2]
        elif flag == "--cache_dir" and index + 1 < len(flags):
            chosen = flags[index + 1]
    if "://" in chosen:
        raise ToolError("NotImplementedError", f"compile cache at {chosen}: the shims know folders only")
    return CacheOptions(Path(chosen), retry_failed="--retry_failed_compilation" in flags)


def compile_graph(graph: Graph, target: str, version: str) -> bytes:
    """The NEFF of `graph`, from the cache or from the compiler.

    Raises ToolError when the compiler fails, or when it failed for this graph before.
    """
    chosen = options()
    logs.wrapper(f"Compile cache path: {chosen.folder}", component="NEURON_CACHE")
    entry = chosen.folder / f"neuronxcc-{version}" / graph.module
    entry.mkdir(parents=True, exist_ok=True)
    neff, failure = entry / "model.neff", entry / "model.log"
    with _lock(entry / "model.hlo_module.pb.lock", neff):
        if neff.exists() and (entry / "model.done").exists():
            logs.wrapper(f"Using a cached neff at {neff}")
            return neff.read_bytes()
        if failure.exists() and not chosen.retry_failed:
            logs.wrapper(
                f"Got a cached failed neff at {neff}. Will skip compilation, "
                "please set --retry_failed_compilation for recompilation: \n" + failure.read_text(),
                level="ERROR",
            )
            raise ToolError("RuntimeError", f"Failed compilation: got a cached failed neff at {neff}")
        failure.unlink(missing_ok=True)
        (entry / "model.hlo_module.pb").write_bytes(graph.hlo)
        (entry / "compile_flags.json").write_text(json.dumps(list(graph.flags)))
        _run_compiler(graph, target, entry)
        return neff.read_bytes()


def _run_compiler(graph: Graph, target: str, entry: Path) -> None:
    """Run `neuronx-cc` as libneuronxla does: in a work folder, its output moved to the cache when done."""
    work = Path(tempfile.gettempdir()) / "neuroncc_compile_workdir" / str(uuid.uuid4())
    work.mkdir(parents=True)
    source = work / f"model.{graph.module}.hlo_module.pb"
    output = work / f"model.{graph.module}.neff"
    source.write_bytes(graph.hlo)
    command = ["neuronx-cc", "compile", f"--target={target}", "--framework=XLA", str(source)]
    command += ["--output", str(output), *graph.flags, "--verbose=35"]
    logs.wrapper(f"Call compiler with cmd: {shlex.join(command)}")
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
    assert process.stderr is not None
    said = bytearray()
    while content := os.read(process.stderr.fileno(), 4096):
        said += content
        os.write(2, content)
    if code := process.wait():
        log = f"Failed compilation with {command}: {said.decode(errors='replace').strip()}"
        (entry / "model.log").write_text(log)
        logs.wrapper(log, level="ERROR")
        logs.wrapper(f"Compilation failed for {source} after 0 retries.", level="ERROR")
        raise ToolError(
            "subprocess.CalledProcessError", f"Command '{command}' returned non-zero exit status {code}."
        )
    staged = entry / f".model.neff.{os.getpid()}"
    staged.write_bytes(output.read_bytes())
    staged.replace(entry / "model.neff")
    (entry / "model.done").touch()


@contextmanager
def _lock(path: Path, neff: Path) -> Iterator[None]:
    """A lock by existence: one that a killed process left is waited for without end, as the real one is."""
    began = time.monotonic()
    said = -60.0
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            waited = time.monotonic() - began
            if waited - said >= 60.0:
                said = waited
                logs.wrapper(
                    f"Another process must be compiling {neff.parent / 'model.hlo_module.pb'}, "
                    f"been waiting for: {waited / 60:.1f} minutes"
                )
            time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
