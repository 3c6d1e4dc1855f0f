"""What the Hub's cache of compiled models answers."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.jobs.hub_lookup import look_up, read_answer

TABLE = """
 Cached entries for org/name
   batch size    sequence length  tensor parallel      dtype       instance type
       4              4096               8           bfloat16          trn2
"""
RICH = """
                    Cached entries for org/name
┏━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━┓
┃ batch size ┃ sequence length ┃
┡━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━┩
│     4      │      4096       │
└────────────┴─────────────────┘
"""


@pytest.mark.parametrize(
    ("code", "text", "outcome", "words"),
    [
        (0, TABLE, "hit", "4 4096 8 bfloat16 trn2"),
        (0, RICH, "hit", "4096"),
        (0, "*** 3 entrie(s) found in cache for org/name.***\n\ntask: x", "hit", "3 entrie(s)"),
        (0, "*** 0 entrie(s) found in cache for org/name.***", "miss", "0 entrie(s)"),
        (0, "No cached entries found for org/name.\n", "miss", "No cached"),
        (0, "", "miss", "no entries"),
        (1, "Traceback\nrequests.ConnectionError: no route", "unreachable", "no route"),
        (-9, "", "unreachable", "no output"),
    ],
)
def test_the_tools_answers_are_understood(code: int, text: str, outcome: str, words: str) -> None:
    answer = read_answer(code, text)
    assert answer.outcome == outcome
    assert words in answer.words


@given(st.integers(-9, 255), st.text(max_size=200))
def test_any_answer_is_one_of_three(code: int, text: str) -> None:
    assert read_answer(code, text).outcome in ("hit", "miss", "unreachable")


def test_a_tool_that_hangs_is_not_waited_for() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    answer = look_up([sys.executable, "-S", "-c", program], {}, seconds=0.3)
    assert (answer.outcome, answer.words) == ("unreachable", "no answer in 0 s")


def test_a_tool_that_is_not_there_is_no_failure() -> None:
    assert look_up(["no-such-tool"], {}).outcome == "unreachable"
