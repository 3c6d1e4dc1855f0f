"""The protocol itself: headers, ranges, redirects, faults in the body."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse, IncompleteRead
from typing import Any
from urllib.error import HTTPError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.hub.files import Unsatisfiable, parse_range

from .conftest import REPO, TOKEN, RunningHub

SHARD = "model-00001-of-00002.safetensors"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def ask(url: str, method: str = "GET", **headers: str) -> HTTPResponse | HTTPError:
    headers = {"Authorization": f"Bearer {TOKEN}"} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        answer: HTTPResponse = urllib.request.build_opener(NoRedirect()).open(request)
    except HTTPError as error:
        return error
    return answer


def test_a_head_names_commit_etag_and_size(hub: RunningHub) -> None:
    answer = ask(f"{hub.url}/{REPO}/resolve/v1/config.json", "HEAD")
    content = (hub.sources[0] / "config.json").read_bytes()
    assert answer.headers["X-Repo-Commit"] == hub.first
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert len(answer.headers["ETag"].strip('"')) == 40


def test_an_lfs_file_redirects_and_links_its_digest(hub: RunningHub) -> None:
    answer = ask(f"{hub.url}/{REPO}/resolve/main/{SHARD}", "HEAD")
    assert answer.status == 302
    assert answer.headers["X-Linked-Size"] == str((hub.sources[1] / SHARD).stat().st_size)
    assert len(answer.headers["X-Linked-ETag"].strip('"')) == 64
    assert "X-Xet-Hash" not in answer.headers
    assert ask(answer.headers["Location"]).read() == (hub.sources[1] / SHARD).read_bytes()


def test_a_range_is_answered_in_part(hub: RunningHub) -> None:
    url = f"{hub.url}/cdn-lfs/{REPO}/{hub.second}/{SHARD}"
    content = (hub.sources[1] / SHARD).read_bytes()
    part = ask(url, Range="bytes=100-199")
    assert (part.status, part.read()) == (206, content[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(content)}"
    assert ask(url, Range="bytes=-10").read() == content[-10:]
    beyond = ask(url, Range=f"bytes={len(content)}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(content)}")


@given(st.integers(1, 500), st.integers(0, 600), st.integers(0, 600))
def test_ranges_stay_inside_the_file(size: int, first: int, last: int) -> None:
    try:
        part = parse_range(f"bytes={first}-{last}", size)
    except Unsatisfiable:
        assert first >= size
        return
    if part is None:
        assert last < first
    else:
        assert (part[0], part[1]) == (first, min(last + 1, size))


@pytest.mark.parametrize("header", [None, "", "bytes=", "bytes=-", "items=1-2", "bytes=1-2,5-6", "bytes=5-2"])
def test_a_range_that_is_none_means_the_whole_file(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/{REPO}/resolve/main/nothing", 404, "EntryNotFound"),
        (f"/{REPO}/resolve/nothing/config.json", 404, "RevisionNotFound"),
        ("/acme/nothing/resolve/main/config.json", 404, "RepoNotFound"),
        (f"/{REPO}/resolve/main/..%2f..%2f..%2frefs.json", 404, "EntryNotFound"),
        (f"/{REPO}/resolve/..%2f..%2fx/config.json", 404, "RevisionNotFound"),
    ],
)
def test_an_error_carries_its_code(hub: RunningHub, path: str, status: int, code: str) -> None:
    answer = ask(hub.url + path)
    assert (answer.status, answer.headers["X-Error-Code"]) == (status, code)


def test_a_status_knob_counts_down(hub: RunningHub) -> None:
    hub.fault(rules=[{"match": "config.json", "status": 503, "count": 2}])
    url = f"{hub.url}/{REPO}/resolve/main/config.json"
    assert [ask(url).status for _ in range(3)] == [503, 503, 200]


def test_a_flipped_bit_changes_one_byte(hub: RunningHub) -> None:
    hub.fault(rules=[{"match": "config.json", "flip_bit": 7}])
    content = (hub.sources[1] / "config.json").read_bytes()
    received = ask(f"{hub.url}/{REPO}/resolve/main/config.json").read()
    assert [place for place, (a, b) in enumerate(zip(content, received, strict=True)) if a != b] == [7]


def test_a_truncated_body_ends_before_its_length(hub: RunningHub) -> None:
    hub.fault(rules=[{"match": "config.json", "truncate": 10}])
    with pytest.raises(IncompleteRead) as cut:
        ask(f"{hub.url}/{REPO}/resolve/main/config.json").read()
    assert len(cut.value.partial) == 10


def test_a_range_can_be_ignored_and_an_etag_move(hub: RunningHub) -> None:
    hub.fault(rules=[{"match": "config.json", "ignore_range": True, "moving_etag": True}])
    url = f"{hub.url}/{REPO}/resolve/main/config.json"
    one, two = ask(url, Range="bytes=5-9"), ask(url)
    assert (one.status, len(one.read())) == (200, (hub.sources[1] / "config.json").stat().st_size)
    assert one.headers["ETag"] != two.headers["ETag"]


def test_an_unchanged_file_is_not_sent_again(hub: RunningHub) -> None:
    url = f"{hub.url}/{REPO}/resolve/main/config.json"
    assert ask(url, If_None_Match=ask(url, "HEAD").headers["ETag"]).status == 304
