"""An answer is read the same the short way and the long way, wherever its bytes are split."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

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
