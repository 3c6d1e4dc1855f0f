"""The report as JSON, and few rows out of many."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.report.test_report import document
from tests.unit.rollout.simulated import simulate
from trainyard.bench.samples import Sample, pack, unpack
from trainyard.report import curves
from trainyard.report.data import render_json
from trainyard.report.document import Report
from trainyard.report.thinning import Thinned


def test_the_json_says_what_the_page_says_and_can_be_read_back() -> None:
    report = Report.from_dict(document(slow=2.5))
    found = json.loads(render_json(report))
    assert found["schema"] == "trainyard.report/1"
    again = Report.from_dict(found)
    bare = tuple(replace(phase, samples=()) for phase in report.phases)
    assert again == replace(report, phases=bare)
    phase = found["phases"][0]
    assert set(phase["distributions"]) == {"ttft", "itl", "e2e"}
    assert phase["distributions"]["ttft"]["canary"][-1][0] == 1.0
    assert sum(window["requests"] for window in phase["over_time"]["ttft"]["canary"]) == 40


def test_json_has_no_nan_whatever_a_verdict_holds() -> None:
    shown = document()
    shown["phases"][0]["verdict"]["checks"][0] |= {"limit": math.nan, "high": math.inf}
    found = json.loads(render_json(Report.from_dict(shown)), parse_constant=pytest.fail)
    assert found["phases"][0]["verdict"]["checks"][0]["limit"] is None


def test_thinned_rows_are_of_both_arms_and_of_the_whole_run() -> None:
    _, made = simulate(3, pairs=700, errors=0.05, tokens=2)
    packed = pack(made)
    rows, samples = Thinned(200), unpack(packed)
    rows.add_packed(packed)
    kept = rows.samples()
    good = [sample for sample in kept if sample.ok]
    assert 100 <= len(good) <= 200
    assert abs(sum(sample.arm == "canary" for sample in good) / len(good) - 0.5) < 0.1
    assert max(sample.started for sample in good) > 0.9 * samples[-1].started
    assert 10 <= sum(not sample.ok for sample in kept) <= 50
    assert set(kept) <= set(samples)


def test_few_rows_are_all_kept_and_a_torn_one_is_left_out() -> None:
    _, made = simulate(3, pairs=5, errors=0.5, tokens=2)
    packed = pack(made)
    text, samples = gzip.decompress(packed), unpack(packed)
    rows = Thinned(200)
    rows.add_packed(gzip.compress(text + b'{"arm": "canary", "ok": tr'))
    assert sorted(rows.samples(), key=lambda sample: sample.started) == samples


def test_a_failure_whose_words_look_like_success_is_still_one() -> None:
    row = Sample(arm="canary", started=0.0, error="cut", detail='{"ok":true,"arm":"x"}')
    rows = Thinned(1)
    rows.add_packed(pack([row] * 3 + [Sample(arm="canary", started=1.0, ok=True)]))
    assert [sample.ok for sample in rows.samples()] == [True, False]


@settings(max_examples=30)
@given(st.lists(st.floats(1e-4, 100), min_size=1, max_size=3000))
def test_a_drawn_distribution_goes_through_points_of_the_exact_one(numbers: list[float]) -> None:
    ordered = sorted(numbers)
    points = curves.distribution(ordered)
    assert points[-1] == (1.0, ordered[-1])
    assert len(points) <= 360
    for share, seconds in points[:: max(1, len(points) // 20)]:
        assert seconds == np.quantile(numbers, min(1.0, share - 0.5 / len(numbers)), method="inverted_cdf")


def test_ratios_are_of_quantiles_and_end_where_too_few_values_lie_beyond() -> None:
    base = [1.0 + number / 1000 for number in range(1000)]
    points = curves.ratios([2 * value for value in base], base)
    assert {round(ratio, 9) for _, ratio in points} == {2.0}
    assert points[-1][0] == pytest.approx(0.995)
    assert curves.ratios(base[:9], base[:9]) == []


def test_runs_are_laid_end_to_end_with_a_gap() -> None:
    samples = [
        Sample(arm="a", started=at, run=run) for run, at in ((1, 5.0), (1, 15.0), (2, 900.0), (2, 990.0))
    ]
    shift, length, borders = curves.offsets(samples)
    placed = [sample.started + shift[sample.run] for sample in samples]
    assert placed == pytest.approx([0.0, 10.0, 12.0, 102.0])
    assert length == pytest.approx(102.0)
    assert borders == pytest.approx([11.0])
