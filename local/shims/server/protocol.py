"""Requests of the OpenAI API as vLLM takes them, and the errors it answers with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from local.shims.server.pictures import Eyes, Picture, parts_of, pictures_of
from local.shims.server.text import chat_prompt, tokens

Json = dict[str, Any]
# Taken and without effect on this model's text: sampling has no meaning for a list of words.
SAMPLING = {"temperature": (0.0, None), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0)}
PENALTIES = {"presence_penalty": (-2.0, 2.0), "frequency_penalty": (-2.0, 2.0)}


class ApiError(Exception):
    """An error answer: `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.param = status, kind, message, param

    def body(self) -> Json:
        content = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return {"error": content}


@dataclass(frozen=True)
class Generation:
    """What a request asks for, checked. prompt: its text, and what tells its pictures apart."""

    model: str
    prompt: str
    prompt_tokens: int
    max_tokens: int
    min_tokens: int
    seed: int
    stop: tuple[str, ...]
    include_stop: bool
    ignore_eos: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    echo: bool
    chat: bool


def bad_request(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, "BadRequestError", message, param)


def parse_body(body: bytes) -> Json:
    """The JSON object of a request; raises ApiError as FastAPI's validation words it."""
    try:
        content = json.loads(body)
    except ValueError as error:
        place = getattr(error, "pos", 0)
        reason = getattr(error, "msg", str(error))
        raise ApiError(
            400,
            "Bad Request",
            f"[{{'type': 'json_invalid', 'loc': ('body', {place}), 'msg': 'JSON decode error', "
            f"'input': {{}}, 'ctx': {{'error': '{reason}'}}}}]",
        ) from None
    if not isinstance(content, dict):
        raise ApiError(
            400,
            "Bad Request",
            "[{'type': 'model_attributes_type', 'loc': ('body',), "
            "'msg': 'Input should be a valid dictionary or object to extract fields from'}]",
        )
    return content


def parse_generation(
    body: Json, *, chat: bool, models: list[str], max_model_len: int, eyes: Eyes | None = None
) -> Generation:
    """Check a completion or chat request against the served models and the context length.

    eyes: of a model that takes pictures.

    Raises ApiError 404 for an unknown model, 400 for everything else, worded as vLLM does.
    """
    model = body.get("model") or models[0]
    if model not in models:
        raise ApiError(404, "NotFoundError", f"The model `{model}` does not exist.")
    prompt, pictures = _chat_messages(body, eyes) if chat else (_prompt(body), [])
    # And the token that begins every sequence.
    prompt_tokens = len(tokens(prompt)) + 1 + sum(picture.tokens for picture in pictures)
    prompt += "".join(picture.digest for picture in pictures)
    stream = bool(body.get("stream", False))
    options = body.get("stream_options") or {}
    if options and not stream:
        raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
    if _integer(body, "n", 1) != 1:
        raise bad_request("n must be 1: the served model generates one sequence a request.", "n")
    if body.get("logprobs") or body.get("top_logprobs"):
        raise bad_request("logprobs are not supported with on-device sampling.", "logprobs")
    for name, (low, high) in (SAMPLING | PENALTIES).items():
        _bounded(body, name, low, high)
    stop = body.get("stop") or ()
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(string, str) and string for string in stops):
        raise bad_request(f"stop cannot contain an empty string, got {stop!r}.", "stop")
    most = _max_tokens(body, chat=chat, prompt_tokens=prompt_tokens, max_model_len=max_model_len)
    least = _integer(body, "min_tokens", 0)
    if least > most:
        raise bad_request(f"min_tokens must be less than or equal to max_tokens={most}, got {least}.")
    return Generation(
        model=model,
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        max_tokens=most,
        min_tokens=least,
        seed=_integer(body, "seed", 0) if float(body.get("temperature") or 0.0) > 0 else 0,
        stop=stops,
        include_stop=bool(body.get("include_stop_str_in_output", False)),
        ignore_eos=bool(body.get("ignore_eos", False)),
        stream=stream,
        include_usage=bool(options.get("include_usage", False)),
        continuous_usage=bool(options.get("continuous_usage_stats", False)),
        echo=bool(body.get("echo", False)) and not chat,
        chat=chat,
    )


def _max_tokens(body: Json, *, chat: bool, prompt_tokens: int, max_model_len: int) -> int:
    left = max_model_len - prompt_tokens
    what = "messages" if chat else "prompt"
    if left < 1:
        raise bad_request(
            f"This model's maximum context length is {max_model_len} tokens. However, your request has "
            f"{prompt_tokens} input tokens. Please reduce the length of the input {what}."
        )
    given = body.get("max_completion_tokens") if chat else None
    asked = given if given is not None else body.get("max_tokens")
    if asked is None:
        return left if chat else min(16, left)
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
        raise bad_request(f"max_tokens must be at least 1, got {asked}.", "max_tokens")
    if asked > left:
        raise bad_request(
            f"'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum context "
            f"length is {max_model_len} tokens and your request has {prompt_tokens} input tokens "
            f"({asked} > {max_model_len} - {prompt_tokens}).",
            "max_tokens",
        )
    return asked


def _chat_messages(body: Json, eyes: Eyes | None) -> tuple[str, list[Picture]]:
    """The prompt's text, and the pictures beside it."""
    messages = body.get("messages")
    if messages is None:
        raise _missing("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages must be a list with at least one message.", "messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise bad_request("every message needs a role and a content.", "messages")
    if eyes is None and any(kind != "text" for kind, _ in parts_of(messages)):
        raise bad_request("At most 0 image(s) may be provided in one prompt.", "messages")
    try:
        pictures = pictures_of(messages, eyes) if eyes else []
    except ValueError as error:
        raise bad_request(str(error), "messages") from None
    return chat_prompt(messages), pictures


def _prompt(body: Json) -> str:
    prompt = body.get("prompt")
    if prompt is None:
        raise _missing("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise bad_request("prompt must be a string, or a list with one.", "prompt")
    return prompt


def _missing(field: str) -> ApiError:
    return ApiError(
        400, "Bad Request", f"[{{'type': 'missing', 'loc': ('body', '{field}'), 'msg': 'Field required'}}]"
    )


def _integer(body: Json, name: str, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise ApiError(
            400,
            "Bad Request",
            f"[{{'type': 'int_parsing', 'loc': ('body', '{name}'), 'msg': 'Input should be a valid integer', "
            f"'input': {value!r}}}]",
        )
    return value


def _bounded(body: Json, name: str, low: float, high: float | None) -> None:
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_request(f"{name} must be a number, got {value!r}.", name)
    if value < low or (high is not None and value > high):
        rule = f"non-negative, got {value}" if high is None else f"in [{low:g}, {high:g}], got {value}"
        raise bad_request(f"{name} must be {rule}.", name)
