"""What a person sees, in Debian's Chromium: the form, the graph, the report inside Airflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.e2e.yard import Yard
from trainyard_cli import demo, records

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed"),
]

MOST_MILLISECONDS = 180_000  # Airflow's UI is megabytes of script: seconds, and on a slow machine many
# Without these Chromium asks hosts of its own, which no test may.
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def page(yard: Yard) -> Iterator[Page]:
    """A tab in which a person has logged in."""
    login = json.loads((yard.stack.home / "airflow-credentials.json").read_text())
    expect.set_options(timeout=MOST_MILLISECONDS)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(_QUIET), timeout=MOST_MILLISECONDS
        )
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        tab.set_default_timeout(MOST_MILLISECONDS)
        tab.goto(yard.airflow.url)
        tab.fill("input[name=username]", login["username"])
        tab.fill("input[name=password]", login["password"])
        tab.click("button[type=submit]")
        tab.wait_for_url(lambda url: "login" not in url)
        yield tab
        browser.close()


def test_the_form_offers_the_catalogue_and_says_what_each_field_is(yard: Yard, page: Page) -> None:
    page.goto(f"{yard.airflow.url}/dags/model_release")
    page.get_by_role("button", name="Trigger").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Branch, tag or commit on the Hub")).to_be_visible()
    dialog.get_by_role("combobox").first.click()
    expect(page.get_by_role("option", name=demo.MODEL, exact=True)).to_be_visible()
    page.keyboard.press("Escape")


def test_the_report_is_a_tab_of_the_run_and_needs_no_script(yard: Yard, page: Page) -> None:
    release = next(item for item in records.releases(demo.MODEL) if item.state == "rolled_back")
    page.goto(f"{yard.airflow.url}/dags/model_release/runs/{release.run}")
    page.get_by_role("link", name="Release report").click()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name=release.id)).to_be_visible()
    expect(frame.get_by_text("What went wrong")).to_be_visible()
    expect(frame.locator("svg").first).to_be_visible()


def test_the_report_fits_a_phone(yard: Yard, page: Page) -> None:
    release = records.releases(demo.MODEL)[0]
    page.set_viewport_size({"width": 390, "height": 800})
    try:
        page.goto(f"{yard.airflow.url}/trainyard/releases/{demo.MODEL}/{release.id}/report")
        expect(page.get_by_role("heading", name=release.id)).to_be_visible()
        too_wide = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert too_wide <= 0
    finally:
        page.set_viewport_size({"width": 1400, "height": 1000})


def test_one_page_says_what_serves(yard: Yard, page: Page) -> None:
    page.goto(f"{yard.airflow.url}/trainyard/")
    stable = records.channel(demo.MODEL).stable
    expect(page.get_by_text(f"Serves {stable}")).to_be_visible()
    expect(page.get_by_role("link", name=str(stable))).to_be_visible()
