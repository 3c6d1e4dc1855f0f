"""Pictures in chat requests: which are taken, and how many tokens of the prompt each is.

As vLLM does it for Qwen3-VL (`vllm/multimodal/media`, `qwen3_vl.py`), which counts with the model's own
processor (`smart_resize` of transformers' Qwen2-VL image processor). What vLLM answers 400 to is a ValueError
here. Two things are less: pictures are PNGs, of which signature and header are read, and nothing is fetched.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from local.shims.logs import ToolError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">I4sII")  # length and kind of the first chunk, width, height
DEFAULT_LIMIT = 999  # of a prompt; vLLM's MultiModalConfig since the V1 engine
MARKS = 2  # <|vision_start|> and <|vision_end|> around each picture
MOST_OBLONG = 200
OTHER_PARTS = {"audio_url": "audio", "input_audio": "audio", "video_url": "video"}


@dataclass(frozen=True)
class Picture:
    """tokens: of the prompt, its marks included; digest: of the file."""

    tokens: int
    digest: str


@dataclass(frozen=True)
class Eyes:
    """How a model sees. side: pixels of the square that is one token; least, most: pixels of a picture, which
    is made larger or smaller to have them; limit: pictures in a prompt."""

    side: int
    least: int
    most: int
    limit: int = DEFAULT_LIMIT

    def tokens(self, width: int, height: int) -> int:
        """Squares of a picture once its sides are multiples of `side`; raises ValueError for a mere line."""
        if max(width, height) > MOST_OBLONG * min(width, height):
            ratio = max(width, height) / min(width, height)
            raise ValueError(f"absolute aspect ratio must be smaller than {MOST_OBLONG}, got {ratio}")
        columns, rows = round(width / self.side), round(height / self.side)
        pixels = columns * rows * self.side**2
        if pixels > self.most:
            scale = self.side * math.sqrt(width * height / self.most)
            return max(1, math.floor(width / scale)) * max(1, math.floor(height / scale))
        if pixels < self.least:
            scale = math.sqrt(self.least / (width * height)) / self.side
            return math.ceil(width * scale) * math.ceil(height * scale)
        return columns * rows


def read_eyes(folder: Path, limits: dict[str, Any] | None) -> Eyes | None:
    """The eyes of the model in `folder`; None for a text model. limits: of --limit-mm-per-prompt.

    Raises ToolError where a model with a vision tower lacks the configuration of its processor.
    """
    vision = json.loads((folder / "config.json").read_text()).get("vision_config")
    if not isinstance(vision, dict):
        return None
    try:
        processor = json.loads((folder / "preprocessor_config.json").read_text())
        side = int(processor["patch_size"]) * int(processor["merge_size"])
        least, most = int(processor["size"]["shortest_edge"]), int(processor["size"]["longest_edge"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ToolError(
            "OSError",
            f"Can't load image processor for '{folder}'. If you were trying to load it from "
            "'https://huggingface.co/models', make sure you don't have a local directory with the same name. "
            f"Otherwise, make sure '{folder}' is the correct path to a directory containing a "
            "preprocessor_config.json file",
        ) from None
    limit = (limits or {}).get("image", DEFAULT_LIMIT)
    if isinstance(limit, dict):
        limit = limit.get("count", DEFAULT_LIMIT)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ToolError(
            "pydantic_core._pydantic_core.ValidationError",
            "1 validation error for ImageDummyOptions\ncount\n  Input should be greater than or equal to 0 "
            f"[input_value={limit!r}]",
        )
    return Eyes(side, least, most, limit)


def pictures_of(messages: list[dict[str, Any]], eyes: Eyes) -> list[Picture]:
    """All pictures of a conversation; raises ValueError for one that is not taken, or too many."""
    urls = list(_urls(messages))
    if len(urls) > eyes.limit:
        raise ValueError(f"At most {eyes.limit} image(s) may be provided in one prompt.")
    found = []
    for url in urls:
        content = _load(url)
        width, height = _size(content)
        tokens = eyes.tokens(width, height) + MARKS
        found.append(Picture(tokens, hashlib.sha256(content).hexdigest()))
    return found


def parts_of(messages: list[dict[str, Any]]) -> Iterator[tuple[str | None, Any]]:
    """Kind and content of all parts, of messages that are no plain text."""
    for message in messages:
        parts = message.get("content")
        for part in parts if isinstance(parts, list) else []:
            yield (str(part.get("type")), part) if isinstance(part, dict) else (None, part)


def _urls(messages: list[dict[str, Any]]) -> Iterator[str]:
    for kind, part in parts_of(messages):
        if kind == "text":
            continue
        if kind in OTHER_PARTS:
            raise ValueError(f"At most 0 {OTHER_PARTS[kind]}(s) may be provided in one prompt.")
        if kind != "image_url":
            raise ValueError(f"Unknown part type: {kind}")
        address = part.get("image_url")
        url = address.get("url") if isinstance(address, dict) else None
        if not isinstance(url, str):
            raise ValueError("Missing 'image_url' field in multimodal part.")
        yield url


def _load(url: str) -> bytes:
    if url[:5].lower() == "data:":
        head, comma, data = url[5:].partition(",")
        if not comma:
            raise ValueError(f"Invalid data URL {url[:32]!r}: missing ',' separator.")
        if head.rpartition(";")[2] != "base64":
            raise ValueError("Only base64 data URLs are supported for now.")
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from None
    scheme = urlsplit(url).scheme
    if scheme.startswith("http"):
        host = urlsplit(url).hostname
        raise ValueError(f"Cannot connect to host {host}: this server has no network to fetch pictures from.")
    if scheme == "file":
        raise ValueError("Cannot load local files without `--allowed-local-media-path`.")
    raise ValueError("The URL must be either a HTTP, data or file URL.")


def _size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels; raises ValueError, worded as Pillow does, for what is no PNG."""
    if content.startswith(SIGNATURE) and len(content) >= len(SIGNATURE) + HEADER.size:
        _, kind, width, height = HEADER.unpack_from(content, len(SIGNATURE))
        if kind == b"IHDR" and width and height:
            return width, height
    raise ValueError(f"cannot identify image file {io.BytesIO(content)!r}")
