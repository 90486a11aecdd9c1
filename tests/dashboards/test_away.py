"""What the dashboards say when Penstock's parts are away."""

from contextlib import ExitStack

from dashboard_site import configure, start_dashboards
from playwright.sync_api import Browser, expect

from penstock.settings import create_home


def test_a_database_that_is_away_is_one_line(browser: Browser):
    """Every page says that the database does not answer and what to start, without a traceback."""
    with ExitStack() as stack:
        settings = configure(stack)
        create_home(settings)
        url = start_dashboards(stack, settings)
        page = browser.new_page()
        stack.callback(page.close)
        for path in ("", "sql", "run?id=1"):
            page.goto(f"{url}/{path}")
            alert = page.get_by_role("alert").first
            expect(alert).to_contain_text("does not answer", timeout=30_000)
            assert "\n" not in alert.inner_text().strip()
            assert page.get_by_test_id("stException").count() == 0
