"""Environments in a real browser: made, changed, tested, held and deleted, on a real API."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import httpx
import pytest
from dashboard_site import Site, configure, serving, short_folder, start_dashboards
from playwright.sync_api import Browser, Page, expect

from penstock.api.tokens import ensure_local_token, token_file
from penstock.environments.applying import apply_environments, read_environments
from penstock.people.audit import list_changes
from penstock.state.database import create_engine, hosted_database

WAIT_MS = 60_000
FILE = b"""\
environments:
  - name: staging
    description: Where everything goes first.
    group: web
    env: {LOG_LEVEL: debug}
  - name: live
    production: true
    group: web
    description: For everybody, in Europe.
    order: {after: staging, soak: 1h}
    refs: {branches: [main, release/*], tags: v*}
    approval: {count: 2, groups: release-managers, not_author: true, auto: tests.passed && findings.critical == 0}
    freezes:
      - {name: weekend, weekly: Fri 16:00 - Mon 08:00, zone: Europe/Berlin, users: ada}
    target: {name: docker, docker: {network: web}}
    secret_env: {DB_PASSWORD: db-password}
"""


@attrs.frozen
class Parts:
    """A Penstock with two environments."""

    site: Site

    def api(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token_file(self.site.settings).read_text()}"}
        url = f"{self.site.settings.api_url}/api/v1"
        return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """One for all tests of this file; each has an environment of its own."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        folder = short_folder(stack)
        patch.setenv("PENSTOCK_VAULT_KEY_FILE", str(folder / "vault.key"))
        settings = attrs.evolve(configure(stack), vault_key_file=folder / "vault.key")
        database = stack.enter_context(hosted_database(settings))
        ensure_local_token(database, settings)
        with database.begin() as connection:
            apply_environments(connection, read_environments(FILE, "environments.yaml"), "ada")
        api = [sys.executable, "-m", "penstock.api"]
        stack.enter_context(serving(settings, api, f"{settings.api_url}/api/v1/health", "api"))
        yield Parts(Site(start_dashboards(stack, settings), settings, None))


@pytest.fixture
def page(browser: Browser, parts: Parts) -> Iterator[Page]:
    """A wide screen, which has seen the overview."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, color_scheme="light")
    context.set_default_timeout(WAIT_MS)
    made = context.new_page()
    made.goto(parts.site.url)
    expect(made.get_by_role("heading", name="Overview", exact=True)).to_be_visible(timeout=WAIT_MS)
    yield made
    context.close()


def see(page: Page, text: str) -> None:
    expect(page.get_by_text(text).first).to_be_visible(timeout=WAIT_MS)


def unbroken(page: Page) -> None:
    assert page.get_by_test_id("stException").count() == 0, page.inner_text("body")
    assert page.get_by_test_id("stMain").evaluate("each => each.scrollWidth <= each.clientWidth")


def pictured(page: Page, folder: Path, name: str) -> None:
    """Wide and narrow, light and dark, without scrolling sideways."""
    for width in (1280, 420):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 1000})
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            expect(page.get_by_test_id("stApp")).to_have_attribute(
                "data-test-script-state", "notRunning", timeout=WAIT_MS
            )
            unbroken(page)
            page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.emulate_media(color_scheme="light")


def test_environment_is_made_changed_tested_held_and_deleted(page: Page, parts: Parts, tmp_path: Path):
    """Each by its own button, with what came of it; deleting asks first, and the audit says who."""
    page.goto(f"{parts.site.url}/environments")
    see(page, "staging")
    page.get_by_text("A new one", exact=True).click()
    page.get_by_label("Name", exact=True).fill("preview")
    page.get_by_label("Description", exact=True).fill("For looking at")
    page.get_by_label("Pull requests to", exact=True).fill("main\nrelease/*")
    page.get_by_label("Variables", exact=True).fill("COLOUR=blue\nURL=http://x/?a=b")
    page.get_by_label("Target and freezes, as YAML", exact=True).fill("target: {name: process}")
    page.get_by_role("button", name="Make it").click()
    see(page, "preview is made.")
    with parts.api() as api:
        rules = api.get("/environments/preview").json()["rules"]
    assert rules["refs"]["pull_requests"] == ["main", "release/*"]
    assert rules["env"] == {"COLOUR": "blue", "URL": "http://x/?a=b"}
    assert rules["target"]["name"] == "process"
    page.get_by_text("Change its rules", exact=True).click()
    form = page.get_by_test_id("stForm").first
    form.get_by_label("Branches", exact=True).fill("main")
    form.get_by_label("Well there for", exact=True).fill("1h30m")
    form.get_by_role("button", name="Save").click()
    see(page, "preview is changed.")
    see(page, "order.soak: 0 → 5400; refs.branches: nothing → ['main']")
    page.get_by_role("button", name="Test the connection").click()
    see(page, "no keeper runs")
    unbroken(page)
    page.get_by_role("button", name="Hold …").click()
    page.get_by_role("dialog").get_by_label("Why", exact=True).fill("the last one was bad")
    page.get_by_role("dialog").get_by_label("Why", exact=True).press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Hold it").click()
    see(page, "preview is held.")
    see(page, "the last one was bad")
    page.get_by_role("button", name="Let it go").click()
    see(page, "preview is let go.")
    page.get_by_role("button", name="Delete …").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    see(page, "preview is deleted.")
    with parts.api() as api:
        assert api.get("/environments/preview").status_code == 404
    database = create_engine(parts.site.settings)
    with database.connect() as connection:
        actions = [change.action.partition(".")[2] for change in list_changes(connection, subject="preview")]
    database.dispose()
    assert actions == ["remove", "release", "hold", "test", "edit", "add"]


def test_rules_are_shown_on_every_screen(page: Page, parts: Parts, tmp_path: Path):
    """With their form open, which changes nothing when it is saved as it is."""
    page.goto(f"{parts.site.url}/environments?environment=live")
    see(page, "all of staging, well for 60 min")
    see(page, "2 of group release-managers")
    page.get_by_text("Change its rules", exact=True).click()
    see(page, "Target and freezes, as YAML")
    pictured(page, tmp_path, "environments")
    page.get_by_role("button", name="Save").click()
    see(page, "live is changed.")
    with parts.api() as api:
        assert api.get("/environments/live").json()["version"] == 1, "the form gives back what it was given"


def test_change_to_what_somebody_else_has_changed_is_refused(page: Page, parts: Parts):
    """In words, before and after; nothing of it is kept, and reading it again helps."""
    with parts.api() as api:
        assert api.post("/environments", json={"name": "contested"}).status_code == 201
        page.goto(f"{parts.site.url}/environments?environment=contested")
        page.get_by_text("Change its rules", exact=True).click()
        description = page.get_by_test_id("stForm").first.get_by_label("Description", exact=True)
        description.fill("mine")
        other = {"description": "theirs"}
        changed = api.put("/environments/contested", json=other, headers={"If-Match": '"1"'})
        assert changed.status_code == 200
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert").first).to_contain_text("has changed it since", timeout=WAIT_MS)
        see(page, "at version 2 by now")
        page.get_by_role("button", name="Read it again").click()
        see(page, "contested is at version 2.")
        assert api.get("/environments/contested").json()["rules"]["description"] == "theirs"


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("Variables", "COLOUR", "has no value"),
        ("Well there for", "soon", "is no duration"),
        ("Target and freezes, as YAML", "freezes: [{name: x, weekly: never}]", "is no part of a week"),
        ("Target and freezes, as YAML", "group: web", "does not stand here"),
        ("Nobody is asked where", "tests.passed &&", "is no expression"),
    ],
)
def test_what_cannot_be_is_one_line(page: Page, parts: Parts, field: str, text: str, words: str):
    """And what was typed stays."""
    page.goto(f"{parts.site.url}/environments?environment=staging")
    page.get_by_text("Change its rules", exact=True).click()
    form = page.get_by_test_id("stForm").first
    if field == "Nobody is asked where":
        form.get_by_label("People who must approve").fill("1")
    form.get_by_label(field, exact=True).fill(text)
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").first).to_contain_text(words, timeout=WAIT_MS)
    expect(form.get_by_label(field, exact=True)).to_have_value(text)
    with parts.api() as api:
        assert api.get("/environments/staging").json()["version"] == 1


def test_page_says_what_to_do_first(page: Page, fresh: Site):
    page.goto(fresh.url)
    expect(page.get_by_role("heading", name="Overview", exact=True)).to_be_visible(timeout=WAIT_MS)
    page.goto(f"{fresh.url}/environments")
    see(page, "There is no environment.")
    see(page, "penstock environment add production")
    unbroken(page)


def test_environment_that_is_gone_is_said(page: Page, parts: Parts):
    page.goto(f"{parts.site.url}/environments?environment=absent")
    expect(page.get_by_role("alert").first).to_contain_text('no environment is called "absent"', timeout=WAIT_MS)
