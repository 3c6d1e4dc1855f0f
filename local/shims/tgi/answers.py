"""Answers of TGI's OpenAI endpoints: whole ones and chunks."""

from __future__ import annotations

import time

from local.shims.server.engine import Delta
from local.shims.server.protocol import Generation, Json

# The router's crate has the version of its workspace, whatever the image's tag says.
ROUTER_VERSION = "3.0.0"
FINGERPRINT = f"{ROUTER_VERSION}-native"


def reason(delta: Delta, *, stop: bool = False) -> str:
    """length, stop_sequence, or the end of the text: eos_token, which most OpenAI answers call stop."""
    if delta.finish == "length":
        return "length"
    if delta.stop is not None:
        return "stop_sequence"
    return "stop" if stop else "eos_token"


def head(kind: str, generation: Generation) -> Json:
    return {
        "object": kind,
        "id": "",
        "created": int(time.time()),
        "model": generation.model,
        "system_fingerprint": FINGERPRINT,
    }


def usage(generation: Generation, delta: Delta) -> Json:
    count = generation.prompt_tokens
    return {"prompt_tokens": count, "completion_tokens": delta.tokens, "total_tokens": count + delta.tokens}


def completion(generation: Generation, said: str, ended: str, delta: Delta) -> Json:
    """A completion, or a chunk of one: the last chunk has the usage, asked for or not."""
    choice = {"index": 0, "text": said, "logprobs": None, "finish_reason": ended}
    answer = head("text_completion", generation) | {"choices": [choice]}
    return answer | {"usage": usage(generation, delta)} if delta.finish is not None else answer


def chunks(generation: Generation, delta: Delta) -> list[Json]:
    """A chunk a delta, each with the role; the usage comes in one of its own, without choices."""
    choice = {
        "index": 0,
        "delta": {"role": "assistant", "content": delta.text},
        "logprobs": None,
        "finish_reason": reason(delta, stop=True) if delta.finish is not None else None,
    }
    shared = head("chat.completion.chunk", generation)
    found = [shared | {"choices": [choice], "usage": None}]
    if delta.finish is not None and generation.include_usage:
        found.append(shared | {"choices": [], "usage": usage(generation, delta)})
    return found
