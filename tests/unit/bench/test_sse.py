"""Event streams are read the same, wherever they were split."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from trainyard.bench.sse import Events

LINE = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=12)


@given(
    st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 10_000), max_size=10),
)
def test_events_survive_any_line_end_and_any_split(
    events: list[list[str]], end: str, cuts: list[int]
) -> None:
    text = "".join("".join(f"data: {line}{end}" for line in event) + end for event in events)
    data = (text + f": a comment{end}").encode()
    parser, found = Events(), []
    bounds = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, stop in pairwise(bounds):
        found += parser.feed(data[start:stop])
    assert found == ["\n".join(event).encode() for event in events]


@given(st.sampled_from(["\n", "\r\n", "\r"]), st.integers(1, 40))
def test_an_event_is_given_out_with_the_last_byte_that_it_needs(end: str, size: int) -> None:
    """Who waited for what may follow a "\r" would stamp it late, and never see the last one."""
    data = f"data: one{end}{end}data: two{end}{end}".encode()
    parser, found = Events(), []
    for start in range(0, len(data), size):
        found += parser.feed(data[start : start + size])
        found += parser.feed(b"")
        seen = data[: start + size].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        assert len(found) == seen.count(b"\n\n")
    assert found == [b"one", b"two"]


@given(st.lists(st.integers(0, 40), max_size=6), st.sampled_from([b"", b": hello\n", b"\n"]))
def test_a_byte_order_mark_belongs_to_no_line(cuts: list[int], first: bytes) -> None:
    mark = b"\xef\xbb\xbf"
    data = mark + first + b"data: a\n\n" + mark + b"data: of another field\n\ndata: b\n\n"
    parser, found = Events(), []
    bounds = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, stop in pairwise(bounds):
        found += parser.feed(data[start:stop])
    assert found == [b"a", b"b"]


def test_comments_and_other_fields_are_no_data() -> None:
    assert Events().feed(b": ping\n\nevent: x\nid: 3\ndata:a\ndata:  b\n\n") == [b"a\n b"]


def test_an_event_is_given_out_only_when_it_is_complete() -> None:
    parser = Events()
    assert parser.feed(b"data: [DONE]\n") == []
    assert parser.feed(b"\n") == [b"[DONE]"]
