"""Asks the Hub's cache of compiled models through the engine's own tool. It may help; it may never hurt."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

SECONDS = 60.0
MOST_OUTPUT = 64 << 10
_COUNTED = re.compile(r"\b(\d{1,9}) entrie\(s\) found in cache for [^\s*]{1,200}")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """hit: there are entries of this configuration; unreachable: nobody could say."""

    outcome: Literal["hit", "miss", "unreachable"]
    words: str


def look_up(command: Sequence[str], environment: Mapping[str, str], seconds: float = SECONDS) -> Answer:
    """Runs the look-up for `seconds` at most. Never raises for what the tool or the network does."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                list(command),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Answer("unreachable", f"cannot run {command[0]}: {error}")
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return Answer("unreachable", f"no answer in {seconds:.0f} s")
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        text = output.read(MOST_OUTPUT).decode("utf-8", "replace")
    return read_answer(code, text)


def read_answer(code: int, text: str) -> Answer:
    """`optimum-cli neuron cache lookup` prints a table, or says that it found nothing. Before 0.4 it counts
    the entries of any shape: then a hit means that a look is worth it, no more."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if code:
        return Answer("unreachable", f"exit code {code}: {lines[-1][:300] if lines else 'no output'}")
    for line in lines:
        if line.startswith("No cached entries found"):
            return Answer("miss", line[:300])
    counted = next((found for line in lines if (found := _COUNTED.search(line))), None)
    if counted is not None:
        return Answer("hit" if int(counted[1]) else "miss", counted[0])
    title = next((number for number, line in enumerate(lines) if line.startswith("Cached entries for")), None)
    if title is None or len(lines) < title + 3:
        return Answer("miss", "the tool's answer holds no entries")
    row = next((line for line in reversed(lines) if any(letter.isdigit() for letter in line)), "")
    return Answer("hit", f"{lines[title][:200]}: {' '.join(row.split())[:100]}")
