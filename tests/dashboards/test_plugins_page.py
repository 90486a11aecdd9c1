"""The page Plugins in a real browser: find one, read its docs, install it, see it run and what it measured."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from dashboard_site import ROOT, Site, configure, serving, start_dashboards
from git_builder import GitRepository
from playwright.sync_api import Browser, Page, expect

from penstock.api.tokens import ensure_local_token
from penstock.state.database import hosted_database

PIPELINE = "version: 1\nsteps:\n  - {name: size, type: plugin, plugin: code-size@1.0.0}\n"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Dashboards and API of a Penstock where nothing was ever installed."""
    with ExitStack() as stack:
        settings = configure(stack)
        database = stack.enter_context(hosted_database(settings))
        ensure_local_token(database, settings)
        api = [sys.executable, "-m", "penstock.api"]
        stack.enter_context(serving(settings, api, f"{settings.api_url}/api/v1/health", "api"))
        yield Site(start_dashboards(stack, settings), settings, None)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1100})
    yield context.new_page()
    context.close()


def seen(page: Page, text: str) -> None:
    expect(page.get_by_text(text).first).to_be_visible(timeout=60_000)


def run_pipeline(site: Site, folder: Path) -> None:
    """As somebody at the command line, in the home of the site."""
    repository = GitRepository(folder / "shop")
    repository.commit({"penstock.yaml": PIPELINE, "app.py": "def answer():\n    return 42\n"})
    command = [str(Path(sys.executable).parent / "penstock"), "run"]
    env = {"PENSTOCK_HOME": str(site.settings.home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=repository.root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_plugin_is_found_read_installed_and_seen_at_work(site: Site, page: Page, tmp_path: Path) -> None:
    """And uninstalled again, after the page has said who uses it."""
    page.goto(f"{site.url}/plugins")
    seen(page, "No plugin is installed.")
    page.get_by_label("Search").fill("complex functions")
    page.get_by_label("Search").blur()
    expect(page.get_by_role("link", name="notify")).to_have_count(0, timeout=60_000)
    page.get_by_role("link", name="code-size").click()
    seen(page, "delivered by the platform")
    page.get_by_role("tab", name="index").click()
    seen(page, "How large and how complex the code is")
    page.get_by_role("button", name="Install …").click()
    page.get_by_role("button", name="Install it").click()
    seen(page, "code-size 1.0.0 is installed.")
    run_pipeline(site, tmp_path)
    page.reload()
    seen(page, "Used by")
    seen(page, "What it measured")
    expect(page.get_by_test_id("stVegaLiteChart").first.locator("canvas, svg").first).to_be_visible(timeout=60_000)
    for width, scheme in ((1280, "light"), (420, "dark")):
        page.set_viewport_size({"width": width, "height": 1100})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=60_000)
        page.screenshot(path=tmp_path / f"plugins-{width}-{scheme}.png", full_page=True)
        assert page.get_by_test_id("stMain").evaluate("each => each.scrollWidth <= each.clientWidth")
    page.set_viewport_size({"width": 1280, "height": 1100})
    page.get_by_role("button", name="Uninstall …").click()
    seen(page, "It was used by shop.")
    page.get_by_role("button", name="Uninstall it").click()
    seen(page, "code-size 1.0.0 is not installed any more.")
    assert page.get_by_test_id("stException").count() == 0
