"""A commit's files, as the Hub lists them: pages, and answers that nobody should believe."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard import hub_tree
from trainyard.errors import CorruptArtifact, HubUnavailable, NotFound, PermanentError
from trainyard.hub_content import Content
from trainyard.hub_policy import HubFile

REPO, SHA = "tests/Listed", "a" * 40
Reply = tuple[int, dict[str, str], Any]


class Answers:
    """Replies by path and query, in turn; the last one is repeated."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.asked: list[str] = []
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answers.asked.append(self.path)
                status, headers, body = answers.replies.pop(0)
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.content = Content(self.endpoint, None)


@pytest.fixture
def hub() -> Iterator[Answers]:
    answers = Answers()
    thread = threading.Thread(target=answers.server.serve_forever, args=(0.01,))
    thread.start()
    yield answers
    answers.server.shutdown()
    answers.server.server_close()
    thread.join()


def entry(path: str, **more: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": 5, "oid": "b" * 40, **more}


def test_all_pages_are_read_and_folders_left_out(hub: Answers) -> None:
    digest = "c" * 64
    following = f'<{hub.endpoint}/api/models/{REPO}/tree/{SHA}?cursor=2>; rel="next"'
    hub.replies = [
        (200, {"Link": following}, [entry("b.json"), {"type": "directory", "path": "d", "oid": "x"}]),
        (200, {}, [entry("a.safetensors", lfs={"oid": digest, "size": 5})]),
    ]
    assert hub_tree.list_tree(hub.content, REPO, SHA) == [
        HubFile("a.safetensors", 5, digest, "b" * 40),
        HubFile("b.json", 5, None, "b" * 40),
    ]
    assert hub.asked[0] == f"/api/models/{REPO}/tree/{SHA}?recursive=true&expand=false"
    assert hub.asked[1].endswith("cursor=2")


def test_a_repository_that_moved_is_refused_by_name(hub: Answers) -> None:
    hub.replies = [
        (307, {"Location": f"/api/models/other/Owner/tree/{SHA}"}, b""),
        (200, {}, [entry("config.json")]),
    ]
    with pytest.raises(PermanentError, match=r"moved.*other/Owner"):
        hub_tree.list_tree(hub.content, REPO, SHA)


def test_a_listing_does_not_go_on_at_another_host(hub: Answers) -> None:
    hub.replies = [(200, {"Link": '<http://127.0.0.2:1/next>; rel="next"'}, [entry("a.json")])]
    with pytest.raises(CorruptArtifact, match="another host"):
        hub_tree.list_tree(hub.content, REPO, SHA)


def test_a_listing_without_end_is_refused(hub: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_tree, "MAX_FILES", 10)
    page: Reply = (200, {"Link": "</again>; rel=next"}, [entry(f"{number}.json") for number in range(4)])
    hub.replies = [page] * 5
    with pytest.raises(PermanentError, match="more than 10 files"):
        hub_tree.list_tree(hub.content, REPO, SHA)
    assert len(hub.asked) == 3


def test_a_listing_of_folders_only_ends_too(hub: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_tree, "MAX_FILES", 10)
    folders = [{"type": "directory", "path": f"{number}"} for number in range(4)]
    hub.replies = [(200, {"Link": "</again>; rel=next"}, folders)] * 5
    with pytest.raises(PermanentError, match="more than 10 files"):
        hub_tree.list_tree(hub.content, REPO, SHA)


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (401, "RepoNotFound", NotFound, "token"),
        (404, "RevisionNotFound", NotFound, "revision"),
        (403, "GatedRepo", PermanentError, "licence"),
        (418, "", PermanentError, "418"),
    ],
)
def test_each_refusal_has_its_own_words(
    hub: Answers, status: int, code: str, error: type[Exception], words: str
) -> None:
    hub.replies = [(status, {"X-Error-Code": code}, {"error": "no"})]
    with pytest.raises(error, match=words):
        hub_tree.list_tree(hub.content, REPO, SHA)


def test_a_hub_that_recovers_is_waited_for_and_one_that_asks_for_long_is_not(hub: Answers) -> None:
    hub.replies = [(503, {}, b""), (200, {}, [entry("a.json")])]
    assert len(hub_tree.list_tree(hub.content, REPO, SHA)) == 1
    hub.replies = [(429, {"Retry-After": "200"}, b"")]
    with pytest.raises(HubUnavailable) as caught:
        hub_tree.list_tree(Content(hub.endpoint, None), REPO, SHA)
    assert caught.value.retry_after == 200


@given(body=st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["type", "path", "size", "oid", "lfs"]), inner, max_size=5),
    max_leaves=12,
).map(lambda document: json.dumps(document).encode()))  # fmt: skip
def test_whatever_comes_is_files_or_refused(body: bytes) -> None:
    try:
        files = [hub_tree._file(item, "here") for item in hub_tree._entries(body, "here")]
    except CorruptArtifact:
        return
    assert all(isinstance(file.path, str) and isinstance(file.size, int) for file in files)
