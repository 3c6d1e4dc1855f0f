"""Runs an engine's compiler in AWS's own image and stages what it wrote in S3; `result.json` comes last.

Nothing is compiled that is there already: our bundle ends the job, S3's compile cache and the Hub's spare the
graphs that they hold.
"""

from __future__ import annotations

import fnmatch
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainyard.errors import CompileStalled, PermanentError, TrainyardError
from trainyard.jobs import cache_hygiene, compile_cache
from trainyard.jobs.cache_transfer import CacheReport
from trainyard.jobs.command import Finished
from trainyard.jobs.compile_cache import Session
from trainyard.jobs.compiler_run import STALL_SECONDS, Compiler, Limits, Ran
from trainyard.jobs.hub_lookup import SECONDS as LOOKUP_SECONDS
from trainyard.jobs.hub_lookup import look_up
from trainyard.jobs.materialise import open_cache
from trainyard.jobs.progress import Progress
from trainyard.jobs.runtime import field, open_store
from trainyard.store import keys, transfer
from trainyard.store.bundles import bundle_usable
from trainyard.store.compile_history import append_history
from trainyard.store.documents import timestamp
from trainyard.store.objects import Objects
from trainyard.store.staging import StagedResult, stage_tree, staged_result, write_result
from trainyard.store.trees import materialise, read_tree

# How often a growing log is sent.
LOG_SECONDS = 60.0
log = logging.getLogger(__name__)


class Published(Exception):
    """The bundle appeared while this job waited."""


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Job: {"bucket", "fingerprint", "attempt", "staging": prefix, "model": manifest key | null,
    "model_sha256": of that manifest | null, "model_dir", "output_dir", "command": [...],
    "env": {...}, "log_key", "expect": [globs]}, and, all optional:
    "until": words of the line that ends a command which does not end itself,
    "bundle": manifest key, "cache": {...} (see compile_cache.Options), "lookup": {"command", "env",
    "seconds"}, "deadline": {"seconds", "learned", "why"}, "stall_seconds", "history": {"key", "shape"}.

    Result: {"staging", "result": key, "files", "bytes", "seconds", "log_key", "compile": {...}}; or
    {"published": manifest key} where the bundle is there already.
    Raises CompilerFailed, OutOfMemory, CompileStalled, LeaseHeld (another pod compiles the same for longer
    than this one may wait), PermanentError (expected outputs missing).
    """
    fingerprint = keys.check_id("fingerprint", field(job, "fingerprint", str))
    attempt = keys.check_id("attempt", field(job, "attempt", str))
    prefix = field(job, "staging", str, keys.staging(fingerprint, attempt))
    if not prefix.endswith("/"):
        prefix += "/"
    output = Path(field(job, "output_dir", str))
    bundle = field(job, "bundle", str, None)
    options = compile_cache.options_of(job)
    objects = open_store(job)
    # A listing that an earlier try left does not describe what this one is about to write.
    objects.delete(staged_result(prefix))

    def stop_if_published() -> None:
        if bundle is not None and _is_there(objects, fingerprint):
            raise Published

    try:
        stop_if_published()
        _bring_model(objects, job)
        _clear(output)
        session = Session(objects, options, attempt, poll=stop_if_published)
        with session.open() as report:
            stop_if_published()
            details = _Details(report)
            ran = _compile(objects, job, options.dir, details)
            if options.kind == "vllm":
                report.broken += cache_hygiene.drop_unfinished(output)
            files = _outputs(output, field(job, "expect", list, []), ran.finished)
            session.keep()
    except Published:
        log.info("%s is published already: nothing to compile", bundle)
        return {"published": bundle}
    total = sum((output / path).stat().st_size for path in files)
    with Progress("stage", total, len(files)) as progress:
        entries, held = stage_tree(objects, prefix, output, files, progress=progress.add)
    log_key = field(job, "log_key", str, None)
    staged = StagedResult(fingerprint, attempt, entries, round(ran.seconds, 3), log_key, held)
    told = {**details.to_json(ran), "deadline": field(job, "deadline", dict, {})}
    write_result(objects, prefix, staged, {"compile": told})
    return {
        "staging": prefix,
        "result": staged_result(prefix),
        "files": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "seconds": staged.seconds,
        "log_key": log_key,
        "compile": told,
    }


def _is_there(objects: Objects, fingerprint: str) -> bool:
    """A store that does not say costs a compile that was not needed, no more."""
    try:
        return bundle_usable(objects, fingerprint)
    except TrainyardError as error:
        log.warning("cannot see whether bundle %s is published: %s", fingerprint, error)
        return False


class _Details:
    """What the task's note and the record tell of a compile."""

    def __init__(self, report: CacheReport) -> None:
        self.report, self.hub = report, ""

    def to_json(self, ran: Ran) -> dict[str, Any]:
        return {
            "graphs": ran.summary.to_json(),
            "cache": self.report.to_json(),
            "hub": self.hub,
            "retried": ran.retried,
            "seconds": round(ran.seconds, 3),
        }


def _bring_model(objects: Objects, job: dict[str, Any]) -> None:
    manifest = field(job, "model", str, None)
    if manifest is None:
        return
    into = Path(field(job, "model_dir", str))
    tree = read_tree(objects, manifest, sha256=field(job, "model_sha256", str, None))
    cache = open_cache(job)
    with Progress(f"materialise {manifest}", tree.size, len(tree.wanted)) as progress:
        materialise(objects, tree, into, progress=progress.add, cache=cache)


def _clear(output: Path) -> None:
    """Empty the folder: what an earlier try left there was compiled by nobody knows what."""
    output.mkdir(parents=True, exist_ok=True)
    for old in output.iterdir():
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()


def _compile(objects: Objects, job: dict[str, Any], cache: Path | None, details: _Details) -> Ran:
    log_key, log_file = field(job, "log_key", str, None), _log_file(job)
    environment = _texts(field(job, "env", dict, {}))
    if cache is not None:
        environment["NEURON_COMPILE_CACHE_URL"] = str(cache)
    if _look_up(job, details):
        environment.pop("HF_HUB_OFFLINE", None)
    limits = _limits(job)
    compiler = Compiler(
        _words(job, "command"),
        environment,
        log_file,
        cache=cache,
        limits=limits,
        log_place=f"s3://{objects.bucket}/{log_key}",
        until=field(job, "until", str, ""),
    )
    log_file.unlink(missing_ok=True)
    try:
        with _kept_log(objects, log_file, log_key):
            ran = compiler.run()
    except CompileStalled:
        if limits.learned and limits.seconds and compiler.seconds >= limits.seconds:
            _remember(objects, job, limits.seconds, "cut")
        raise
    # What a cache gave says nothing about how long a compile takes.
    if ran.summary.from_scratch and not details.report.brought and details.hub != "hit":
        _remember(objects, job, ran.seconds, "good")
    return ran


def _look_up(job: dict[str, Any], details: _Details) -> bool:
    """Asks the Hub's cache, unless ours had something. True: it has entries that the compiler may take."""
    given = field(job, "lookup", dict, None)
    if given is None or details.report.brought:
        return False
    seconds = float(field(given, "seconds", (int, float), LOOKUP_SECONDS))
    answer = look_up(_words(given, "command"), _texts(field(given, "env", dict, {})), seconds)
    details.hub = answer.outcome
    log.info("the Hub's compile cache: %s (%s)", answer.outcome, answer.words)
    return answer.outcome == "hit"


def _limits(job: dict[str, Any]) -> Limits:
    given = field(job, "deadline", dict, {})
    seconds = field(given, "seconds", (int, float), None)
    return Limits(
        None if seconds is None else float(seconds),
        field(given, "learned", bool, False),
        float(field(job, "stall_seconds", (int, float), STALL_SECONDS)),
    )


def _remember(objects: Objects, job: dict[str, Any], seconds: float, outcome: str) -> None:
    """Adds this compile to the history that deadlines are learned from. Failing at that fails nothing."""
    given = field(job, "history", dict, None)
    if given is None:
        return
    sample = {
        "shape": field(given, "shape", dict),
        "seconds": round(seconds, 3),
        "outcome": outcome,
        "at": timestamp(time.time()),
        "attempt": field(job, "attempt", str),
    }
    try:
        append_history(objects, field(given, "key", str), sample)
    except TrainyardError as error:
        log.warning("cannot remember how long this compile took: %s", error)


def _log_file(job: dict[str, Any]) -> Path:
    return Path(tempfile.gettempdir()) / f"compile-{field(job, 'attempt', str)}.log"


def _words(job: Mapping[str, Any], name: str) -> list[str]:
    command: list[str] = field(job, name, list)
    if not command or not all(isinstance(word, str) for word in command):
        raise PermanentError(f"TRAINYARD_JOB: {name} is {command!r}, not a list of texts.")
    return command


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in values.items()}


@contextmanager
def _kept_log(objects: Objects, log_file: Path, log_key: str | None) -> Iterator[None]:
    """The log goes to S3 however the block ends, and now and then before: where the kernel kills the whole
    container for its memory, nobody is left to send it."""
    ended = threading.Event()

    def keep() -> None:
        sent = 0
        while not ended.wait(LOG_SECONDS):
            size = log_file.stat().st_size if log_file.exists() else 0
            if size != sent:
                _keep_log(objects, log_file, log_key)
                sent = size

    thread = threading.Thread(target=keep, name="keep-log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5.0)
        _keep_log(objects, log_file, log_key)


def _keep_log(objects: Objects, log_file: Path, log_key: str | None) -> None:
    """Failing to keep the log must not hide how the compile ended."""
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
