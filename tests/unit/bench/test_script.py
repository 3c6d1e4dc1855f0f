"""What a run asks: the same seed the same, whatever shape it has."""

from __future__ import annotations

import json
import statistics
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.bench.pictures import HEAD, Painter
from trainyard.bench.script import Dialogue, Script, Turn
from trainyard.bench.shapes import Conversation, Images, Lengths, Prefix
from trainyard.bench.trace import BLOCK_TOKENS
from trainyard.bench.warmup import visits
from trainyard.bench.words import Shared, prompt
from trainyard.bench.workload import Workload
from trainyard.errors import Refused


def turns(workload: Workload, count: int, seed: object = 1) -> list[Turn]:
    script = Script(workload, seed)
    return [script.turn(number) for number in range(count)]


def words(turn: Turn) -> int:
    return len(turn.text.split())


@st.composite
def lengths(draw: st.DrawFn) -> Lengths:
    low, median, high = sorted(draw(st.tuples(*[st.integers(1, 2000)] * 3)))
    return Lengths(median=median, sigma=draw(st.floats(0, 5)), min=low, max=high)


@given(lengths(), lengths(), st.integers(0, 99))
@settings(max_examples=50)
def test_lengths_stay_within_their_bounds_and_one_seed_asks_one_thing(
    prompts: Lengths, outputs: Lengths, seed: int
) -> None:
    workload = Workload(prompt_lengths=prompts, output_lengths=outputs)
    asked = turns(workload, 5, seed)
    assert asked == turns(workload, 5, seed)
    assert all(prompts.min <= words(turn) <= prompts.max for turn in asked)
    assert all(outputs.min <= turn.output_tokens <= outputs.max for turn in asked)


def test_log_normal_lengths_have_the_median_and_the_spread_that_was_asked_for() -> None:
    shape = Lengths(median=200, sigma=0.7, max=100_000)
    found = sorted(shape.sample(number) for number in range(20_000))
    assert statistics.median(found) == pytest.approx(200, rel=0.02)
    # The 84th percentile of a log-normal is one sigma above its median.
    assert found[16_827] == pytest.approx(200 * 2.718281828**0.7, rel=0.03)


def test_without_shapes_prompts_are_as_long_as_said_and_share_no_beginning() -> None:
    asked = turns(Workload(prompt_tokens=50, output_tokens=9), 20)
    assert {words(turn) for turn in asked} == {50}
    assert {turn.output_tokens for turn in asked} == {9}
    assert len({turn.text[:20] for turn in asked}) == 20
    assert turns(Workload(prompt_tokens=50), 1, seed=2) != asked[:1]


def test_prefixes_are_shared_by_groups_and_come_before_the_prompts_own_words() -> None:
    asked = turns(Workload(prompt_tokens=10, prefix=Prefix(groups=3, tokens=100)), 60)
    beginnings = {" ".join(turn.text.split()[:100]) for turn in asked}
    assert len(beginnings) == 3
    assert {words(turn) for turn in asked} == {110}
    assert len({turn.text for turn in asked}) == 60


def test_shared_texts_are_kept_as_far_as_memory_is_meant_for_them() -> None:
    few, many = Shared(most=50), Shared()
    for number in [0, 1, 2, 0, 0, 1]:
        assert few.text(10, str(number)) == many.text(10, str(number)) == prompt(10, str(number))
    assert many.text(10, "0") is many.text(10, "0")
    assert few.text(10, "0") is not many.text(10, "0")


def test_a_conversation_numbers_its_turns_as_pairs_and_begins_once() -> None:
    workload = Workload(
        prompt_tokens=10,
        prefix=Prefix(groups=1, tokens=30),
        conversation=Conversation(turns=3, think_seconds=2),
        images=Images(width=16, height=16),
    )
    script = Script(workload, 1)
    asked = [script.turn(talk, number) for talk in range(2) for number in range(3)]
    assert [turn.pair for turn in asked] == list(range(6))
    assert [words(turn) for turn in asked] == [40, 10, 10] * 2
    assert [len(turn.pictures) for turn in asked] == [1, 0, 0] * 2
    assert script.think(0, 0) == 0
    pauses = [script.think(talk, 1) for talk in range(2000)]
    assert statistics.mean(pauses) == pytest.approx(2, rel=0.1)
    assert max(pauses) <= 20
    assert script.think(3, 1) == Script(workload, 1).think(3, 1)


def test_a_dialogue_repeats_what_was_said_with_the_arms_own_answers() -> None:
    talk = Dialogue()
    script = Script(Workload(prompt_tokens=4, conversation=Conversation(turns=2)), 1)
    first = talk.ask(script.turn(0, 0))
    talk.hear("mine")
    second = talk.ask(script.turn(0, 1))
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[:1] == first
    assert second[1]["content"] == "mine"
    plain = Workload(chat=False).payload("m", second)
    assert plain["prompt"] == "\n".join(message["content"] for message in second)


def traced(folder: Path, *rows: dict[str, Any], **more: Any) -> Workload:
    path = folder / "trace.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return Workload.from_dict({"trace": str(path), "prompt_tokens": 5, "output_tokens": 6, **more})


def test_a_trace_says_lengths_blocks_and_texts_and_the_workload_what_it_leaves_out(tmp_path: Path) -> None:
    workload = traced(
        tmp_path,
        {"input_length": 1200, "output_length": 7, "hash_ids": [0, 1, 2]},
        {"input_length": 1100, "output_length": 8, "hash_ids": [0, 1, 3]},
        {"prompt": "just this", "output_tokens": 3},
        {"output_tokens": 2},
    )
    one, two, three, four, again, *_ = turns(workload, 6)
    shared = 2 * BLOCK_TOKENS
    assert [words(turn) for turn in (one, two, four)] == [1200, 1100, 5]
    assert [turn.output_tokens for turn in (one, two, three, four)] == [7, 8, 3, 2]
    assert one.text.split()[:shared] == two.text.split()[:shared]
    assert one.text.split()[shared:][:20] != two.text.split()[shared:][:20]
    assert three.text == "just this"
    # The trace once more: as long, and nothing that a cache would know.
    assert words(again) == 1200
    assert again.text[:40] != one.text[:40]
    assert workload.longest_prompt == 1200


def test_the_moments_of_a_trace_drive_an_open_loop_at_any_speed(tmp_path: Path) -> None:
    rows = [{"timestamp": 1000 * number, "input_length": 9} for number in range(11)]
    replay = {"process": "trace", "speed": 4}
    workload = traced(tmp_path, *rows, arrivals=replay, duration_seconds=2)
    assert workload.schedule is not None
    assert workload.schedule.schedule(1) == [number / 4 for number in range(9)]  # as far as 2 s reach
    assert workload.most_requests(1) == 9
    with pytest.raises(Refused, match="no trace with moments"):
        Workload.from_dict({"arrivals": {"process": "trace"}})
    with pytest.raises(Refused, match="no trace with moments"):
        traced(tmp_path, {"input_length": 4}, arrivals={"process": "trace"})
    with pytest.raises(Refused, match=r"arrivals\.rate"):
        traced(tmp_path, *rows, arrivals={"process": "trace", "rate": 3})


def test_how_many_requests_an_open_loop_sends_at_most_is_known() -> None:
    document = {"duration_seconds": 10, "arrivals": {"process": "constant", "rate": 5}}
    assert Workload.from_dict(document).most_requests(1) == 50
    assert Workload.from_dict({**document, "conversation": {"turns": 3}}).most_requests(1) == 150
    assert Workload.from_dict({**document, "requests": 7}).most_requests(1) == 7
    assert Workload.from_dict({"requests": 7}).most_requests(1) == 7
    assert Workload().most_requests(1) is None


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"prompt_lengths": {"median": 5, "sigma": 1}}, r"prompt_lengths\.max = None: is missing"),
        ({"prompt_lengths": {"median": 50, "sigma": 1, "max": 9}}, "not within min and max"),
        ({"output_lengths": {"median": 5, "sigma": float("nan"), "max": 9}}, "from 0 to 5"),
        ({"prefix": {"groups": 0, "tokens": 5}}, r"prefix\.groups = 0"),
        ({"prefix": 5}, "prefix = 5: is no object"),
        ({"conversation": {"turns": 2.5}}, "whole number from 2"),
        ({"conversation": {"turns": 2, "users": 2}}, r"conversation\.users"),
        ({"images": {"width": 10**6, "height": 16}}, r"images\.width"),
        ({"images": {"width": 16, "height": 16}, "chat": False}, "in a chat only"),
        ({"prompt_tokens": 1.5}, "whole number"),
        ({"trace": 5}, "must name a file"),
        ({"arrivals": {"rate": 1000}, "duration_seconds": 7200}, "more than 1000000 requests"),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused_by_field(document: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        Workload.from_dict(document)


def test_a_trace_goes_neither_with_prefixes_nor_with_conversations(tmp_path: Path) -> None:
    for more in ({"prefix": {"groups": 1, "tokens": 1}}, {"conversation": {"turns": 2}}):
        with pytest.raises(Refused, match="does not go with a trace"):
            traced(tmp_path, {}, **more)


def test_a_workload_survives_its_way_to_the_generators_as_json() -> None:
    from dataclasses import asdict

    workload = Workload(
        prompt_lengths=Lengths(median=5, sigma=1, max=9),
        prefix=Prefix(groups=2, tokens=3),
        conversation=Conversation(turns=2),
        images=Images(width=20, height=30),
    )
    assert Workload.from_dict(json.loads(json.dumps(asdict(workload)))) == workload


@pytest.mark.parametrize(("width", "height"), [(16, 16), (512, 300), (17, 4)])
def test_a_picture_is_a_png_of_its_size_and_unlike_every_other(width: int, height: int) -> None:
    painter = Painter(width, height)
    one, same, other = painter.png(1), Painter(width, height).png(1), painter.png(2)
    assert one == same != other
    assert one.startswith(HEAD)
    kinds, pixels, at = [], b"", len(HEAD)
    while at < len(one):
        (size,) = struct.unpack_from(">I", one, at)
        kind, data = one[at + 4 : at + 8], one[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + data) == struct.unpack_from(">I", one, at + 8 + size)[0]
        if kind == b"IHDR":
            assert struct.unpack(">IIBBBBB", data) == (width, height, 8, 2, 0, 0, 0)
        pixels += data if kind == b"IDAT" else b""
        kinds.append(kind)
        at += 12 + size
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    assert len(zlib.decompress(pixels)) == height * (1 + 3 * width)  # which checks its Adler-32


@given(st.integers(1, 200_000), st.integers(1, 64))
def test_a_warm_up_visits_every_bucket_of_prompts_and_of_batches(longest: int, batch: int) -> None:
    asked = visits(longest, batch)
    assert all(1 <= tokens <= max(1, 0.9 * longest) for tokens, _ in asked)
    for upper in [128 * 2**power for power in range(12)]:
        lower = upper // 2 if upper > 128 else 0
        reached = min(upper, longest)
        if reached > lower and (lower + reached) // 2 <= int(0.9 * longest):
            assert any(lower < tokens <= reached for tokens, _ in asked), (lower, upper)
    batches = {together for _, together in asked}
    assert batches == {1, batch} | {2**power for power in range(7) if 2**power < batch}
