"""Answers of the OpenAI API: whole ones, and the server-sent events of streams.

The parts of a chunk that do not change are serialized once a stream: a busy server writes thousands a second.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from local.shims.server.protocol import Generation

DONE = b"data: [DONE]\n\n"
Json = dict[str, Any]


def usage(generation: Generation, completed: int) -> Json:
    """Token counts of a request so far."""
    prompt = generation.prompt_tokens
    return {"prompt_tokens": prompt, "total_tokens": prompt + completed, "completion_tokens": completed}


class Answer:
    """One answer: its id, and how its pieces look."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.id = f"{'chatcmpl' if generation.chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.created = int(time.time())
        kind = "chat.completion.chunk" if generation.chat else "text_completion"
        head = {"id": self.id, "object": kind, "created": self.created, "model": generation.model}
        self._head = "data: " + json.dumps(head, separators=(",", ":"))[:-1]

    def role(self) -> bytes:
        """The first chunk of a chat stream, which vLLM sends with the first token, before its text."""
        return self._event(
            '"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null', 0
        )

    def delta(self, text: str, completed: int, finish: str | None, stop: str | None) -> bytes:
        """A chunk with what was generated since the one before."""
        quoted = json.dumps(text)
        content = f'"delta":{{"content":{quoted}}}' if self.generation.chat else f'"text":{quoted}'
        rest = f'"logprobs":null,"finish_reason":{json.dumps(finish)}'
        if finish is not None or not self.generation.chat:
            rest += f',"stop_reason":{json.dumps(stop)}'
        return self._event(f"{content},{rest}", completed)

    def final_usage(self, completed: int) -> bytes:
        """The chunk without choices that `include_usage` asks for."""
        counted = json.dumps(usage(self.generation, completed), separators=(",", ":"))
        return f'{self._head},"choices":[],"usage":{counted}}}\n\n'.encode()

    def whole(self, text: str, completed: int, finish: str | None, stop: str | None) -> Json:
        """The answer of a request that does not stream."""
        choice: Json = {"index": 0, "logprobs": None, "finish_reason": finish, "stop_reason": stop}
        if self.generation.chat:
            message: Json = {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}
            choice |= {"message": message}
        else:
            choice |= {"text": text, "prompt_logprobs": None}
        return {
            "id": self.id,
            "object": "chat.completion" if self.generation.chat else "text_completion",
            "created": self.created,
            "model": self.generation.model,
            "choices": [choice],
            "usage": usage(self.generation, completed) | {"prompt_tokens_details": None},
            "service_tier": None,
            "system_fingerprint": None,
        }

    def _event(self, choice: str, completed: int) -> bytes:
        tail = ""
        if self.generation.continuous_usage:
            counted = json.dumps(usage(self.generation, completed), separators=(",", ":"))
            tail = f',"usage":{counted}'
        return f'{self._head},"choices":[{{"index":0,{choice}}}]{tail}}}\n\n'.encode()
