"""A page of a server (its health, models, metrics), bounded in time and size as a whole."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

MOST_BYTES = 16 << 20  # a vLLM server's metrics have some 100 KiB


def get_page(url: str, path: str, seconds: float) -> tuple[int, bytes]:
    """Status and body of GET url + path.

    seconds: for connecting, and again for all that follows, an answer that drips included. Raises OSError
    where there is no whole answer, TimeoutError of them where there is none in time.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=seconds)
    too_long = threading.Event()
    late = f"{path} was not whole in {seconds:g} s"
    try:
        connection.connect()
        cutting = threading.Timer(seconds, _cut, (connection.sock, too_long))
        cutting.start()
        try:
            connection.request("GET", parts.path.rstrip("/") + path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read(MOST_BYTES + 1)
        finally:
            cutting.cancel()
    except (OSError, http.client.HTTPException) as error:
        if too_long.is_set():
            raise TimeoutError(late) from error
        if isinstance(error, OSError):
            raise
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if too_long.is_set():  # what was cut may look whole
        raise TimeoutError(late)
    if len(body) > MOST_BYTES:
        raise OSError(f"a page of more than {MOST_BYTES >> 20} MiB")
    return response.status, body


def _cut(connection: socket.socket, too_long: threading.Event) -> None:
    too_long.set()
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
