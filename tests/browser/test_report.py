"""The report in a real browser: Debian's Chromium, headless, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.unit.bench.test_figures import climbed
from tests.unit.report.test_report import EVIL, document
from trainyard.bench.cost import Hardware, economy
from trainyard.bench.knee import sweep
from trainyard.report.document import Report
from trainyard.report.html import render_html

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed"),
]

MOST_MILLISECONDS = 180_000
# Without these Chromium asks hosts of its own, which no test may.
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")

# What sticks out of the window, unless it lies in a box that scrolls by itself.
STICKS_OUT = """() => [...document.querySelectorAll('main *')].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && !one.closest('pre, .scroll') && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(one => one.outerHTML.slice(0, 120))"""
# Words of a plot that are cut off at its edge, or that lie on those of another tick of the same axis.
UNREADABLE = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const edge = svg.getBoundingClientRect(), found = [], placed = [];
  for (const text of svg.querySelectorAll('text')) {
    const box = text.getBoundingClientRect();
    if (box.left < edge.left - 1 || box.right > edge.right + 1 || box.bottom > edge.bottom + 1)
      found.push('cut: ' + text.textContent);
    if (text.getAttribute('text-anchor') === 'middle' && text.classList.contains('tick')) {
      if (placed.some(other => box.left < other.right && other.left < box.right)) found.push('over: ' + text.textContent);
      placed.push(box);
    }
  }
  return found.map(words => svg.querySelector('title').textContent + ': ' + words);
})"""  # noqa: E501


def shown() -> Report:
    """Two arms with everything that a phase can have, and hostile words of a server."""
    described = document(slow=1.4, errors=0.1, pairs=80)
    phase = described["phases"][0]
    failed = next(row for row in phase["samples"] if not row["ok"])
    failed["detail"] = f"{EVIL}<img src=x onerror=alert(1)>" + "longword" * 30
    samples, schedule = climbed([4.0, 10.0, 40.0], 0.05)
    phase["summary"]["sweep"] = sweep(samples, ["canary"], schedule, seed=3)
    phase["summary"]["generator"] |= {"scheduled": 160, "achieved": 1.0, "send_lag_p99_seconds": 0.0012}
    for figures in phase["summary"]["arms"].values():
        figures["economy"] = economy(figures, Hardware(cores=8, dollars_per_hour=4.0, price="a price list"))
    return Report.from_dict(described)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        found = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(QUIET), timeout=MOST_MILLISECONDS
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def markup() -> str:
    return render_html(shown())


def opened(browser: Browser, markup: str, width: int, scheme: Any = "light") -> Page:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.set_default_timeout(MOST_MILLISECONDS)
    page.set_content(markup)
    return page


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_and_every_label_can_be_read(browser: Browser, markup: str, width: int) -> None:
    page = opened(browser, markup, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(STICKS_OUT) == []
    assert page.evaluate(UNREADABLE) == []
    assert page.locator("svg").count() == 12
    page.close()


def test_it_is_dark_where_the_reader_wants_it_dark(browser: Browser, markup: str) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        page = opened(browser, markup, 390, scheme)
        colours = page.evaluate(
            "['body', 'section', 'svg text'].map(one => getComputedStyle(document.querySelector(one)))"
            ".map((style, i) => i < 2 ? style.backgroundColor : style.fill)"
        )
        seen[scheme] = [sum(map(int, colour[4:-1].split(","))) / 3 for colour in colours]
        page.close()
    assert min(seen["light"][:2]) > 230
    assert max(seen["dark"][:2]) < 50
    assert seen["dark"][2] > seen["light"][2]


def test_it_asks_nobody_for_anything_and_runs_no_words_of_a_server(browser: Browser, markup: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_default_timeout(MOST_MILLISECONDS)
    asked, ran = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (ran.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: ran.append(message.text))
    page.set_content(markup, wait_until="networkidle")
    assert (asked, ran) == ([], [])
    assert page.get_by_text("<img src=x onerror=alert(1)>").count() >= 1
    page.close()
