"""A server's own pages, asked from inside its pod. A plain socket: starts fast, needs no package."""

from __future__ import annotations

import os
import socket

MOST_BYTES = 8 << 20


def own_address() -> str:
    """The pod's address (env POD_IP: Kubernetes expands no variables in a probe's or a hook's command)."""
    return os.environ.get("POD_IP", "127.0.0.1")


def metrics_page(host: str, port: int, timeout: float) -> str:
    """The body of GET /metrics. Raises OSError where there is none: no server, or another answer than 200."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    request = f"GET /metrics HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode()
    with socket.create_connection((host, port), timeout=timeout) as connection:
        connection.sendall(request)
        reply = bytearray()
        while len(reply) < MOST_BYTES and (received := connection.recv(65536)):
            reply += received
    head, _, body = bytes(reply).partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split(b" ", 2)
    if len(words) < 2 or words[1] != b"200":
        raise OSError(f"/metrics answers {head[:60].decode('ascii', 'replace')!r}")
    return body.decode("utf-8", "replace")
