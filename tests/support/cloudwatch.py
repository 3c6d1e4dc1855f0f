"""CloudWatch on loopback, as botocore speaks with it: RPC v2 over CBOR, GetMetricData only."""

from __future__ import annotations

import http.server
import io
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.parsers import RpcV2CBORParser

PATH = "/service/GraniteServiceVersion20100801/operation/GetMetricData"
Answer = dict[str, Any] | tuple[int, str, str]  # a document, or (status, error code, message)


@dataclass
class CloudWatch:
    """answer: from the request's parameters to the document, or an error."""

    answer: Callable[[dict[str, Any]], Answer]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)


def encode(value: Any) -> bytes:
    """CBOR, as far as GetMetricData needs it."""
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode()
        return _head(3, len(raw)) + raw
    if isinstance(value, datetime):
        return _head(6, 1) + encode(value.timestamp())
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(map(encode, value))
    return _head(5, len(value)) + b"".join(encode(key) + encode(each) for key, each in value.items())


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    return bytes([major << 5 | 27]) + struct.pack(">Q", number)


def decode(body: bytes) -> dict[str, Any]:
    """botocore's own reading."""
    stream = io.BufferedReader(io.BytesIO(body))  # type: ignore[arg-type]
    found: dict[str, Any] = RpcV2CBORParser().parse_data_item(stream)
    return found


@contextmanager
def cloudwatch(answer: Callable[[dict[str, Any]], Answer]) -> Iterator[CloudWatch]:
    watch = CloudWatch(answer)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            assert (self.path, self.headers["smithy-protocol"]) == (PATH, "rpc-v2-cbor")
            assert "AWS4-HMAC-SHA256" in self.headers["Authorization"]
            watch.asked.append(decode(body))
            found = watch.answer(watch.asked[-1])
            status, document = 200, found
            if isinstance(found, tuple):
                status, document = found[0], {"__type": found[1], "message": found[2]}
            raw = encode(document)
            self.send_response(status)
            self.send_header("Content-Type", "application/cbor")
            self.send_header("smithy-protocol", "rpc-v2-cbor")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    watch.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield watch
    finally:
        server.shutdown()
        server.server_close()
