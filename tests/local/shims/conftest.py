"""The shims as their users run them: by name, found on PATH, in an environment of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from local.checkpoints.checkpoint import write_checkpoint
from tests.support.ports import reserved_port

BIN = Path(__file__).parents[3] / "local" / "shims" / "bin"
TRN2 = {"instance_type": "trn2.48xlarge", "devices": [0], "node": "node-1"}
NO_WAIT = {"compile_seconds": 0}
PATIENCE = 120  # seconds for what takes one or two: a machine that tests other things stands still at times


def environment(
    temporary: Path,
    *,
    silicon: dict[str, Any] | None = None,
    faults: dict[str, Any] | None = None,
    **more: str,
) -> dict[str, str]:
    """What a container's process would find; nothing of the test's own PYTHONPATH."""
    found = {
        "PATH": os.pathsep.join([str(BIN), str(Path(sys.executable).parent), os.defpath]),
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "LOCAL_LOAD_SECONDS": "0",
        **more,
    }
    if silicon is not None:
        found["LOCAL_SILICON"] = json.dumps(silicon)
    if faults is not None:
        found["LOCAL_FAULTS"] = json.dumps(faults)
    return found


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run one shim to its end; `silicon`, `faults` and environment variables by keyword."""

    def _run(*command: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            env=environment(tmp_path, **settings),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return _run


Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a command's `main` in this process, in the environment that `run` gives it: for refusals."""

    def _call(main: Callable[[list[str]], int], *arguments: str | Path, **settings: Any) -> Any:
        for name in set(os.environ):
            monkeypatch.delenv(name)
        for name, value in environment(tmp_path, **settings).items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        given = [str(argument) for argument in arguments]
        try:
            code = main(given)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        said = capfd.readouterr()
        return subprocess.CompletedProcess(given, code, said.out, said.err)

    return _call


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", seed=1)


def export_command(model: Path, output: Path, **flags: object) -> list[str | Path]:
    """The export as a compile pod runs it; `flags` replace or add."""
    given = {"instance_type": "trn2", "batch_size": 4, "sequence_length": 1024, "tensor_parallel_size": 4}
    command: list[str | Path] = ["optimum-cli", "export", "neuron", "-m", model]
    for name, value in (given | {"task": "text-generation"} | flags).items():
        command += [f"--{name}", str(value)]
    return [*command, output]


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model exported for four cores of trn2, batch 4, 1024 tokens."""
    folder = tmp_path_factory.mktemp("export")
    subprocess.run(
        export_command(checkpoint, folder / "model"),
        env=environment(folder, faults=NO_WAIT),
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    return folder / "model"


@dataclass
class Served:
    """A running server, its address and its log."""

    process: subprocess.Popen[str]
    url: str
    temporary: Path
    lines: Path = field(default_factory=Path)

    def log(self) -> str:
        return self.lines.read_text()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def start(command: list[str | Path], temporary: Path, **settings: Any) -> Served:
    """Start a server and wait until it listens; `settings` as for `run`."""
    log = temporary / "server.log"
    host = settings.get("LOCAL_POD_IP", "127.0.0.1")
    with reserved_port(host) as port:
        with log.open("w") as output:
            process = subprocess.Popen(
                [str(part) for part in [*command, "--port", str(port)]],
                env=environment(temporary, **({"silicon": TRN2} | settings)),
                stdout=output,
                stderr=output,
                text=True,
            )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex((host, port)) == 0:
                    return Served(process, f"http://{host}:{port}", temporary, log)
            time.sleep(0.05)
    process.kill()
    process.wait(PATIENCE)
    raise AssertionError(f"the server did not listen: {log.read_text()}")


@contextmanager
def starting_servers() -> Iterator[Callable[..., Served]]:
    """`start`, for as many servers as the block wants; they end with it."""
    started: list[Served] = []

    def remembered(*arguments: Any, **settings: Any) -> Served:
        started.append(start(*arguments, **settings))
        return started[-1]

    try:
        yield remembered
    finally:
        for served in started:
            served.process.kill()  # stopping takes a while, and has tests of its own
            served.process.wait(PATIENCE)


@pytest.fixture
def serve(exported: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serve the exported model; extra flags as arguments, environment by keyword."""
    command = ["optimum-cli", "neuron", "serve", "-m", exported, "--served-model-name", "tiny"]
    with starting_servers() as begin:
        yield lambda *flags, **settings: begin([*command, *flags], tmp_path, **settings)
