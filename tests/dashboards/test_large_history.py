"""Every page over months of made-up history, and its notebooks: nothing goes wrong, and what is shown is right."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import attrs
import pytest
from dashboard_site import ROOT, Site, configure, start_dashboards
from playwright.sync_api import Browser, Page, Request, expect
from test_notebooks import run
from test_pages import FRESH as FRESH_BEFORE
from test_pages import look, settle

from penstock.demo import Scale, write_demo
from penstock.state.database import hosted_database
from penstock.warehouse import connect
from penstock.warehouse.home import warehouse_location

SCALE = Scale(projects=6, days=120, seed=5, findings=60)
PAGES = {
    "": "demo-shop/web",
    "runs": "demo-shop",
    "findings": "Age and pace",
    "diff?project=demo-shop": "brought",
    "components": "most used first",
    "components?q=log4j-core": "Live now",
    "gates": "Every threshold",
    "deployments": "deployments a week",
    "tests": "passed and failed on one and the same commit",
    "scanners": "Noisy rules",
    "sql": "Tables and their columns",
}
FRESH = {
    "diff": "step.scan_sast",
    "gates": "step.scan_sast",
    "tests": "JUnit XML",
    "scanners": "step.scan_sast",
    "components": "CycloneDX",
}
HINT = "'text/markdown': '> "
NOTEBOOKS = ("deployments", "flaky-tests", "gate-backtest")


@attrs.frozen
class Large:
    """Dashboards over made-up history, and the branch of demo-shop that was scanned last."""

    site: Site
    branch: str


@pytest.fixture(scope="module")
def large() -> Iterator[Large]:
    """Months of several projects."""
    with ExitStack() as stack:
        settings = configure(stack)
        database = stack.enter_context(hosted_database(settings))
        write_demo(settings, database, SCALE)
        with connect(warehouse_location(settings), read_only=True) as lake:
            query = "SELECT arg_max(branch, committed_at) FROM scans WHERE project = 'demo-shop' AND branch <> 'main'"
            (branch,) = lake.execute(query).fetchone() or ("",)
        yield Large(Site(start_dashboards(stack, settings), settings, None), branch)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A wide, light screen."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("path", PAGES)
def test_every_page_bears_months_of_history(path: str, page: Page, large: Large, tmp_path: Path):
    """On narrow and wide, light and dark screens, and no browser asks any other server for anything."""
    asked: list[str] = []

    def keep(request: Request) -> None:
        if not request.url.startswith((large.site.url, "data:", "blob:")):
            asked.append(request.url)

    page.on("request", keep)
    look(page, f"{large.site.url}/{path}", PAGES[path], tmp_path)
    assert asked == []


def test_new_pages_say_what_to_do_when_there_is_nothing(page: Page, fresh: Site, tmp_path: Path):
    """Each of the pages that the first test of empty pages does not open."""
    assert not set(FRESH) & set(FRESH_BEFORE)
    for path, text in FRESH.items():
        look(page, f"{fresh.url}/{path}", text, tmp_path)


def test_who_runs_a_component_leads_to_the_commit_that_brought_it(page: Page, large: Large):
    """From the list of names to where it runs, and from there to the commit."""
    page.goto(f"{large.site.url}/components")
    page.get_by_role("link", name="org.apache.logging.log4j:log4j-core").click(timeout=30_000)
    expect(page).to_have_url(re.compile("q=.*log4j-core"), timeout=30_000)
    live = page.locator(".ps-table", has_text="since commit")
    expect(live.locator("tbody tr", has_text="demo-shop").first).to_be_visible(timeout=30_000)
    live.locator("tbody tr a").first.click()
    expect(page).to_have_url(re.compile("diff.*commit="), timeout=30_000)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("log4j-core < 0.1", "services run it"),
        ("no-such-thing", "has ever named"),
        ("< 1", "no component is named"),
        ("a <", "is no range of versions"),
        ("<script>alert(1)</script>", "no component is named"),
    ],
)
def test_question_without_an_answer_says_so(page: Page, large: Large, asked: str, answer: str):
    """Nothing found, or no question: one line each."""
    page.goto(f"{large.site.url}/components?{urlencode({'q': asked})}")
    expect(page.get_by_text(answer).first).to_be_visible(timeout=30_000)
    assert page.get_by_test_id("stException").count() == 0


def test_a_stricter_policy_stops_more(page: Page, large: Large):
    """The address says which policy; more commits are stopped by a lower threshold."""
    stopped = [
        _tile(page, f"{large.site.url}/gates?severity={name}", "would have been stopped")
        for name in ("critical", "low")
    ]
    assert stopped[0] < stopped[1]


def test_a_branch_is_held_against_the_default_one(page: Page, large: Large):
    """A link to a branch shows what merging it would bring."""
    page.goto(f"{large.site.url}/diff?project=demo-shop&branch={large.branch}")
    expect(page.get_by_text("beside")).to_be_visible(timeout=30_000)
    settle(page)
    assert page.get_by_test_id("stException").count() == 0


def test_a_stopped_commit_leads_to_what_it_brought(page: Page, large: Large):
    """From the backtest to the commit's findings."""
    page.goto(f"{large.site.url}/gates?project=demo-shop&severity=medium")
    page.locator(".ps-brief tbody tr a").first.click(timeout=30_000)
    expect(page).to_have_url(re.compile("diff.*commit="), timeout=30_000)
    expect(page.get_by_role("heading", name="Brought")).to_be_visible(timeout=30_000)


def test_long_names_leave_the_message_its_room(page: Page, large: Large):
    """Beside the longest author, a message is not broken after every word."""
    page.goto(f"{large.site.url}/findings?words=oosterbaan")
    cell = page.locator("td.wide span").first
    expect(cell).to_be_visible(timeout=30_000)
    assert cell.evaluate("each => each.getBoundingClientRect().width") >= 150


def test_deployments_of_one_project_are_counted_for_it(page: Page, large: Large):
    """Its figures are fewer than everybody's."""
    every = _tile(page, f"{large.site.url}/deployments", "deployments a week")
    one = _tile(page, f"{large.site.url}/deployments?project=demo-shop", "deployments a week")
    assert 0 < one < every


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_over_months_of_history(large: Large, name: str):
    """Each ends with charts and tables, and no hint that something is missing."""
    shown = run(ROOT / f"notebooks/{name}.ipynb", large.site.settings.home)
    assert "vega" in shown
    assert HINT not in shown


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_without_anything_say_what_to_do(name: str):
    """Over an empty PENSTOCK_HOME every question ends in a hint, not in an error."""
    with ExitStack() as stack:
        shown = run(ROOT / f"notebooks/{name}.ipynb", configure(stack).home)
    assert HINT in shown
    assert "vega" not in shown


def _tile(page: Page, url: str, name: str) -> float:
    page.goto(url)
    tile = page.locator(".ps-tile", has_text=name)
    expect(tile).to_be_visible(timeout=30_000)
    settle(page)
    return float(tile.locator("strong").inner_text())
