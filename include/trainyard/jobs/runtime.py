"""Runs a job: input from TRAINYARD_JOB, plain log lines on stdout, one result line, exit codes that a caller
can read.

    0    done; a line `trainyard-result: {...}`
    65   permanent error: trying again cannot help (EX_DATAERR)
    75   transient error: try again later (EX_TEMPFAIL)
    143  stopped by SIGTERM, after cleaning up
    1    a defect: traceback on stdout

Errors also go, as `{"error": CLASS, "message": TEXT}`, to the file that TRAINYARD_TERMINATION_LOG names,
where the kubelet picks them up for the pod's status.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from trainyard.errors import PermanentError, PodFailed, TrainyardError, TransientError

JOBS = ("fetch", "compile", "materialise", "install", "loadtest", "warmup", "probe")
RESULT_PREFIX = "trainyard-result: "
EXIT_PERMANENT, EXIT_TRANSIENT, EXIT_STOPPED, EXIT_DEFECT = 65, 75, 143, 1
# Kubernetes keeps 4096 bytes of a termination message; JSON escapes take their part.
MESSAGE_BYTES = 3 << 10

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|ACCESS_KEY|API_KEY", re.IGNORECASE)
log = logging.getLogger("trainyard.jobs")


class Stopped(BaseException):
    """SIGTERM arrived. Not an Exception: no handler of ordinary errors may swallow it."""


class HideSecrets(logging.Filter):
    """Replaces the values of secret-looking environment variables in every line."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        found = {
            value for name, value in environment.items() if _SECRET_NAME.search(name) and len(value) >= 6
        }
        self.secrets = sorted(found, key=len, reverse=True)

    def hide(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self.hide(record.getMessage()), None
        return True


def main(name: str, arguments: list[str]) -> int:
    """Run job `name`; returns the exit code. `arguments`: one JSON object, instead of TRAINYARD_JOB."""
    # A job makes few circles: looking for them at Python's usual pace took a tenth of its start.
    gc.set_threshold(50_000, 20, 100)
    # With `awscrt` there for its checksum botocore would sign through it too, and copy each body for that.
    os.environ.setdefault("BOTO_DISABLE_CRT", "true")
    hide = _set_up_logging()
    signal.signal(signal.SIGTERM, _stop)
    try:
        result = load(name).run(read_job(name, arguments))
    except TrainyardError as error:
        text = hide.hide(str(error))
        log.error("%s: %s", type(error).__name__, text)
        _tell(error, text)
        return EXIT_TRANSIENT if isinstance(error, TransientError) else EXIT_PERMANENT
    except (Stopped, KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        log.warning("stopped by a signal")
        _leave(EXIT_STOPPED)
    except Exception as error:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-6)
        log.error("job %s failed unexpectedly\n%s", name, "".join(lines).rstrip())
        _tell(error, hide.hide(f"unexpected {type(error).__name__}: {error}"))
        return EXIT_DEFECT
    print(hide.hide(RESULT_PREFIX + json.dumps(result, sort_keys=True)), flush=True)
    return 0


def load(name: str) -> Any:
    """The job's module. Raises PermanentError if there is no such job here."""
    if name not in JOBS:
        raise PermanentError(f"{name!r} is no job. Jobs are: {', '.join(JOBS)}.")
    if name not in ("probe", "install"):
        from trainyard.jobs.vendor import provide

        provide()
    try:
        return importlib.import_module(f"trainyard.jobs.{name}")
    except ModuleNotFoundError as error:
        raise PermanentError(
            f"Job {name} needs the module {error.name!r}, which this image lacks. Run it in trainyard's own "
            "job image."
        ) from error


def read_job(name: str, arguments: list[str]) -> dict[str, Any]:
    """The job's input. Raises PermanentError if there is none, or it is no JSON object."""
    text = arguments[0] if arguments else os.environ.get("TRAINYARD_JOB", "")
    try:
        job = json.loads(text)
    except ValueError as error:
        raise PermanentError(
            f"TRAINYARD_JOB is no JSON ({error}). Job {name} wants a JSON object there."
        ) from error
    if not isinstance(job, dict):
        raise PermanentError(
            f"TRAINYARD_JOB is a JSON {type(job).__name__}. Job {name} wants a JSON object there."
        )
    return job


def field(job: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
    """Field `name` of a job's input, checked. Raises PermanentError."""
    value = job.get(name)
    if value is None and default is not ...:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = kind.__name__ if isinstance(kind, type) else " or ".join(one.__name__ for one in kind)
        raise PermanentError(f"TRAINYARD_JOB: field {name!r} is {value!r}, not {wanted}.")
    return value


def open_store(job: Mapping[str, Any], **options: Any) -> Any:
    """The bucket that the job names, with the pod's own credentials. options: of `store.objects.client`."""
    from trainyard.store.objects import Objects, client

    return Objects(client(**options), field(job, "bucket", str))


def termination(error: BaseException, text: str) -> str:
    """JSON for the termination log, cut in the middle so that what went wrong and the last log lines both
    stay."""
    encoded = text.encode()
    if len(encoded) > MESSAGE_BYTES:
        head, tail = encoded[: MESSAGE_BYTES // 3], encoded[-MESSAGE_BYTES * 2 // 3 :]
        text = head.decode(errors="ignore") + "\n...\n" + tail.decode(errors="ignore")
    document: dict[str, Any] = {"error": type(error).__name__, "message": text}
    if isinstance(error, TransientError) and error.retry_after is not None:
        document["retry_after"] = error.retry_after
    if isinstance(error, PodFailed) and error.exit_code is not None:
        document["exit_code"] = error.exit_code
    return json.dumps(document, ensure_ascii=False)


def _tell(error: BaseException, text: str) -> None:
    path = os.environ.get("TRAINYARD_TERMINATION_LOG")
    if not path:
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(termination(error, text))
    except OSError as problem:
        log.warning("cannot write the termination log: %s", problem)


def _stop(*_: object) -> None:
    raise Stopped


def _leave(code: int) -> None:
    """Exit without waiting for threads that still talk to S3: the kubelet would kill us first."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _set_up_logging() -> HideSecrets:
    hide = HideSecrets(os.environ)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.addFilter(hide)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("botocore", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return hide
