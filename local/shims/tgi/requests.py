"""Requests as TGI's router takes them, and the errors that it answers with: 422, `error` and `error_type`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from local.shims.server.protocol import ApiError, Generation, Json
from local.shims.server.text import chat_prompt, tokens

DEFAULT_GENERATION_LENGTH = 1024


class PlainError(Exception):
    """A body that is not JSON, or not of the request's type: axum answers in plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass(frozen=True)
class Limits:
    """What the router was started with."""

    max_input_tokens: int
    max_total_tokens: int
    max_stop_sequences: int


def invalid(message: str) -> ApiError:
    return ApiError(422, "validation", f"Input validation error: {message}")


def parse(body: bytes, needed: str) -> Json:
    """The JSON object with its one mandatory field."""
    try:
        content = json.loads(body)
    except ValueError as error:
        reason = f"Failed to parse the request body as JSON: {getattr(error, 'msg', error)}"
        raise PlainError(400, reason) from None
    if not isinstance(content, dict) or needed not in content:
        raise PlainError(
            422,
            "Failed to deserialize the JSON body into the target type: "
            f"missing field `{needed}` at line 1 column {len(body)}",
        )
    return content


def from_chat(body: Json, limits: Limits, model: str) -> Generation:
    """`/v1/chat/completions`. A name that nobody serves is taken, and given back."""
    asked = body.get("max_tokens") or body.get("max_completion_tokens")
    return _generation(
        chat_prompt(body["messages"]),
        body | {"max_new_tokens": asked},
        limits,
        model=model if body.get("model") in (None, "tgi") else str(body["model"]),
        chat=True,
    )


def from_completion(body: Json, limits: Limits, model: str) -> Generation:
    """`/v1/completions`; its answers always name the model that is served."""
    prompt = body["prompt"][0] if isinstance(body["prompt"], list) else body["prompt"]
    return _generation(prompt, body | {"max_new_tokens": body.get("max_tokens")}, limits, model=model)


def from_generate(body: Json, limits: Limits, model: str, *, stream: bool) -> Generation:
    """`/generate` and `/generate_stream`."""
    return _generation(
        body["inputs"], (body.get("parameters") or {}) | {"stream": stream}, limits, model=model
    )


def _generation(prompt: Any, given: Json, limits: Limits, *, model: str, chat: bool = False) -> Generation:
    temperature, top_p = given.get("temperature"), given.get("top_p")
    if temperature is not None and temperature < 0:
        raise invalid("`temperature` must be strictly positive")
    if top_p is not None and not 0.0 < top_p < 1.0:
        raise invalid("`top_p` must be > 0.0 and < 1.0")
    if given.get("max_new_tokens") == 0:
        raise invalid("`max_new_tokens` must be strictly positive")
    stop = given.get("stop") or []
    stops = tuple([stop] if isinstance(stop, str) else stop)
    if len(stops) > limits.max_stop_sequences:
        raise invalid(
            f"`stop` supports up to {limits.max_stop_sequences} stop sequences. Given: {len(stops)}"
        )
    if not isinstance(prompt, str) or not prompt:
        raise invalid("`inputs` cannot be empty")
    count = len(tokens(prompt)) + (0 if chat else 1)
    left = max(limits.max_total_tokens - count, 0)
    most = given.get("max_new_tokens") or left
    first = min(most, DEFAULT_GENERATION_LENGTH)  # longer generations are queued again
    if count + first > limits.max_total_tokens:
        raise invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {limits.max_total_tokens}. "
            f"Given: {count} `inputs` tokens and {first} `max_new_tokens`"
        )
    if count > limits.max_input_tokens:
        raise invalid(f"`inputs` must have less than {limits.max_input_tokens} tokens. Given: {count}")
    return Generation(
        model=model,
        prompt=prompt,
        prompt_tokens=count,
        max_tokens=min(most, left),
        min_tokens=0,
        seed=int(given.get("seed") or 0),
        stop=stops,
        include_stop=True,
        ignore_eos=False,
        stream=bool(given.get("stream", False)),
        include_usage=bool((given.get("stream_options") or {}).get("include_usage", False)),
        continuous_usage=False,
        echo=False,
        chat=chat,
    )
