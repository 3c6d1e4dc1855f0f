"""The compile job, in the zipapp, as AWS's images run it: without boto3 and trainyard installed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.pod import Pod
from tests.support.processes import left_of, processes
from tests.support.waiting import wait_for
from trainyard.errors import CompilerFailed, NotFound, OutOfMemory, PermanentError
from trainyard.jobs import compile as compile_job
from trainyard.jobs.runtime import EXIT_PERMANENT, EXIT_STOPPED, RESULT_PREFIX
from trainyard.store import keys
from trainyard.store.bundles import publish_bundle
from trainyard.store.models import ModelManifest
from trainyard.store.objects import Objects
from trainyard.store.staging import staged_result

PREFIX = keys.staging("f1", "try1")
COMPILER = """
import os, pathlib, sys
out = pathlib.Path(sys.argv[1])
print("\\x1b[32mcompiling\\x1b[0m", os.environ["FLAG"], flush=True)
for number in range(500):
    print("chatter", number)
print("WARNING: something odd")
assert pathlib.Path(os.environ["MODEL"], "config.json").read_text() == "{}"
(out / "checkpoint" / "weights").mkdir(parents=True)
(out / "config.json").write_text("{}")
(out / "checkpoint" / "weights" / "tp0.safetensors").write_bytes(b"w" * 100_000)
"""


@pytest.fixture
def job(store: Objects, model: ModelManifest, tmp_path: Path) -> dict[str, Any]:
    compiler = tmp_path / "compiler.py"
    compiler.write_text(COMPILER)
    return {
        "bucket": store.bucket,
        "fingerprint": "f1",
        "attempt": "try1",
        "staging": PREFIX,
        "model": model.key,
        "model_dir": str(tmp_path / "model"),
        "output_dir": str(tmp_path / "out"),
        "command": [sys.executable, str(compiler), str(tmp_path / "out")],
        "env": {"FLAG": "on", "MODEL": str(tmp_path / "model")},
        "cache_dir": str(tmp_path / "cache"),
        "log_key": "logs/f1/try1.log",
        "expect": ["config.json", "checkpoint/weights/*.safetensors"],
    }


def test_what_the_compiler_wrote_is_staged_and_can_be_published(
    pod: Pod, job: dict[str, Any], store: Objects, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale").write_text("from an earlier try")
    lock = tmp_path / "cache" / "MODULE_1" / "model.hlo_module.pb.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    code, output = pod.run("compile", job)
    assert code == 0, output
    assert json.loads(output.splitlines()[-1].removeprefix(RESULT_PREFIX))["files"] == 2
    # Chatter stays out of the pod's log; warnings do not, and all of it is kept in S3.
    assert "WARNING: something odd" in output
    assert "chatter 7" not in output
    assert b"chatter 499" in store.get("logs/f1/try1.log").body
    assert not lock.exists()
    published = publish_bundle(store, "f1", PREFIX, inputs={}, engine="optimum", versions={}, target="trn2")
    assert [entry.path for entry in published.manifest.files] == [
        "checkpoint/weights/tp0.safetensors",
        "config.json",
    ]
    assert published.manifest.log_key == "logs/f1/try1.log"


def failing(job: dict[str, Any], code: str) -> dict[str, Any]:
    return {**job, "command": [sys.executable, "-c", code]}


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("import sys; sys.exit(70)", CompilerFailed, ["code 70", "logs/f1"]),
        ("import os; os.kill(os.getpid(), 9)", OutOfMemory, ["SIGKILL", "raise the compile pod's memory"]),
        ("import sys; sys.exit(137)", OutOfMemory, ["memory"]),
        ("import os; os.abort()", CompilerFailed, ["signal 6"]),
        ("print('all good')", PermanentError, ["config.json", "wrote: nothing", "all good"]),
        (
            "import os; os.symlink('/etc/passwd', os.environ['MODEL'] + '/../out/config.json')",
            PermanentError,
            ["link"],
        ),
    ],
)
def test_a_compile_that_fails_says_how_and_stages_nothing(
    job: dict[str, Any],
    store: Objects,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    error: type[Exception],
    words: list[str],
) -> None:
    monkeypatch.setattr(compile_job, "open_store", lambda _: store)
    with pytest.raises(error) as caught:
        compile_job.run(failing(job, code))
    for word in words:
        assert word in str(caught.value)
    with pytest.raises(NotFound):
        store.get(staged_result(PREFIX))
    assert store.head("logs/f1/try1.log")


def test_the_kubelet_is_told_how_the_compiler_ended(pod: Pod, job: dict[str, Any]) -> None:
    code, output = pod.run("compile", failing(job, "import sys; print('line of doom'); sys.exit(70)"))
    assert code == EXIT_PERMANENT, output
    told = pod.told()
    assert (told["error"], told["exit_code"]) == ("CompilerFailed", 70)
    assert "line of doom" in told["message"]


def test_a_command_that_does_not_exist_is_no_mystery(
    job: dict[str, Any], store: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_job, "open_store", lambda _: store)
    with pytest.raises(PermanentError, match="engine's own"):
        compile_job.run({**job, "command": ["no-such-compiler"]})


def test_stopping_the_pod_stops_the_whole_compiler(
    pod: Pod, job: dict[str, Any], store: Objects, tmp_path: Path
) -> None:
    children = tmp_path / "children"
    code = (
        "import subprocess, sys, time, os\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(children)!r} + '.new', 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(children)!r} + '.new', {str(children)!r})\n"
        "time.sleep(600)"
    )
    process = pod.start("compile", failing(job, code))
    wait_for(children.exists)
    compiler = processes(map(int, children.read_text().split()))
    assert len(compiler) == 2
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_STOPPED, output
    assert left_of(compiler) == []
    assert store.head("logs/f1/try1.log")


def test_the_log_is_in_s3_while_the_compiler_still_runs(
    job: dict[str, Any], store: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_job, "open_store", lambda _: store)
    monkeypatch.setattr(compile_job, "LOG_SECONDS", 0.05)
    gate, seen = tmp_path / "gate", []
    os.mkfifo(gate)

    def look() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not seen:
            found = store.get_or_none("logs/f1/try1.log")
            # The line and its end may be written one after the other.
            seen.extend([found.body] if found and found.body.endswith(b"\n") else [])
        gate.write_text("go on")

    looking = threading.Thread(target=look)
    looking.start()
    with pytest.raises(CompilerFailed, match="code 3"):
        compile_job.run(
            failing(job, f"print('early', flush=True); open({str(gate)!r}).read(); raise SystemExit(3)")
        )
    looking.join()
    assert seen == [b"early\n"]
