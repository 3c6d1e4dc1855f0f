"""What a run asks, question by question. Pure: the same seed asks the same, whichever process asks it.

Conversations are numbered; one of a single turn is a plain request. The turns of conversation n are pairs
n * turns, n * turns + 1, …: a number names the same question to every arm, and in every process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.bench.pictures import Painter
from trainyard.bench.trace import BLOCK_TOKENS, Row
from trainyard.bench.words import Shared, prompt
from trainyard.bench.workload import Workload

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Turn:
    """One question. number: of the turn in its conversation, from 0. pictures: data URLs."""

    pair: int
    conversation: int
    number: int
    text: str
    output_tokens: int
    pictures: tuple[str, ...] = ()


class Script:
    def __init__(self, workload: Workload, seed: object) -> None:
        self._workload, self._seed = workload, seed
        trace = workload.read_trace()
        self._rows = trace.rows if trace else ()
        images = workload.images
        self._painter = Painter(images.width, images.height) if images else None
        self._shared = Shared()
        self.turns = workload.turns

    def turn(self, conversation: int, number: int = 0) -> Turn:
        workload = self._workload
        pair = conversation * self.turns + number
        seed = f"{self._seed}/{pair}"
        # A trace that has run out begins anew, with other words of the same lengths.
        cycle, place = divmod(pair, len(self._rows)) if self._rows else (0, 0)
        row = self._rows[place] if self._rows else Row()
        output_tokens = row.output_tokens or (
            workload.output_lengths.sample(f"{seed}/output")
            if workload.output_lengths
            else workload.output_tokens
        )
        text = row.prompt or self._words(row, seed, f"{self._seed}/{cycle}")
        if number:
            return Turn(pair, conversation, number, text, output_tokens)
        if workload.prefix:
            group = workload.prefix.group(f"{self._seed}/{conversation}")
            shared = self._shared.text(workload.prefix.tokens, f"{self._seed}/prefix/{group}")
            text = f"{shared} {text}"
        return Turn(pair, conversation, number, text, output_tokens, self._pictures(seed))

    def think(self, conversation: int, number: int) -> float:
        """Seconds before turn `number`."""
        shape = self._workload.conversation
        return shape.think(f"{self._seed}/{conversation}/{number}") if shape and number else 0.0

    def _words(self, row: Row, seed: str, shared: str) -> str:
        workload = self._workload
        wanted = row.asks
        if wanted is None:
            lengths = workload.prompt_lengths
            wanted = lengths.sample(f"{seed}/prompt") if lengths else workload.prompt_tokens
        parts = []
        for name in row.blocks:
            tokens = min(BLOCK_TOKENS, wanted)
            parts.append(self._shared.text(tokens, f"{shared}/block/{name}"))
            wanted -= tokens
        if wanted:
            parts.append(prompt(wanted, seed))
        return " ".join(parts)

    def _pictures(self, seed: str) -> tuple[str, ...]:
        images, painter = self._workload.images, self._painter
        if images is None or painter is None:
            return ()
        return tuple(painter.data_url(f"{seed}/{number}") for number in range(images.count))


class Dialogue:
    """One arm's side of a conversation: what was asked, and what this arm itself answered."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def ask(self, turn: Turn) -> tuple[Message, ...]:
        """All messages up to this question."""
        self._messages.append(question(turn.text, turn.pictures))
        return tuple(self._messages)

    def hear(self, answer: str) -> None:
        self._messages.append({"role": "assistant", "content": answer})


def question(text: str, pictures: tuple[str, ...] = ()) -> Message:
    """A user's message, as the chat API of OpenAI takes it."""
    if not pictures:
        return {"role": "user", "content": text}
    parts: list[Message] = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
