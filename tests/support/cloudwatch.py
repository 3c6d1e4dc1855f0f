"""CloudWatch on loopback, in the protocol that botocore speaks with it: AWS JSON 1.0, GetMetricData only."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

TARGET = "GraniteServiceVersion20100801.GetMetricData"
Answer = dict[str, Any] | tuple[int, str, str]  # a document, or (status, error code, message)


@dataclass
class CloudWatch:
    """answer: from the request's parameters to the document (times: seconds since the epoch) or an error."""

    answer: Callable[[dict[str, Any]], Answer]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def cloudwatch(answer: Callable[[dict[str, Any]], Answer]) -> Iterator[CloudWatch]:
    watch = CloudWatch(answer)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            assert (self.path, self.headers["X-Amz-Target"]) == ("/", TARGET)
            assert self.headers["Content-Type"] == "application/x-amz-json-1.0"
            assert "AWS4-HMAC-SHA256" in self.headers["Authorization"]
            watch.asked.append(json.loads(body))
            found = watch.answer(watch.asked[-1])
            status, document = 200, found
            if isinstance(found, tuple):
                status = found[0]
                kind = f"com.amazonaws.cloudwatch.v2010_08_01#{found[1]}"
                document = {"__type": kind, "message": found[2]}
            raw = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            if isinstance(found, tuple):
                self.send_header("x-amzn-query-error", f"{found[1]};Sender")
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
