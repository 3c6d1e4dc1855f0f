"""Traces of real traffic: JSONL, one request a line.

Two shapes are taken, and mixed fields of both. Mooncake's (kvcache-ai/Mooncake, FAST'25 release):
`{"timestamp": milliseconds, "input_length", "output_length", "hash_ids": [...]}`, where each id stands for a
block of 512 tokens and requests whose lists begin alike share that beginning. And a plain one:
`{"prompt_tokens", "output_tokens", "at": seconds, "prompt": text}`. Any of it may be left out; what no line
says is the workload's to say. Unknown fields are passed over: published traces have several.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainyard.bench.checking import is_number, shown
from trainyard.bench.shapes import MOST_TOKENS
from trainyard.errors import Problem, Refused

BLOCK_TOKENS = 512  # that one of Mooncake's ids stands for
MAX_BYTES = 64 << 20
MAX_LINES = 250_000
MAX_PROMPT_CHARACTERS = 4 << 20
LATEST = 1e14  # milliseconds since 1970 are below it for some thousand years
MOST_PROBLEMS = 20  # of a trace that is wrong everywhere

_PROMPT = ("prompt_tokens", "input_length", "input_tokens")
_OUTPUT = ("output_tokens", "output_length")


@dataclass(frozen=True)
class Row:
    """One request. at: seconds after the first one. None, "" and (): the trace does not say."""

    at: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    prompt: str = ""
    blocks: tuple[int | str, ...] = ()

    @property
    def asks(self) -> int | None:
        """Tokens of the prompt, as far as the row knows; of a text its words, which are fewer."""
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        return len(self.blocks) * BLOCK_TOKENS or len(self.prompt.split()) or None


@dataclass(frozen=True)
class Trace:
    """rows: in order of time. digest: SHA-256 of the file, in hex."""

    rows: tuple[Row, ...]
    digest: str

    @property
    def timed(self) -> bool:
        return self.rows[0].at is not None

    @property
    def seconds(self) -> float:
        return self.rows[-1].at or 0.0

    def longest_prompt(self, otherwise: int) -> int:
        """Tokens. otherwise: of rows that do not say."""
        return max(row.asks or otherwise for row in self.rows)

    def longest_request(self, prompt: int, output: int) -> int:
        """Tokens of prompt and answer. prompt, output: of rows that do not say."""
        return max((row.asks or prompt) + (row.output_tokens or output) for row in self.rows)


def read_trace(path: str | Path) -> Trace:
    """Raises Refused, with line numbers."""
    path = Path(path)
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        raise Refused(Problem("trace", str(path)[:200], f"cannot be read ({error})", "Name a file")) from None
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(2)  # a run asks for it several times
def _read(path: Path, changed: int, size: int) -> Trace:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Refused(Problem("trace", str(path), f"cannot be read ({error})", "Name a file")) from None
    return parse_trace(data, path.name)


def parse_trace(data: bytes, name: str = "trace") -> Trace:
    """Never fails in another way than by Refused, which names `name` and the lines."""
    if len(data) > MAX_BYTES:
        rule = f"is larger than {MAX_BYTES >> 20} MiB"
        raise Refused(Problem(name, f"{len(data)} bytes", rule, "Take a part of it"))
    rows: list[Row] = []
    problems: list[Problem] = []
    lines = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        lines += 1
        if lines > MAX_LINES:
            problems.append(
                Problem(f"{name}:{number}", lines, f"has more than {MAX_LINES} requests", "Take a part of it")
            )
            break
        found = _row(line, f"{name}:{number}")
        if isinstance(found, Row):
            rows.append(found)
            # Either all rows have a moment or none: a gap in a replay cannot be guessed.
            if (found.at is None) != (rows[0].at is None):
                found = [
                    Problem(
                        f"{name}:{number}",
                        shown(found.at),
                        "all requests have a moment (at, timestamp) or none has",
                        "Add the missing ones, or take them all away",
                    )
                ]
        if isinstance(found, list):
            problems += found
        if len(problems) >= MOST_PROBLEMS:
            break
    if not rows and not problems:
        problems.append(Problem(name, "", "holds no request", "One JSON object a line"))
    if problems:
        raise Refused(problems[:MOST_PROBLEMS])
    if rows[0].at is not None:
        first = min(row.at or 0.0 for row in rows)
        rows = sorted((_later(row, first) for row in rows), key=lambda row: row.at or 0.0)
    return Trace(tuple(rows), hashlib.sha256(data).hexdigest())


def _later(row: Row, first: float) -> Row:
    return Row(
        round((row.at or 0.0) - first, 6), row.prompt_tokens, row.output_tokens, row.prompt, row.blocks
    )


def _row(line: bytes, where: str) -> Row | list[Problem]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:120]
        return [Problem(where, line[:60].decode("utf-8", "replace"), f"is no JSON: {reason}", "Correct it")]
    if not isinstance(document, dict):
        return [Problem(where, shown(document), "is no JSON object", "One object a line")]
    problems: list[Problem] = []
    prompt_tokens = _tokens(document, _PROMPT, 1, where, problems)
    output_tokens = _tokens(document, _OUTPUT, 0, where, problems)
    at = _moment(document, where, problems)
    prompt = document.get("prompt", "")
    if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT_CHARACTERS or _torn(prompt):
        rule = f"must be a text of at most {MAX_PROMPT_CHARACTERS} characters"
        problems.append(Problem(f"{where}: prompt", shown(prompt), rule, "Correct it, or leave it out"))
    blocks = _blocks(document, prompt_tokens, where, problems)
    if problems:
        return problems
    # Some answers of published traces have no token, and no server takes a limit of none.
    return Row(
        at, prompt_tokens, max(1, output_tokens) if output_tokens is not None else None, prompt, blocks
    )


def _tokens(
    document: Mapping[str, Any], names: tuple[str, ...], least: int, where: str, problems: list[Problem]
) -> int | None:
    name = next((name for name in names if name in document), None)
    if name is None:
        return None
    value = document[name]
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST_TOKENS:
        return value
    rule = f"must be a whole number from {least} to {MOST_TOKENS}"
    problems.append(Problem(f"{where}: {name}", shown(value), rule, "Correct it, or leave it out"))
    return None


def _moment(document: Mapping[str, Any], where: str, problems: list[Problem]) -> float | None:
    name = "at" if "at" in document else "timestamp"
    if name not in document:
        return None
    value = document[name]
    if is_number(value) and abs(value) <= LATEST:
        return float(value) if name == "at" else value / 1000
    unit = "seconds" if name == "at" else "milliseconds"
    problems.append(Problem(f"{where}: {name}", shown(value), f"must be a number of {unit}", "Correct it"))
    return None


def _blocks(
    document: Mapping[str, Any], tokens: int | None, where: str, problems: list[Problem]
) -> tuple[int | str, ...]:
    given = document.get("hash_ids") or []
    kinds = set(map(type, given)) if isinstance(given, list) else {list}
    if kinds <= {int, str} and not (str in kinds and any(_torn(str(item)) for item in given)):
        if tokens is None or len(given) <= math.ceil(tokens / BLOCK_TOKENS):
            return tuple(given)
        rule = f"are too many for {tokens} tokens: an id stands for {BLOCK_TOKENS}"
        remedy = "Make the ids of blocks of that size, or leave hash_ids out"
    else:
        rule, remedy = "must be a list of numbers or texts", "Correct it, or leave it out"
    problems.append(Problem(f"{where}: hash_ids", shown(given), rule, remedy))
    return ()


def _torn(text: str) -> bool:
    """Half a surrogate pair: JSON can say it, and no request can carry it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def place_of(name: str, bucket: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`, or of a key below our `bucket`. Raises Refused."""
    found, key = bucket, name
    if name.startswith("s3://"):
        found, _, key = name.removeprefix("s3://").partition("/")
    if not found or not key or key.startswith("/") or key.endswith("/"):
        remedy = "Such as s3://bucket/traces/friday.jsonl, or traces/friday.jsonl in our own bucket"
        raise Refused(Problem("trace", name, "names no object in S3", remedy))
    return found, key
