"""The report is one file that shows what happened, whatever the names in it are."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.rollout.simulated import simulate
from trainyard.bench.cost import Hardware, economy
from trainyard.bench.samples import Sample
from trainyard.bench.summary import summarize
from trainyard.report.canvas import Linear, Log, Odds, ticks
from trainyard.report.climbs import climb
from trainyard.report.curves import sorted_values
from trainyard.report.document import Report, from_record
from trainyard.report.figures import load, stopped
from trainyard.report.html import render_html
from trainyard.report.plots import ecdf, over_baseline, tail
from trainyard.report.text import render_summary, render_text
from trainyard.report.timeline import over_time, weight_steps
from trainyard.rollout.judge import judge
from trainyard.rollout.verdict import Objectives

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "link", "br", "img", "input", "hr", "col"}


def phase(name: str, **knobs: Any) -> dict[str, Any]:
    summary, samples = simulate(5, tokens=8, **knobs)
    verdict = judge(
        summary, samples, Objectives(ttft_p95_seconds=1, itl_p95_seconds=0.1), baseline_expected=True
    )
    return {
        "name": name,
        "summary": summary,
        "verdict": verdict.to_dict(),
        "samples": [sample.to_row() for sample in samples],
    }


def document(name: str = "tiny", **knobs: Any) -> dict[str, Any]:
    return {
        "release": {
            "id": f"{name}@1",
            "model": name,
            "outcome": "rolled_back",
            "reason": f"{name} was slower",
            "started_at": "2026-01-01T10:00:00Z",
            "finished_at": "2026-01-01T10:03:20Z",
            "facts": {f"Revision of {name}": name},
            "links": {f"DAG run of {name}": "http://127.0.0.1:1/x", "bad": "javascript:alert(1)", name: name},
        },
        "timeline": [
            {"name": name, "started_at": "2026-01-01T10:00:00Z", "finished_at": "2026-01-01T10:01:40Z",
             "note": name},
            {"name": "step_1", "state": "failed", "started_at": "2026-01-01T10:01:40Z",
             "finished_at": "2026-01-01T10:03:20Z"},
            {"name": "promote", "state": "skipped"},
        ],
        "weights": [
            {"at": "2026-01-01T10:02:00Z", "percent": {f"{name}@1": 5}},
            {"at": "2026-01-01T10:03:00Z", "percent": {f"{name}@1": 0}},
        ],
        "phases": [phase(name, **knobs)],
        "devices": [{"name": name, "state": name, "text": name}],
        "log": [name, "last line"],
    }  # fmt: skip


class Reader(HTMLParser):
    """Checks that tags close in order, and collects what a page loads or runs."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    reader = read(render_html(Report.from_dict(document(slow=2.5))))
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert "url(" not in render_html(Report.from_dict(document()))
    hrefs = [attributes.get("href") or "" for tag, attributes in reader.tags if tag == "a"]
    assert all(href.startswith(("#", "http://127.0.0.1:1/", "tiny")) for href in hrefs)


def test_names_with_markup_in_them_stay_text() -> None:
    page = render_html(Report.from_dict(document(name=EVIL)))
    assert "<script" not in page.lower()
    assert "javascript:" not in re.sub(r">[^<]*<", "><", page)
    read(page)


def test_the_page_says_what_decided_and_by_how_much() -> None:
    page = render_html(Report.from_dict(document(slow=2.5)))
    assert "rolled back" in page
    assert "tiny was slower" in page
    assert re.search(r"itl p50 \d+ ms is 2\.\d+ x the baseline&#39;s", page)
    assert "last line" in page
    assert "3 min 20 s" in page
    first_check = page.index('<span class="badge fail">', page.index("<tbody>"))
    assert first_check < page.index('<span class="badge pass">', page.index("<tbody>"))


def test_everything_that_is_seen_can_also_be_heard() -> None:
    reader = read(render_html(Report.from_dict(document())))
    plots = [attributes for tag, attributes in reader.tags if tag == "svg"]
    assert len(plots) == 10
    assert all(plot["role"] == "img" for plot in plots)
    assert sum(tag == "desc" for tag, _ in reader.tags) == 10
    assert all("scope" in attributes for tag, attributes in reader.tags if tag == "th")
    assert ("html", {"lang": "en"}) in reader.tags


def test_the_page_fits_phones_and_both_colour_schemes() -> None:
    page = render_html(Report.from_dict(document()))
    assert 'name="viewport" content="width=device-width' in page
    assert "prefers-color-scheme: dark" in page


def test_words_beside_a_plot_are_not_cut_off_and_the_knee_does_not_cross_the_limits() -> None:
    assert re.search(r"\nsvg \{[^}]*overflow: visible", render_html(Report.from_dict(document())))
    steps = {"server": [{"offered": 5.0, "ttft_p95": 0.2}, {"offered": 10.0, "ttft_p95": 0.2}]}
    drawn = str(climb(steps, {"server": 10.0}, 0.6))
    knee = re.search(r'class="knee [^"]*" x1="([\d.]+)"', drawn)
    limit = re.search(r'x="([\d.]+)" y="[\d.]+" text-anchor="start">limit<', drawn)
    assert knee is not None
    assert limit is not None
    assert float(limit[1]) + 40 < float(knee[1])


def _contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_has_enough_contrast_in_both_schemes() -> None:
    page = render_html(Report.from_dict({"release": {"id": "r", "model": "m"}}))
    schemes = re.findall(r":root \{([^}]*--page[^}]*)\}", page)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", scheme))
        pairs = [("text", "card"), ("dim", "card"), ("dim", "track"), ("text", "page"), ("link", "card")]
        pairs += [(name, f"{name}-bg") for name in ("pass", "fail", "unsure", "fault")]
        assert {
            pair: _contrast(colours[pair[0]], colours[pair[1]]) >= 4.5 for pair in pairs
        } == dict.fromkeys(pairs, True)
        assert all(_contrast(colours[arm], colours["card"]) >= 3 for arm in ("canary", "baseline"))


def test_a_release_that_never_measured_anything_has_a_report_too() -> None:
    report = Report.from_dict(
        {"release": {"id": "r", "model": "m", "outcome": "failed", "reason": "no chips"}}
    )
    assert "no chips" in render_html(report)
    assert render_text(report) == "r: failed\n  no chips"


def test_the_text_report_tells_arms_and_failed_checks_in_a_few_lines() -> None:
    text = render_text(Report.from_dict(document(slow=2.5)))
    assert text.startswith("tiny@1: rolled back after 3 min 20 s\n  tiny was slower\n  [-] tiny: fail\n")
    assert "canary: 40 requests, 0 failed; p50/p95 ttft" in text
    assert " - itl p50 " in text
    assert " + " not in text


def test_a_ledger_record_becomes_a_report() -> None:
    summary, samples = simulate(5, tokens=8)
    verdict = judge(
        summary, samples, Objectives(ttft_p95_seconds=1, itl_p95_seconds=0.1), baseline_expected=True
    )
    record = {
        "id": "tiny-1",
        "model": "tiny",
        "state": "rolled_back",
        "outcome": "",
        "created_at": "2026-01-01T10:00:00.000Z",
        "updated_at": "2026-01-01T10:01:00.000Z",
        "run": "manual__1",
        "plan": {"revision": "f" * 40, "engine": "optimum", "chips": 2},
        "stages": {"plan": {"state": "done", "started_at": "2026-01-01T10:00:00.000Z", "finished_at": None}},
        "weights": [{"at": "2026-01-01T10:00:30.000Z", "percent": {"tiny-1": 5}}],
        "verdicts": {"load": {**verdict.to_dict(), "summary": summary, "summary_text": verdict.summary}},
        "failure": {"stage": "step_1", "error": "VerdictFailed", "message": "slower\nby far"},
        "links": {},
    }
    report = from_record(record, {"load": samples}, log=["line of the server"])
    assert report.reason == "slower"
    assert report.phases[0].verdict == verdict
    assert report.log == ("step_1: VerdictFailed", "slower", "by far", "line of the server")
    page = render_html(report)
    assert "f" * 40 in page
    assert page.count("<svg") == 10


@given(st.floats(1e-6, 1e6))
def test_ticks_are_round_and_few(high: float) -> None:
    found = ticks(high)
    assert found[0] == 0
    assert 2 <= len(found) <= 6
    assert found[-1] <= high * 1.001


@settings(max_examples=20)
@given(st.integers(1, 30), st.floats(0, 1), st.sampled_from(["ttft", "itl", "tpot", "e2e"]))
def test_plots_of_any_samples_hold_only_numbers(pairs: int, errors: float, metric: str) -> None:
    _, samples = simulate(pairs, pairs=pairs, errors=errors, tokens=3)
    arms = sorted_values(samples, metric)
    found = [ecdf(metric, arms, limit=0.05), tail(metric, arms, limit=0.05)]
    found += [
        over_time("ttft", samples),
        over_time("e2e", samples),
        over_baseline({metric: arms}, allowed=1.2),
    ]
    for plot in found:
        if plot is None:
            assert errors > 0 or pairs < 10  # of no success, or too few, there is no distribution
            continue
        assert "nan" not in plot
        assert "inf" not in plot


def test_no_data_gives_no_plot() -> None:
    assert ecdf("ttft", {}) is tail("ttft", {}) is over_baseline({"ttft": {}}) is None
    assert over_time("ttft", []) is None
    assert weight_steps([], 0.0) is None


@pytest.mark.parametrize("points", [[(5.0, 10.0)], [(5.0, 5.0), (5.0, 50.0)]])
def test_a_single_moment_can_be_drawn(points: list[tuple[float, float]]) -> None:
    assert "M" in str(weight_steps(points, points[0][0]))


@given(st.floats(1e-7, 1e3), st.floats(1.01, 1e6))
def test_logarithmic_ticks_are_few_and_lie_within(low: float, times: float) -> None:
    scale = Log(low, low * times)
    found = scale.ticks()
    assert len(found) <= 6
    assert found == sorted(found)
    assert all(0 <= scale.share(tick) <= 1 for tick in found)
    assert times < 12 or found


@given(st.floats(-10, 1e9), st.sampled_from([Linear(5.0, 1.0), Log(0.1, 10.0), Odds(0.1, 0.999)]))
def test_nothing_is_drawn_outside_of_a_plot(value: float, scale: Linear | Log | Odds) -> None:
    assert 0 <= scale.share(value) <= 1


def test_what_a_server_said_is_shown_and_inert() -> None:
    shown = document()
    rows = shown["phases"][0]["samples"]
    rows[0] |= {"ok": False, "error": "error_event", "detail": f"{EVIL}<img src=x onerror=alert(1)>"}
    rows[1] |= {"ok": False, "error": EVIL, "detail": EVIL}
    samples = [Sample.from_row(row) for row in rows]
    shown["phases"][0]["summary"]["arms"] = summarize(samples, [EVIL, "canary", "baseline"])
    page = render_html(Report.from_dict(shown))
    tags = {tag for tag, _ in read(page).tags}
    assert not tags & {"script", "img"}
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "an error inside an answer that began with 200" in page


def test_the_page_names_no_address_but_those_that_it_was_given() -> None:
    page = render_html(Report.from_dict(document(slow=2.5)))
    assert set(re.findall(r"https?://[^\s\"<]+", page)) == {"http://127.0.0.1:1/x"}
    assert not re.search(r"@import|url\(|src=|<link", page)


def test_the_page_begins_with_the_verdict_and_its_reasons_then_figures_then_plots() -> None:
    shown = document(slow=2.5)
    shown["phases"][0]["summary"] |= {
        "stopped": {"at": 12.0, "reasons": ["itl"]},
        "workload": {"max_loop_lag_seconds": 0.1, "max_cpu_share": 0.9},
        "sweep": {
            "canary": {
                "steps": [
                    {"offered": 5.0, "served": 5.0, "ttft_p95": 0.1, "failed": 0.0, "good": True},
                    {"offered": 9.0, "served": 7.0, "ttft_p95": 0.9, "failed": 0.0, "good": False},
                ],
                "knee": {"offered": 5.0, "served": 5.0, "ttft_p95": 0.1, "failed": 0.0, "good": True},
                "limit": 0.3,
            }
        },
    }
    shown["phases"][0]["summary"]["generator"] |= {"cpu_share": 0.25}
    arms = shown["phases"][0]["summary"]["arms"]
    arms["canary"]["economy"] = economy(
        arms["canary"], Hardware(cores=8, dollars_per_hour=4.0, price="a price")
    )
    arms["canary"]["goodput"] = {"limits": {"ttft": 0.5}, "requests_per_second": 1.5, "share": 0.75}
    page = render_html(Report.from_dict(shown))
    places = [
        page.index(words)
        for words in (
            'class="reasons"', "<h3>Latencies</h3>", "Time per output token",
            "Throughput, goodput, cost", "75.0 %", "Output tokens/s per core", "$ per million output tokens",
            "within ttft 500 ms", "a price", "Distributions", "Canary over baseline", "Over the run",
            "Sweep to the knee", "keeps up until 5 requests/s", "Load generator", "allowed 90 %",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    assert "An alarm stopped it after 12 s. What was in flight" in page
    shown["phases"][0]["verdict"] = None
    assert "An alarm stopped it after 12 s: itl. What was in flight" in render_html(Report.from_dict(shown))
    assert page.count("<svg") == 12


def test_a_summary_of_the_first_version_is_shown_with_what_it_has() -> None:
    shown = document()
    for own in shown["phases"][0]["summary"]["arms"].values():
        for key in ("input_tokens_per_second", "lengths", "goodput", "tpot", "ttft_from_intended"):
            own.pop(key, None)
    report = Report.from_dict(shown)
    page = render_html(report)
    assert "Output tokens/s" in page
    assert "Input tokens/s" not in page
    assert "canary: 40 requests" in render_text(report)
    assert "\n".join(render_summary(report.phases[0].summary)).count("tpot") == 0


def test_a_phase_that_an_alarm_ended_says_when_and_why() -> None:
    ended = {"pairs": 40, "alarm": 23.1, "reasons": ["itl", "e2e"]}
    assert stopped({"stopped": ended}) == "after 40 pairs: itl, e2e"
    assert stopped({"stopped": {}}) == stopped({}) == ""
    assert stopped({"stopped": {"reasons": ["itl"]}}) == "early: itl"
    assert "stopped by an alarm after 40 pairs" in "\n".join(render_summary({"stopped": ended}))


def test_a_phase_of_real_traffic_alone_is_shown_without_a_load() -> None:
    summary = {"synthetic": False, "arms": {}, "generator": {"valid": True, "reasons": []}}
    page = render_html(
        Report.from_dict(
            {"release": {"id": "r", "model": "m"}, "phases": [{"name": "s", "summary": summary}]}
        )
    )
    assert "Load: none of ours, real traffic was watched." in page
    assert "<svg" not in page
    assert "Load generator" not in page


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ({"concurrency": 8}, "closed loop, 8 at once"),
        ({"arrivals": {"process": "gamma", "rate": 2.5}}, "open loop, gamma, 2.5 requests/s"),
        (
            {
                "arrivals": {
                    "stages": [{"seconds": 1, "rate": 0, "to": 50}, {"seconds": 1, "rate": 50.0, "to": 50}]
                }
            },
            "open loop, poisson, 0 to 50, 50 requests/s",
        ),
        ({"arrivals": {"process": "trace", "speed": 2}}, "open loop, a trace"),
        ({"arrivals": {"offsets": [0, 1]}}, "open loop, a trace"),
        ({}, ""),
    ],
)
def test_the_load_is_said_in_words(workload: dict[str, Any], words: str) -> None:
    assert load({"workload": workload}) == words
    if words:
        own = {"lengths": {"prompt": {"p50": 256}, "output": {"p50": 64}}}
        said = load({"workload": workload, "arms": {"canary": own}})
        assert said == f"{words}; 256 tokens in, 64 out (medians)"
