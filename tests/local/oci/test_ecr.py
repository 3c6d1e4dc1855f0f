"""ECR's token: asked for by boto3 from the region that the registry's name says."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.support.registry import BASIC, PASSWORD, USER
from trainyard.errors import PermanentError
from trainyard.oci import registry
from trainyard.oci.references import Reference
from trainyard.oci.registry import Registry, ecr_authorization

TOKEN = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
ECR = Reference("123456789012.dkr.ecr.us-east-2.amazonaws.com", "models", "v1")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The part of ECR's API that gives tokens; requests by their target and region."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            signed = self.headers["Authorization"].split("Credential=")[1].split("/")
            seen.append(f"{self.headers['X-Amz-Target']} {signed[2]}")
            denied = "denied" in self.headers["Authorization"]
            reply = {"__type": "AccessDeniedException", "message": "not allowed"}
            if not denied:
                reply = {"authorizationData": [{"authorizationToken": TOKEN}]}  # type: ignore[dict-item]
            body = json.dumps(reply).encode()
            self.send_response(400 if denied else 200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "allowed")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    yield seen
    server.shutdown()
    server.server_close()


def test_a_registry_of_ecr_logs_in_by_the_aws_account(asked: list[str]) -> None:
    assert Registry(ECR)._authorization == BASIC == ecr_authorization("us-east-2")
    assert asked[0].startswith("AmazonEC2ContainerRegistry")
    assert asked[0].endswith("GetAuthorizationToken us-east-2")


def test_an_account_that_may_not_is_told_which_right_it_lacks(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "denied")
    with pytest.raises(PermanentError, match="ecr:GetAuthorizationToken"):
        Registry(ECR)


def test_a_token_that_ended_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    tokens = iter(["Basic old", "Basic new"])
    monkeypatch.setattr(registry, "ecr_authorization", lambda region: next(tokens))
    client = Registry(ECR, pause=lambda seconds: None)
    sent = []

    def answer(method: str, url: str, headers: dict[str, str], **_: object) -> requests.Response:
        sent.append(headers["Authorization"])
        reply = requests.Response()
        reply.status_code = 401 if headers["Authorization"] == "Basic old" else 200
        reply._content_consumed = True  # nothing is open
        return reply

    monkeypatch.setattr(client.session, "request", answer)
    assert client.has_blob("a" * 64)
    assert sent == ["Basic old", "Basic new"]
