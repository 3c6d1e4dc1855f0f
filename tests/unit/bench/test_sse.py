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


def test_comments_and_other_fields_are_no_data() -> None:
    assert Events().feed(b": ping\n\nevent: x\nid: 3\ndata:a\ndata:  b\n\n") == [b"a\n b"]


def test_an_event_is_given_out_only_when_it_is_complete() -> None:
    parser = Events()
    assert parser.feed(b"data: [DONE]\n") == []
    assert parser.feed(b"\n") == [b"[DONE]"]
