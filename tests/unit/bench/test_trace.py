"""Traces: what is taken, and that what is wrong is said by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.bench import trace
from trainyard.bench.trace import Row, Trace, parse_trace, place_of, read_trace
from trainyard.errors import Refused

MOONCAKE = b"""\
{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 2353, 2354]}
{"timestamp": 30535, "input_length": 6472, "output_length": 0, "hash_ids": [46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 2366]}
"""  # noqa: E501


def rows(*documents: Any) -> bytes:
    return "\n".join(json.dumps(document) for document in documents).encode()


def problems(data: bytes) -> list[str]:
    with pytest.raises(Refused) as caught:
        parse_trace(data, "t.jsonl")
    return [str(problem) for problem in caught.value.problems]


def test_a_mooncake_trace_has_moments_lengths_and_shared_blocks() -> None:
    found = parse_trace(MOONCAKE)
    first, second = found.rows
    assert (first.at, first.prompt_tokens, first.output_tokens) == (0.0, 6955, 52)
    assert (second.at, second.output_tokens) == (3.053, 1)  # no server takes a limit of no token
    assert first.blocks[:12] == second.blocks[:12]
    assert (found.timed, found.seconds, found.longest_request(1, 1)) == (True, 3.053, 7007)


def test_a_plain_trace_may_leave_anything_out_and_is_put_in_order() -> None:
    found = parse_trace(rows({"at": 5, "prompt": "later"}, {"at": 2.5, "prompt_tokens": 7}))
    assert found.rows == (Row(0.0, prompt_tokens=7), Row(2.5, prompt="later"))
    assert [row.asks for row in (*found.rows, Row(), Row(blocks=(1, 2)))] == [7, 1, None, 1024]
    assert (found.longest_prompt(5), found.longest_request(5, 9)) == (7, 16)
    untimed = parse_trace(rows({"prompt_tokens": 3, "output_tokens": 4, "type": "chat"}))
    assert untimed.rows == (Row(None, 3, 4),)
    assert not untimed.timed


def test_what_is_wrong_is_said_by_its_line_and_all_at_once() -> None:
    found = problems(
        rows({"prompt_tokens": 1}, {"prompt_tokens": 0}, {"output_tokens": "9"}, [])
        + b"\n{\n"
        + rows({"prompt_tokens": 600, "hash_ids": [1, 2, 3]}, {"prompt": 5}, {"at": "noon"}, {"at": 1})
    )
    for line, words in (
        ("t.jsonl:2: prompt_tokens = 0", "from 1 to"),
        ("t.jsonl:3: output_tokens = '9'", "whole number"),
        ("t.jsonl:4 = 'list of 0'", "no JSON object"),
        ("t.jsonl:5 = '{'", "no JSON"),
        ("t.jsonl:6: hash_ids = 'list of 3'", "an id stands for 512"),
        ("t.jsonl:7: prompt = 5", "must be a text"),
        ("t.jsonl:8: at = 'noon'", "number of seconds"),
        ("t.jsonl:9 = 1.0", "all requests have a moment"),
    ):
        assert any(problem.startswith(line) and words in problem for problem in found), (line, found)


def test_half_a_surrogate_pair_is_no_text_that_could_be_sent() -> None:
    assert "prompt" in problems(rb'{"prompt": "\ud800"}')[0]
    assert "hash_ids" in problems(rb'{"hash_ids": [1, "\ud800"]}')[0]


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trace, "MAX_LINES", 2)
    assert "more than 2 requests" in problems(rows({}, {}, {}))[0]
    monkeypatch.setattr(trace, "MAX_BYTES", 10)
    assert "larger than" in problems(b" " * 11)[0]
    assert "holds no request" in problems(b"\n \n")[0]
    assert len(problems(b"{\n" * 4)) <= trace.MOST_PROBLEMS
    path = tmp_path / "long.jsonl"
    path.write_bytes(b" " * 11)
    with pytest.raises(Refused, match="larger than"):
        read_trace(path)
    with pytest.raises(Refused, match=r"nowhere\.jsonl.* cannot be read"):
        read_trace(tmp_path / "nowhere.jsonl")


FIELDS = ("timestamp", "at", "input_length", "prompt_tokens", "output_length", "hash_ids", "prompt")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400) | st.text(max_size=5)
LINE = st.one_of(
    st.binary(max_size=40),
    st.dictionaries(
        st.sampled_from(FIELDS),
        st.recursive(
            SCALARS,
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
            ),
            max_leaves=4,
        ),
        max_size=4,
    ).map(lambda row: json.dumps(row).encode()),
)


@given(st.lists(LINE, max_size=6))
def test_any_bytes_are_a_trace_or_refused(lines: list[bytes]) -> None:
    try:
        found = parse_trace(b"\n".join(lines))
    except Refused as error:
        str(error).encode()
        return
    assert isinstance(found, Trace)
    moments = [row.at for row in found.rows if row.at is not None]
    assert moments == sorted(moments)
    assert not moments or (len(moments) == len(found.rows) and moments[0] == 0)
    for row in found.rows:
        assert row.prompt_tokens is None or row.prompt_tokens >= 1
        assert row.output_tokens is None or row.output_tokens >= 1
        "/".join([row.prompt, *map(str, row.blocks)]).encode()


def test_a_trace_in_s3_is_named_by_bucket_and_key_or_by_a_key_of_ours() -> None:
    assert place_of("s3://other/traces/a.jsonl", "ours") == ("other", "traces/a.jsonl")
    assert place_of("traces/a.jsonl", "ours") == ("ours", "traces/a.jsonl")
    for wrong in ("s3://", "s3://bucket", "s3://bucket/", "/a", "a/"):
        with pytest.raises(Refused, match="names no object"):
            place_of(wrong, "ours")
