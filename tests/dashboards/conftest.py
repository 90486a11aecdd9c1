"""Two Penstocks, one without and one with history, each with its real PostgreSQL, API and Streamlit; one Chromium."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from dashboard_history import write_history
from dashboard_site import Site, configure, serving, start_dashboards
from playwright.sync_api import Browser, Error, sync_playwright

from penstock.api.tokens import ensure_local_token
from penstock.state.database import hosted_database

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def filled() -> Iterator[Site]:
    """Dashboards over a history of two projects."""
    with ExitStack() as stack:
        settings = configure(stack)
        database = stack.enter_context(hosted_database(settings))
        known = write_history(settings, database)
        ensure_local_token(database, settings)
        api = [sys.executable, "-m", "penstock.api"]
        stack.enter_context(serving(settings, api, f"{settings.api_url}/api/v1/health", "api"))
        yield Site(start_dashboards(stack, settings), settings, known)


@pytest.fixture(scope="session")
def fresh() -> Iterator[Site]:
    """Dashboards of a Penstock that nothing has happened to."""
    with ExitStack() as stack:
        settings = configure(stack)
        stack.enter_context(hosted_database(settings))
        yield Site(start_dashboards(stack, settings), settings, None)


@pytest.fixture(scope="module")  # not longer: its event loop would be in the way of other tests in this process
def browser() -> Iterator[Browser]:
    """A real Chromium without a window."""
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        except Error as error:
            pytest.fail(f"{CHROMIUM} cannot be started; install Debian's package chromium: {error}", pytrace=False)
        yield chromium
        chromium.close()
