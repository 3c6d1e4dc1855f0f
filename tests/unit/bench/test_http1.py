"""Responses are decoded the same, wherever the network split them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.bench.http1 import MalformedResponse, Response

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def feed_in_pieces(data: bytes, cuts: list[int]) -> tuple[Response, bytes]:
    response = Response()
    bounds = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    body = b"".join(response.feed(data[start:end]) for start, end in pairwise(bounds) if start < end)
    return response, body


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    st.lists(st.integers(0, 10_000), max_size=12),
    st.sampled_from([b"", b";name=value"]),
    st.sampled_from([b"", b"X-Trailer: 1\r\n"]),
)
def test_chunked_bodies_survive_any_split(
    chunks: list[bytes], cuts: list[int], extension: bytes, trailer: bytes
) -> None:
    framed = b"".join(b"%X%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n" + trailer + b"\r\n"
    response, body = feed_in_pieces(data, cuts)
    assert body == b"".join(chunks)
    assert response.complete
    assert response.status == 200


@given(st.binary(max_size=60), st.lists(st.integers(0, 10_000), max_size=8))
def test_bodies_of_known_length_survive_any_split(content: bytes, cuts: list[int]) -> None:
    data = HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content
    response, body = feed_in_pieces(data, cuts)
    assert (body, response.complete) == (content, True)


@given(st.integers(0, 200))
def test_a_chunked_body_that_stops_early_is_never_complete(size: int) -> None:
    data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    response = Response()
    response.feed(data[: min(size, len(data) - 1)])
    assert not response.end()


def test_a_body_without_framing_ends_when_the_peer_closes() -> None:
    response = Response()
    assert response.feed(HEAD + b"\r\nabc") + response.feed(b"def") == b"abcdef"
    assert not response.complete
    assert response.end()


def test_interim_responses_are_skipped() -> None:
    response = Response()
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno"
    assert response.feed(data) == b"no"
    assert response.status == 503


def test_a_header_that_goes_on_in_the_next_line_is_one() -> None:
    response = Response()
    assert response.feed(b"HTTP/1.1 200 OK\r\nX-Policy: a;\r\n\t b\r\nContent-Length: 2\r\n\r\nok") == b"ok"
    assert response.headers == {"x-policy": "a; b", "content-length": "2"}


def test_what_stands_before_a_malformed_chunk_is_not_lost() -> None:
    with pytest.raises(MalformedResponse) as raised:
        Response().feed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n")
    assert raised.value.body == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1_0\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000,
    ],
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedResponse):
        Response().feed(data)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_fall_over(data: bytes) -> None:
    response = Response()
    try:
        response.feed(data)
    except MalformedResponse:
        pass
    response.end()
