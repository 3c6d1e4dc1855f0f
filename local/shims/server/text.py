"""Tokens and text: how prompts are counted, and what the "model" says.

A token is up to twelve characters of a word with the white space before it. That is coarser than the
byte-level tokenizer of the tiny checkpoints, and the same for prompts, completions, usage and /tokenize.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOKEN = re.compile(r"\s*\S{1,12}|\s+$")
WORDS = re.findall(
    r"\w+",
    """
    the a this that each some train yard signal track engine coal steam rail bridge river valley morning
    evening light small large early late slow fast bright quiet open closed north south east west goes
    comes waits turns carries brings leaves finds keeps holds makes takes gives moves stands runs and or
    but while because before after over under near through along across between
    """,
)
SAMPLE_BYTES = 1024 * 1024


def tokens(text: str) -> list[str]:
    """The pieces that `text` is counted in; joined they are `text` again."""
    return TOKEN.findall(text)


def chat_prompt(messages: list[dict[str, Any]]) -> str:
    """Messages as the checkpoints' chat template renders them; parts of a message are joined by new lines."""
    lines = []
    for message in messages:
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "\n".join(str(part.get("text", "")) for part in content)
        lines.append(f"<|{message.get('role', 'user')}|>\n{content}\n")
    return "".join(lines) + "<|assistant|>\n"


def weights_digest(files: list[Path]) -> str:
    """SHA-256 over these weights: all of small files, the ends of large ones."""
    digest = hashlib.sha256()
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if size <= 64 * SAMPLE_BYTES:
                digest.update(file.read())
            else:
                digest.update(file.read(SAMPLE_BYTES))
                file.seek(-SAMPLE_BYTES, 2)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def completion(
    digest: str, prompt: str, seed: int, *, natural_end: bool = True, shortest: int = 0
) -> Iterator[str]:
    """The tokens that these weights answer `prompt` with, one after the other; the same ones every time.

    With `natural_end` the text ends by itself after 24 to 384 tokens, and not before `shortest`; else never.
    """
    source = hashlib.sha256(f"{digest}\0{seed}\0{prompt}".encode()).digest()
    chance = random.Random(source)
    length = max(shortest, int(24 * 16 ** chance.random())) if natural_end else None
    lead, sentence = "", True
    position = 0
    while length is None or position < length:
        word = chance.choice(WORDS)
        ends = chance.random() < 0.08
        yield lead + (word.capitalize() if sentence else word) + ("." if ends else "")
        lead, sentence = " ", ends
        position += 1
