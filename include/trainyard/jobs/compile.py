"""Runs an engine's compiler in AWS's own image and stages what it wrote in S3; `result.json` comes last."""

from __future__ import annotations

import fnmatch
import logging
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from trainyard.errors import CompilerFailed, OutOfMemory, PermanentError, TrainyardError
from trainyard.jobs.command import Finished, clear_stale_locks, run_command
from trainyard.jobs.progress import Progress
from trainyard.jobs.runtime import field, open_store
from trainyard.store import keys, transfer
from trainyard.store.bundles import StagedResult, staged_file, staged_result
from trainyard.store.documents import encode
from trainyard.store.manifests import FileEntry
from trainyard.store.objects import Objects
from trainyard.store.parallel import Stop, run_all
from trainyard.store.trees import materialise, read_files

PARALLEL = 4
log = logging.getLogger(__name__)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Job: {"bucket", "fingerprint", "attempt", "staging": prefix, "model": manifest key | null, "model_dir",
    "output_dir", "command": [...], "env": {...}, "cache_dir" | null, "log_key", "expect": [globs]}.

    Result: {"staging", "result": key, "files", "bytes", "seconds", "log_key"}.
    Raises CompilerFailed, OutOfMemory, PermanentError (expected outputs missing).
    """
    fingerprint = keys.check_id("fingerprint", field(job, "fingerprint", str))
    attempt = keys.check_id("attempt", field(job, "attempt", str))
    prefix = field(job, "staging", str, keys.staging(fingerprint, attempt))
    if not prefix.endswith("/"):
        prefix += "/"
    output = Path(field(job, "output_dir", str))
    log_key = field(job, "log_key", str, None)
    objects = open_store(job)
    # A listing that an earlier try left does not describe what this one is about to write.
    objects.delete(staged_result(prefix))
    _bring_model(objects, job)
    _clear(output)
    finished = _compile(objects, job, output, log_key)
    files = _outputs(output, field(job, "expect", list, []), finished)
    entries = _stage(objects, prefix, output, files)
    staged = StagedResult(fingerprint, attempt, tuple(sorted(entries)), round(finished.seconds, 3), log_key)
    objects.put(staged_result(prefix), encode(staged.to_json()))
    return {
        "staging": prefix,
        "result": staged_result(prefix),
        "files": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "seconds": staged.seconds,
        "log_key": log_key,
    }


def _bring_model(objects: Objects, job: dict[str, Any]) -> None:
    manifest = field(job, "model", str, None)
    if manifest is None:
        return
    into = Path(field(job, "model_dir", str))
    files = read_files(objects, manifest)
    with Progress(f"materialise {manifest}", sum(entry.size for entry in files), len(files)) as progress:
        materialise(objects, manifest, into, progress=progress.add)


def _clear(output: Path) -> None:
    """Empty the folder: what an earlier try left there was compiled by nobody knows what."""
    output.mkdir(parents=True, exist_ok=True)
    for old in output.iterdir():
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()


def _compile(objects: Objects, job: dict[str, Any], output: Path, log_key: str | None) -> Finished:
    command = field(job, "command", list)
    if not command or not all(isinstance(word, str) for word in command):
        raise PermanentError(f"TRAINYARD_JOB: command is {command!r}, not a list of texts.")
    environment = field(job, "env", dict, {})
    cache = field(job, "cache_dir", str, None)
    if cache:
        Path(cache).mkdir(parents=True, exist_ok=True)
        clear_stale_locks(Path(cache))
    log_file = Path(tempfile.gettempdir()) / f"compile-{field(job, 'attempt', str)}.log"
    try:
        finished = run_command(
            command, {str(name): str(value) for name, value in environment.items()}, log_file
        )
    finally:
        _keep_log(objects, log_file, log_key)
    if finished.code == 0:
        return finished
    told = f"after {finished.seconds:.0f} s; the whole log is s3://{objects.bucket}/{log_key}"
    if finished.code in (-9, 137):
        raise OutOfMemory(
            f"{command[0]} was killed by SIGKILL {told}. Most likely it ran out of memory: raise the compile "
            "pod's "
            "memory in the release's spec.",
            reason="OOMKilled",
            exit_code=137,
            log=finished.tail,
        )
    if finished.code < 0:
        raise CompilerFailed(
            f"{command[0]} was killed by signal {-finished.code} {told}.",
            reason="Error",
            exit_code=128 - finished.code,
            log=finished.tail,
        )
    raise CompilerFailed(
        f"{command[0]} exited with code {finished.code} {told}.",
        reason="Error",
        exit_code=finished.code,
        log=finished.tail,
    )


def _keep_log(objects: Objects, log_file: Path, log_key: str | None) -> None:
    """The log goes to S3 however the compile ended; failing to keep it must not hide how it ended."""
    if log_key is None or not log_file.exists():
        return
    try:
        transfer.upload_file(objects, log_file, log_key)
    except (TrainyardError, OSError) as error:
        log.warning("cannot keep the compiler's log: %s", error)


def _outputs(output: Path, expect: list[str], finished: Finished) -> list[Path]:
    """Relative paths of everything the compiler wrote. Raises PermanentError if something expected is not
    among it."""
    found = []
    for path in sorted(output.rglob("*")):
        if path.is_symlink():
            raise PermanentError(
                f"The compiler left a symlink, {path.relative_to(output)}: bundles hold plain files."
            )
        if path.is_file():
            found.append(path.relative_to(output))
    names = [path.as_posix() for path in found]
    missing = [pattern for pattern in expect if not fnmatch.filter(names, pattern)]
    if missing or not found:
        last = "\n".join(finished.tail[-5:])
        raise PermanentError(
            f"The compiler exited with 0, but wrote no {', '.join(missing) or 'files'} to {output} "
            f"(it wrote: {', '.join(names[:10]) or 'nothing'}). Check the engine's version and flags.\n{last}"
        )
    return found


def _stage(objects: Objects, prefix: str, output: Path, files: list[Path]) -> list[FileEntry]:
    """Upload, hashing on the way."""
    stop = Stop()
    total = sum((output / path).stat().st_size for path in files)
    with Progress("stage", total, len(files)) as progress:

        def sent(size: int) -> None:
            stop.check()
            progress.add(size)

        def send(path: Path) -> FileEntry:
            name = keys.check_path("file", path.as_posix())
            done = transfer.upload_file(objects, output / path, staged_file(prefix, name), progress=sent)
            progress.finish_file()
            return FileEntry(name, done.size, done.sha256)

        return run_all([partial(send, path) for path in files], PARALLEL, stop)
