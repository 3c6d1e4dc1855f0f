"""Log lines in the shapes of the real tools, flushed at once: pods' logs are followed live."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime


def neuron(message: str, level: str = "INFO") -> None:
    """A line of the `Neuron` logger under Python's basic configuration."""
    print(f"{level}:Neuron:{message}", file=sys.stderr, flush=True)


def wrapper(message: str, level: str = "INFO", component: str = "NEURON_CC_WRAPPER") -> None:
    """A line of libneuronxla's compiler wrapper."""
    now = datetime.now()
    stamp = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:06d}"
    print(f"{stamp}:  {os.getpid()}  {level} ||{component}||: {message}", file=sys.stderr, flush=True)


def vllm(message: str, level: str = "INFO", place: str = "api_server.py:1814") -> None:
    """A line of vLLM's logger."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    print(f"(APIServer pid={os.getpid()}) {level} {stamp} [{place}] {message}", file=sys.stderr, flush=True)


def uvicorn(message: str, level: str = "INFO") -> None:
    """A line of uvicorn's logger."""
    print(f"(APIServer pid={os.getpid()}) {level}:     {message}", file=sys.stderr, flush=True)


def tgi(
    message: str, level: str = "INFO", *, target: str = "text_generation_launcher", thread: str = ""
) -> None:
    """A line of TGI's launcher or router: tracing's compact format."""
    now = datetime.now(UTC)
    span = f"{thread}: " if thread else ""
    print(f"{now:%Y-%m-%dT%H:%M:%S.%f}Z {level:>5} {span}{target}: {message}", flush=True)


class ToolError(Exception):
    """A failure that the real tool would show as a Python traceback; `kind` is its exception type."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def traceback(error: ToolError, *frames: str) -> None:
    """Print `error` as the interpreter would: frames are `module.py:line in function`."""
    print("Traceback (most recent call last):", file=sys.stderr)
    for frame in frames:
        place, _, function = frame.partition(" in ")
        file, _, line = place.rpartition(":")
        print(f'  File "{file}", line {line}, in {function}', file=sys.stderr)
    print(f"{error.kind}: {error}", file=sys.stderr, flush=True)
