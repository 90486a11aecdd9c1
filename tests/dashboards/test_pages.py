"""Every page in a real browser: two widths, light and dark, with and without history."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard_history import HOSTILE_TITLE, Known
from dashboard_site import Site
from playwright.sync_api import Browser, Page, expect

import dashboards

WIDTHS = (1280, 420)
SCHEMES = ("light", "dark")
MENU = (
    *(
        "Overview",
        "Runs",
        "Findings",
        "Commit diff",
        "Components",
        "Gates",
        "Approvals",
        "Deployments",
        "Environments",
        "Tests",
        "Scanners",
    ),
    *("Events", "Connect", "Editor", "SQL"),
)

FRESH = {
    "": "penstock project add",
    "runs": "penstock run",
    "findings": "step.scan_sast",
    "approvals": "Nothing waits for anybody",
    "deployments": "step.deploy",
    "environments": "There is no environment.",
    "sql": "There is no warehouse yet",
    "run": "No run is named in the address",
    "finding": "No finding is named in the address",
}
"""Page → what it tells somebody who has nothing yet."""


def filled_pages(known: Known) -> dict[str, str]:
    """Page → something that it shows of the history."""
    return {
        "": "shop/web",
        "runs": "test_total_is_rounded_once",
        f"run?id={known.failed_run}": "assert Decimal('9.99') == Decimal('10.00')",
        f"run?id={known.running_run}": "sast begins",
        "findings": "Pickle of data that came over the network.",
        finding_page(known): "CWE-502",
        "deployments": f"#{known.live_release}",
        "sql": "Tables and their columns",
    }


def finding_page(known: Known) -> str:
    """The page of the finding that the failed run's commit brought."""
    return f"finding?project=shop&branch=main&fingerprint={known.introduced_fingerprint}"


def look(page: Page, url: str, text: str, folder: Path) -> None:
    """Open `url`, see `text` and nothing that went wrong on every kind of screen, keep a picture of each."""
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    page.goto(url)
    expect(page.get_by_text(text).first).to_be_visible(timeout=30_000)
    settle(page)
    name = re.sub(r"\W+", "-", url.split("/", 3)[3].partition("&fingerprint")[0]) or "overview"
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            settle(page)
            expect(page.get_by_test_id("stApp")).to_have_css("color-scheme", scheme)
            page.screenshot(path=folder / f"{name}-{width}-{scheme}.png")
        expect(page.get_by_text(text).first).to_be_visible(timeout=30_000)
        main = page.get_by_test_id("stMain")
        assert main.evaluate("each => each.scrollWidth <= each.clientWidth"), f"{url} is wider than {width}"
    assert page.get_by_test_id("stException").count() == 0, page.inner_text("body")
    assert page.locator(".ps-trouble").all_inner_texts() == []


def settle(page: Page) -> None:
    """Wait until Streamlit has nothing left to draw."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=30_000)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A wide, light screen."""
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900}, color_scheme="light")
    yield context.new_page()
    context.close()


def test_every_page_shows_the_history_and_no_secret(page: Page, filled: Site, tmp_path: Path):
    """On narrow and wide, light and dark screens, without scrolling sideways; the token is on no page."""
    assert filled.known
    token = (filled.settings.home / "token").read_text()
    for path, text in filled_pages(filled.known).items():
        look(page, f"{filled.url}/{path}", text, tmp_path)
        content = page.content()
        assert token not in content
        assert "postgresql://" not in content


def test_every_empty_page_says_what_to_do(page: Page, fresh: Site, tmp_path: Path):
    """Without anything, each page says what to type next."""
    for path, text in FRESH.items():
        look(page, f"{fresh.url}/{path}", text, tmp_path)


def screens() -> list[str]:
    """The address of every page."""
    folder = Path(dashboards.__file__).parent / "screens"
    return ["" if each.stem == "overview" else each.stem for each in sorted(folder.glob("*.py"))]


# No repository of the history is anywhere and no API answers, which these say; their own tests have both.
NEED_MORE = ("editor", "plugins", "environments", "approvals")


@pytest.mark.parametrize("path", screens())
def test_every_page_can_be_opened_first(path: str, browser: Browser, filled: Site):
    """By its address alone, in a browser that was never there: with its frame and style, narrow and dark."""
    width, scheme = min(WIDTHS), SCHEMES[-1]
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    missing: list[str] = []
    page.on("response", lambda answer, missing=missing: missing.append(answer.url) if answer.status >= 400 else None)
    page.goto(f"{filled.url}/{path}")
    expect(page.get_by_test_id("stApp")).to_be_visible(timeout=30_000)
    settle(page)
    main = page.get_by_test_id("stMain")
    expect(main.locator("h1, .ps-hint, .ps-muted").first).to_be_visible(timeout=30_000)
    assert page.get_by_test_id("stException").count() == 0, page.inner_text("body")
    assert path in NEED_MORE or page.locator(".ps-trouble").all_inner_texts() == []
    assert page.get_by_text("Page not found").count() == 0
    assert main.evaluate("each => each.scrollWidth <= each.clientWidth"), f"{path} is wider than {width}"
    assert [url for url in missing if "_stcore" not in url] == []
    context.close()


def test_menu_leads_to_every_page(page: Page, filled: Site):
    """The pages can be reached by the menu; `run` and `finding` are not in it."""
    page.goto(filled.url)
    for name in MENU:
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible(timeout=30_000)
    assert page.get_by_role("link", name="Run", exact=True).count() == 0


def test_text_of_a_repository_is_never_markup(page: Page, filled: Site):
    """A commit's title and a log's line with HTML in them are shown as they are written."""
    assert filled.known
    page.goto(f"{filled.url}/runs")
    expect(page.get_by_text(HOSTILE_TITLE).first).to_be_visible(timeout=30_000)
    page.goto(f"{filled.url}/run?id={filled.known.failed_run}")
    line = page.locator(".ps-log", has_text="<img src=x onerror=alert(1)> is only text")
    expect(line).to_be_visible(timeout=30_000)
    assert "\x1b" not in line.inner_text()
    assert page.locator(".ps-log img").count() == 0


def test_runs_are_filtered_by_the_address(page: Page, filled: Site):
    """A link with filters shows what whoever sent it saw."""
    page.goto(f"{filled.url}/runs?project=shop&state=failed")
    expect(page.locator(".ps-table tbody tr").first).to_be_visible(timeout=30_000)
    rows = page.locator(".ps-table tbody tr").all_inner_texts()
    assert rows
    assert all("failed" in row and "shop" in row for row in rows)


def test_filters_are_kept_in_the_address(page: Page, filled: Site):
    """Choosing a severity changes the address, so that it can be sent to somebody."""
    page.goto(f"{filled.url}/findings")
    page.get_by_role("button", name="critical", exact=True).click(timeout=30_000)
    expect(page).to_have_url(re.compile("severity=critical"), timeout=30_000)
    expect(page.locator(".ps-brief tbody tr", has_text="high")).to_have_count(0, timeout=30_000)


def test_a_finding_leads_to_who_brought_it(page: Page, filled: Site):
    """From the list to the finding: what it says, the commit that introduced it, its author, and the run."""
    page.goto(f"{filled.url}/findings?project=shop&severity=critical&words=network")
    page.get_by_role("link", name="B301").first.click(timeout=30_000)
    expect(page.get_by_text("Pickle of data that came over the network.")).to_be_visible(timeout=30_000)
    expect(page.locator(".ps-table", has_text="introduced")).to_be_visible(timeout=30_000)
    page.locator(".ps-table a").last.click()
    expect(page.get_by_role("heading", name="Findings introduced")).to_be_visible(timeout=30_000)


def test_log_is_searched(page: Page, filled: Site):
    """Only lines with the words are left, with the words marked."""
    assert filled.known
    page.goto(f"{filled.url}/run?id={filled.known.failed_run}")
    page.get_by_label("Search").fill("line 17", timeout=30_000)
    page.get_by_label("Search").press("Enter")
    expect(page.locator(".ps-log mark")).to_have_text(["line 17"], timeout=30_000)


def test_log_is_followed(page: Page, filled: Site):
    """A line that a running step prints appears by itself."""
    from penstock.pipeline.log import FileLog, log_path

    assert filled.known
    page.goto(f"{filled.url}/run?id={filled.known.running_run}")
    expect(page.get_by_text("sast begins")).to_be_visible(timeout=30_000)
    with FileLog(log_path(filled.settings.home, filled.known.running_run, "sast")) as log:
        log.output(b"a line that came later\n")
    expect(page.get_by_text("a line that came later")).to_be_visible(timeout=30_000)


def test_cancel_asks_first_and_says_what_is_wrong(page: Page, filled: Site):
    """Nothing is cancelled before it is confirmed; a platform that cannot do it is one line."""
    assert filled.known
    page.goto(f"{filled.url}/run?id={filled.known.running_run}")
    page.get_by_role("button", name="Cancel …").click(timeout=30_000)
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel the run").click(timeout=30_000)
    expect(dialog.get_by_role("alert")).to_contain_text("Dagster", timeout=30_000)


def test_a_run_that_has_ended_cannot_be_cancelled(page: Page, filled: Site):
    """There is no button for it."""
    assert filled.known
    page.goto(f"{filled.url}/run?id={filled.known.failed_run}")
    expect(page.get_by_text("42 lines")).to_be_visible(timeout=30_000)
    assert page.get_by_role("button", name="Cancel …").count() == 0


def test_sql_is_answered(page: Page, filled: Site):
    """A question of one's own has its rows, and they can be taken away as CSV."""
    page.goto(f"{filled.url}/sql?q=SELECT+count(*)+AS+n+FROM+scans")
    page.get_by_role("button", name="Run").click(timeout=30_000)
    expect(page.get_by_text("1 rows")).to_be_visible(timeout=30_000)
    with page.expect_download(timeout=30_000) as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    assert download.value.path().read_text().startswith("n\n")


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELEC 1", "syntax error"),
        ("DELETE FROM runs", "only reading is possible here"),
        ("FROM read_text('/etc/passwd')", "is not allowed"),
        ("SELECT * FROM findigs", 'did you mean "findings"?'),
    ],
)
def test_sql_that_is_wrong_is_one_line(page: Page, filled: Site, query: str, answer: str):
    """Nothing but reading tables is possible, and a mistake is explained without a traceback."""
    page.goto(f"{filled.url}/sql?q={query}")
    page.get_by_role("button", name="Run").click(timeout=30_000)
    expect(page.get_by_role("alert")).to_contain_text(answer, timeout=30_000)
    assert page.get_by_test_id("stException").count() == 0


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("run?id=nobody", 'no run is called "nobody"'),
        ("run?id=%3Cscript%3E", 'no run is called "<script>"'),
        ("finding?project=shop&fingerprint=none", "No finding is called that"),
        ("runs?words=nothing+is+called+that", "No run is like that"),
        ("findings?words=nothing+is+called+that", "No open finding is like that"),
    ],
)
def test_an_address_that_leads_nowhere_says_so(page: Page, filled: Site, path: str, text: str):
    """A wrong or old link is one line, not a traceback."""
    page.goto(f"{filled.url}/{path}")
    expect(page.get_by_text(text)).to_be_visible(timeout=30_000)
    assert page.get_by_test_id("stException").count() == 0
