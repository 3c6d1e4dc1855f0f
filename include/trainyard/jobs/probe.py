"""Startup probe of a serving pod: one real generation. `/health` can say 200 while the engine is dead or
compiling.

    python trainyard.pyz probe --port 8000 --model NAME [--host ADDRESS] [--timeout SECONDS]

host: the pod's own address by default (env POD_IP: Kubernetes expands no variables in a probe's command),
else 127.0.0.1.

A plain socket and HTTP/1.0 (no chunks, the server closes): `http.client` alone would double the start-up
time.
"""

from __future__ import annotations

import json
import socket
import sys
import time

from trainyard.jobs.options import parse
from trainyard.jobs.pages import own_address

USAGE = "usage: probe --port PORT --model NAME [--host ADDRESS] [--timeout SECONDS]"
MOST_BYTES = 1 << 20


class NotReady(Exception):
    """The server did not generate; the text says what it did instead."""


def main(arguments: list[str]) -> int:
    """0 if text came back, 1 if not, 2 if called wrongly. Says why in one line."""
    options = parse(arguments, {"host": own_address(), "timeout": "10", "port": "", "model": ""})
    if options is None or not options["port"] or not options["model"]:
        print(USAGE)
        return 2
    try:
        text = generate(options["host"], int(options["port"]), options["model"], float(options["timeout"]))
    except (NotReady, OSError, ValueError) as error:
        print(f"not ready: {error}")
        return 1
    print(f"ready: generated {text!r}")
    return 0


def generate(host: str, port: int, model: str, timeout: float) -> str:
    """The text of a one-token completion, everything within `timeout` seconds. Raises NotReady, OSError."""
    question = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}).encode()
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    request = (
        f"POST /v1/completions HTTP/1.0\r\nHost: {authority}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(question)}\r\nConnection: close\r\n\r\n"
    ).encode() + question
    deadline = time.monotonic() + timeout
    with socket.create_connection((host, port), timeout=timeout) as connection:
        connection.sendall(request)
        reply = bytearray()
        while len(reply) < MOST_BYTES:
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotReady(f"no generation within {timeout:g} s")
            connection.settimeout(left)
            received = connection.recv(65536)
            if not received:
                break
            reply += received
            if _is_whole(reply):  # some servers keep the connection open all the same
                break
    return _generated(bytes(reply))


def _is_whole(reply: bytearray) -> bool:
    head, found, body = bytes(reply).partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return bool(found) and len(body) >= int(value)
    return False


def _generated(reply: bytes) -> str:
    head, _, body = reply.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):
        raise NotReady("the server closed the connection without an answer")
    if words[1] != b"200":
        raise NotReady(
            f"the server answers {words[1].decode('ascii', 'replace')}: "
            f"{body[:200].decode('utf-8', 'replace')}"
        )
    try:
        answer = json.loads(body)
        text = answer["choices"][0]["text"]
    except (ValueError, LookupError, TypeError) as error:
        raise NotReady(f"the answer is no completion: {body[:200].decode('utf-8', 'replace')}") from error
    tokens = (answer.get("usage") or {}).get("completion_tokens") or 0
    # One token may be half a character, which decodes to nothing: then the count is the proof.
    if not isinstance(text, str) or (not text and not tokens):
        raise NotReady("the completion is empty")
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
