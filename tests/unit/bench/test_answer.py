"""An answer is read the same the short way and the long way, wherever its bytes are split."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.bench.answer import PLAIN_END, Answer
from trainyard.bench.http1 import MalformedResponse

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TEXT = st.one_of(
    st.text(min_size=1, max_size=6),
    st.sampled_from(
        ["tok ", "1", '"content":"', "\\", '"', "\n", "é", "0", '"completion_tokens":9', "\u00a0"]
    ),
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(document: object) -> bytes:
    return f"data: {document if isinstance(document, str) else json.dumps(document)}\n\n".encode()


def token(text: str, count: int | None, *, plain: bool, compact: bool) -> bytes:
    document: dict[str, Any] = {
        "id": "a0",
        "choices": [{"index": 0, **({"text": text} if plain else {"delta": {"content": text}})}],
    }
    if count is not None:
        document["usage"] = {"prompt_tokens": 3, "total_tokens": 3 + count, "completion_tokens": count}
    words = json.dumps(document, ensure_ascii=compact, separators=(",", ":") if compact else None)
    return chunk(f"data: {words}\n\n".encode())


def read(pieces: list[bytes], *, short: bool = True, together: int = 1) -> Answer:
    """together: so many of the usual kind are kept back and handed over at once, as the hub does."""
    answer = Answer(stream=True)
    kept: list[tuple[bytes, float]] = []

    def hand_over() -> None:
        if kept:
            answer.feed_each(*map(list, zip(*kept, strict=True)))  # type: ignore[arg-type]
            kept.clear()

    for number, piece in enumerate(pieces):
        if not short:
            answer._template = None
        if together > 1 and answer.plain and piece.endswith(PLAIN_END):
            kept.append((piece, float(number)))
            if len(kept) < together:
                continue
            hand_over()
        else:
            hand_over()
            if answer.feed(piece, float(number)):
                break
    hand_over()
    answer.conclude()
    return answer


@given(
    st.lists(st.tuples(TEXT, st.integers(0, 3)), min_size=1, max_size=12),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(1, 5),
)
def test_the_short_way_reads_what_json_reads(
    tokens: list[tuple[str, int]], plain: bool, counted: bool, compact: bool, together: int
) -> None:
    pieces, total = [HEAD], 0
    for text, new in tokens:
        total += new
        pieces.append(token(text, total if counted else None, plain=plain, compact=compact))
    usage = {"prompt_tokens": 3, "total_tokens": 3 + total, "completion_tokens": total}
    pieces += [chunk(event({"choices": [], "usage": usage})), chunk(event("[DONE]")), b"0\r\n\r\n"]
    one, other = read(pieces, together=together), read(pieces, short=False)
    assert one.text == other.text == "".join(text for text, _ in tokens)
    assert one.tokens() == other.tokens()
    assert one.usage == other.usage == usage
    assert (one.error, one.first, one.chunks) == (other.error, other.first, other.chunks)
    assert one.last == other.last


@given(st.lists(TEXT, min_size=1, max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
def test_an_answer_is_the_same_wherever_it_is_split(texts: list[str], cuts: list[int]) -> None:
    data = HEAD + b"".join(
        token(text, number, plain=False, compact=True) for number, text in enumerate(texts, start=1)
    )
    data += chunk(event("[DONE]")) + b"0\r\n\r\n"
    bounds = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    answer = read([data[start:stop] for start, stop in pairwise(bounds)])
    assert (answer.text, answer.error) == ("".join(texts), "")
    assert answer.usage is not None
    assert answer.usage["completion_tokens"] == len(texts) == sum(count for _, count in answer.tokens())


def test_nearly_all_pieces_of_a_usual_stream_go_the_short_way() -> None:
    parsed: list[bytes] = []

    class Counting(Answer):
        def _parse(self, data: bytes) -> dict[str, Any]:
            parsed.append(data)
            return super()._parse(data)

    answer = Counting(stream=True)
    answer.feed(HEAD, 0.0)
    for count in range(1, 101):
        answer.feed(token(f" word{count}", count, plain=False, compact=True), float(count))
    assert len(parsed) == 1
    assert sum(tokens for _, tokens in answer.tokens()) == 100


def test_chunks_that_arrive_together_are_read_the_short_way_too() -> None:
    tokens = [token(f"word{count} ", count, plain=False, compact=True) for count in range(1, 30)]
    answer = read([HEAD + tokens[0], b"".join(tokens[1:20]), b"".join(tokens[20:]) + chunk(event("[DONE]"))])
    assert (answer.chunks, answer.error) == (29, "")
    assert [stamp for stamp, _ in answer.tokens()] == [0.0] + [1.0] * 19 + [2.0] * 9


def test_counts_go_on_where_a_stream_is_cut_before_its_last_count() -> None:
    answer = read([HEAD, *(token("t ", count, plain=False, compact=True) for count in (1, 2, 3))])
    assert answer.error == "cut"
    assert answer.usage == {"prompt_tokens": 3, "total_tokens": 6, "completion_tokens": 3}


def test_an_event_that_differs_in_more_than_text_and_numbers_is_parsed() -> None:
    usual = token("t ", 1, plain=False, compact=True)
    ends = usual.replace(b'"index":0', b'"index":0,"finish_reason":"stop"')
    ends = chunk(ends.split(b"\r\n", 1)[1][:-2])
    answer = read([HEAD, usual, ends])
    assert (answer.finish_reason, answer.text) == ("stop", "t t ")
    failing = chunk(event({"error": {"message": "engine died"}}))
    assert read([HEAD, usual, failing]).error == "error_event"


def test_pieces_that_are_read_together_keep_their_own_stamps() -> None:
    pieces = [HEAD, *(token("t ", count, plain=False, compact=True) for count in range(1, 80))]
    answer = read(pieces, together=64)
    assert [stamp for stamp, _ in answer.tokens()] == [float(number) for number in range(1, 80)]
    assert (answer.chunks, answer.error) == (79, "cut")
    failing = read([*pieces, chunk(event({"error": {"message": "engine died"}}))], together=64)
    assert (failing.chunks, failing.error) == (79, "error_event")


@given(st.lists(st.sampled_from(["usual", "longer", "shorter", "two", "half", "other", "deep"]), max_size=6))
def test_pieces_of_another_kind_among_those_read_together_are_read_as_what_they_are(kinds: list[str]) -> None:
    pieces, count = [HEAD, token("t ", 1, plain=False, compact=True)], 1
    for kind in kinds:
        count += 1
        usual = token("t ", count, plain=False, compact=True)
        size, _, rest = usual.partition(b"\r\n")
        made = {
            "usual": usual,
            "longer": b"%x\r\n%s" % (int(size, 16) + 1, rest),  # than it says: not HTTP
            "shorter": b"%x\r\n%s" % (int(size, 16) - 1, rest),
            "two": usual + token("t ", count + 1, plain=False, compact=True),
            "half": usual[:20],
            "other": token("t ", count, plain=True, compact=True),
            "deep": token("t\\", count, plain=False, compact=True),
        }
        pieces.append(made[kind])
        count += kind == "two"
    ends: list[object] = []
    for together in (1, 4):
        try:
            answer = read(pieces, together=together)
            ends.append((answer.text, answer.tokens(), answer.error, answer.detail, answer.usage))
        except MalformedResponse as error:
            ends.append(str(error))
    assert ends[0] == ends[1]


@given(st.lists(st.integers(0, 400), max_size=6))
def test_an_answer_that_is_complete_in_one_read_with_its_head_is_whole(cuts: list[int]) -> None:
    """Role, text, counts and [DONE] at once, as a fast server sends them, however they are split."""
    role = chunk(event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}))
    usage = {"prompt_tokens": 3, "total_tokens": 4, "completion_tokens": 1}
    data = HEAD + role + token("t", 1, plain=False, compact=True)
    data += chunk(event({"choices": [], "usage": usage})) + chunk(event("[DONE]")) + b"0\r\n\r\n"
    bounds = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    answer = read([data[start:stop] for start, stop in pairwise(bounds)])
    assert (answer.error, answer.text, answer.done) == ("", "t", True)
    assert answer.first is not None


def test_an_answer_with_a_role_and_no_text_is_empty_and_has_no_first_token() -> None:
    role = chunk(event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}))
    answer = read([HEAD + role + chunk(event("[DONE]")) + b"0\r\n\r\n"])
    assert (answer.error, answer.first) == ("empty", None)


USAGE = {"prompt_tokens": 3, "total_tokens": 6, "completion_tokens": 3}
ENDS = [chunk(event({"choices": [], "usage": USAGE})), chunk(event("[DONE]"))]


def compact(document: dict[str, Any]) -> bytes:
    return chunk(event(json.dumps(document, separators=(",", ":"))))


def said(text: str, index: int = 0, **more: Any) -> dict[str, Any]:
    """A chunk of one choice, in the order in which some servers write."""
    return {"choices": [{"delta": {"content": text}, "index": index}], **more}


def whole(body: bytes, *, kind: str = "application/json", more: str = "", status: int = 200) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ends_as(data: bytes, *, stream: bool) -> Answer:
    answer = Answer(stream=stream)
    if not answer.feed(data, 1.0):
        answer.close()
    answer.conclude()
    return answer


@pytest.mark.parametrize(
    "more",
    [
        {"usage": {"completion_tokens": None, "prompt_tokens": 70}},
        {"usage": {"completion_tokens": 5.0, "prompt_tokens": 70}},
        {"usage": {"completion_tokens": "5", "prompt_tokens": 70}},
        {"usage": None, "timings": {"completion_tokens": 5, "prompt_tokens": 70}},
    ],
)
def test_a_number_that_is_no_count_of_the_answer_is_not_taken_for_one(more: dict[str, Any]) -> None:
    pieces = [HEAD, *(compact(said(text, **more)) for text in "abc"), *ENDS]
    one, other = read(pieces), read(pieces, short=False)
    assert one.tokens() == other.tokens() == [(1.0, 1), (2.0, 1), (3.0, 1)]
    assert one.usage == other.usage == USAGE


def test_half_a_character_is_text() -> None:
    """JSON can name one half of a surrogate pair, and servers that count in those split there."""
    answer = read([HEAD, *(compact(said(text)) for text in ("\ud83d", "\ude00", "c")), *ENDS])
    assert (answer.error, answer.text) == ("", "\ud83d\ude00c")
    assert [count for _, count in answer.tokens()] == [1, 1, 1]


@pytest.mark.parametrize("text", ["", "c"])
def test_a_count_that_comes_with_the_last_chunk_only_is_of_all_chunks(text: str) -> None:
    """Several servers send it with the chunk that has the finish reason, and none of its own."""
    last = {"choices": [{"delta": {"content": text}, "finish_reason": "length"}], "usage": USAGE}
    texts = ["a", "b"] if text else ["a", "b", "c"]
    answer = read([HEAD, *(compact(said(text)) for text in texts), compact(last), ENDS[1]])
    assert (answer.error, answer.text) == ("", "abc")
    assert answer.tokens() == [(1.0, 1), (2.0, 1), (3.0, 1)]


@pytest.mark.parametrize("short", [True, False])
def test_counts_of_several_choices_are_not_taken_for_those_of_the_answer(short: bool) -> None:
    pieces = [HEAD]
    for count in (1, 2, 3):
        usage = {"prompt_tokens": 3, "total_tokens": 3 + count, "completion_tokens": count}
        pieces += [compact(said("t", index, usage=usage)) for index in (0, 1)]
    total = {"prompt_tokens": 3, "total_tokens": 9, "completion_tokens": 6}
    answer = read([*pieces, chunk(event({"choices": [], "usage": total})), ENDS[1]], short=short)
    assert [count for _, count in answer.tokens()] == [1] * 6
    assert answer.usage == total


def test_what_follows_a_document_in_its_event_is_not_overlooked() -> None:
    two = chunk(event(json.dumps(said("a")) + json.dumps(said("b"))))
    assert read([HEAD, two, *ENDS]).error == "malformed"
    spaced = chunk(event(json.dumps(said("abc")) + " "))
    assert read([HEAD, spaced, *ENDS]).error == ""


@pytest.mark.parametrize("end", [chunk(event("[DONE]")), chunk(event({"error": "engine died"}))])
def test_what_a_server_appends_to_its_end_changes_nothing_however_it_is_split(end: bytes) -> None:
    """A server that breaks down while it answers may write the head of a 500 into its stream."""
    pieces = [HEAD, compact(said("abc")), ENDS[0], end, b"HTTP/1.1 500 Oops\r\n\r\n"]
    one, other = read(pieces), read([b"".join(pieces)])
    assert one.error == other.error == ("" if b"DONE" in end else "error_event")
    assert one.text == other.text == "abc"


def test_the_media_type_of_a_stream_may_be_written_in_any_case() -> None:
    head = HEAD.replace(b"text/event-stream", b"Text/Event-Stream\r\nContent-Encoding: none")
    pieces = [head, compact(said("abc")), *ENDS]
    assert read(pieces).error == ""


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_of_another_kind_than_was_asked_for_is_malformed_and_not_empty(stream: bool) -> None:
    error = b'{"error":"no"}'
    assert ends_as(whole(error), stream=True).detail.endswith(
        'no event stream but application/json: {"error":"no"}'
    )
    assert ends_as(whole(error), stream=True).error == "malformed"
    assert ends_as(whole(error), stream=False).error == "error_event"
    assert ends_as(whole(event("[DONE]"), kind="text/event-stream"), stream=False).error == "malformed"
    packed = ends_as(whole(b"\x1f\x8b", more="Content-Encoding: gzip\r\n"), stream=stream)
    assert (packed.error, "gzip" in packed.detail) == ("malformed", True)
    assert ends_as(whole(b""), stream=stream).error == "empty"


@pytest.mark.parametrize("status", [301, 429, 503])
def test_a_status_counts_even_where_its_body_is_cut(status: int) -> None:
    answer = ends_as(whole(b"too busy", status=status)[:-4], stream=True)
    assert (answer.error, answer.detail) == (f"http_{'5' if status > 500 else '4'}xx", f"{status}: too ")
    broken = Answer(stream=True)
    broken.feed(whole(b"too busy", status=status)[:-4], 1.0)
    broken.fail("timeout", "no complete answer")
    assert broken.error == answer.error


def test_a_redirect_says_where_to() -> None:
    answer = ends_as(whole(b"moved", status=307, more="Location: https://there/v1\r\n"), stream=True)
    assert (answer.error, answer.detail) == ("http_4xx", "307: redirects to https://there/v1")


def test_an_answer_in_one_piece_ended_when_its_last_byte_came() -> None:
    body = json.dumps(
        {"choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": 1}}
    ).encode()
    data, answer = whole(body), Answer(stream=False)
    assert (answer.feed(data[:-1], 1.0), answer.ended) == (False, None)
    assert (answer.feed(data[-1:], 2.0), answer.ended) == (True, 2.0)
    unframed = Answer(stream=False)
    unframed.feed(b"HTTP/1.1 200 OK\r\n\r\n" + body, 1.0)
    unframed.close()
    assert unframed.ended is None


@pytest.mark.parametrize("asked", ["3", None, 3.5, True, -3, [3]])
def test_counts_of_another_type_than_a_whole_number_are_none(asked: object) -> None:
    usage = {"prompt_tokens": asked, "completion_tokens": 1}
    answer = read([HEAD, compact(said("a")), chunk(event({"choices": [], "usage": usage})), ENDS[1]])
    assert (answer.error, answer.prompt_tokens, answer.output_tokens) == ("", None, 1)
    usage = {"prompt_tokens": 3, "completion_tokens": asked}
    assert read([HEAD, compact(said("a")), compact(said("b", usage=usage)), ENDS[1]]).error == "no_usage"
