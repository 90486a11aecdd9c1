"""The page Approvals in a real browser: what waits, what one should know, and answering with a reason."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
from dashboard_site import Site, configure, serving, start_dashboards
from gates import ADA, GRACE, Gate
from playwright.sync_api import Browser, Page, expect

from penstock.api.tokens import ensure_local_token
from penstock.people.users import User
from penstock.pipeline.approval_rules import ApprovalRule
from penstock.pipeline.log import utc_now
from penstock.state.database import hosted_database
from penstock.state.tables import projects, releases
from penstock.steps.context import Artifact, StepResult, Verdict

PIPELINE = """
version: 1
steps:
  - {name: build, type: step.shell_exec, commands: ["true"], artifacts_out: [{key: app, path: app}]}
  - {name: release, type: step.gate, needs: [build], approval: {}}
  - {name: ship, type: step.deploy, needs: [release], artifact: app, command: ./app, environment: staging}
"""
BUILT = StepResult(
    "succeeded",
    artifacts=(Artifact("app", "app", "file", "d" * 64, 3),),
    verdict=Verdict("findings", passed=True, summary="2 findings", evidence={"critical": 0, "high": 1, "low": 1}),
)
LIVE = {
    **{"id": "r7", "project": "shop", "environment": "staging", "service": "shop", "number": 7, "commit": "b" * 40},
    **{"digest": "d", "graph_hash": "g", "run_id": "x", "configuration": {}, "state": "live"},
}


@pytest.fixture(scope="module")
def asking() -> Iterator[tuple[Site, sa.Engine]]:
    """Dashboards of a Penstock that knows people, and where something is live."""
    with ExitStack() as stack:
        settings = configure(stack)
        database = stack.enter_context(hosted_database(settings))
        Gate(database).people(ADA, GRACE, User("mary", "mary@example.org", is_local=True))
        with database.begin() as connection:
            connection.execute(sa.insert(projects).values(name="shop", url="x", default_branch="main"))
            connection.execute(sa.insert(releases).values(**LIVE, live_at=utc_now()))
        ensure_local_token(database, settings)
        api = [sys.executable, "-m", "penstock.api"]
        stack.enter_context(serving(settings, api, f"{settings.api_url}/api/v1/health", "api"))
        yield Site(start_dashboards(stack, settings), settings, None), database


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1100})
    yield context.new_page()
    context.close()


def gate_of(database: sa.Engine, commit: str) -> Gate:
    return Gate(database, commit * 40, pipeline=PIPELINE, built=BUILT)


def seen(page: Page, text: str) -> None:
    expect(page.get_by_text(text).first).to_be_visible(timeout=30_000)


def test_gate_is_approved_on_the_page_with_what_one_should_know(
    asking: tuple[Site, sa.Engine], page: Page, tmp_path: Path
) -> None:
    """The checks, the findings, what is live; a reason, a confirmation; then it is history, said on the page."""
    site, database = asking
    gate = gate_of(database, "1")
    asked = gate.waits(ApprovalRule(not_author=True), actor="ada-l")
    page.goto(f"{site.url}/approvals")
    for text in ("release of shop", "2 findings", "release 7, ", "1 high", "anybody, but not the author"):
        seen(page, text)
    seen(page, "You answer as mary.")
    for width, scheme in ((1280, "light"), (420, "dark")):
        page.set_viewport_size({"width": width, "height": 1100})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=30_000)
        page.screenshot(path=tmp_path / f"approvals-{width}-{scheme}.png", full_page=True)
        assert page.get_by_test_id("stMain").evaluate("each => each.scrollWidth <= each.clientWidth")
    page.set_viewport_size({"width": 1280, "height": 1100})
    page.get_by_role("button", name="Approve …").click()
    seen(page, "What comes after the gate goes on by itself")
    page.get_by_label("Why (for the record)").fill("seen in staging")
    page.get_by_label("Why (for the record)").blur()
    page.get_by_role("button", name="Approve it").click()
    seen(page, "release is approved by mary.")
    seen(page, "mary (page)")
    (told,) = gate.newest().answers
    assert (gate.newest().id, gate.newest().state) == (asked.id, "approved")
    assert (told.person, told.why, told.how) == ("mary", "seen in staging", "page")
    assert page.get_by_test_id("stException").count() == 0
    page.screenshot(path=tmp_path / "approvals-after.png", full_page=True)


def test_gate_is_rejected_on_the_page(asking: tuple[Site, sa.Engine], page: Page) -> None:
    site, database = asking
    gate = gate_of(database, "2")
    asked = gate.waits()
    page.goto(f"{site.url}/approvals?id={asked.id}")
    page.get_by_role("button", name="Reject …").click(timeout=30_000)
    page.get_by_role("button", name="Reject it").click()
    seen(page, "release is rejected by mary.")
    assert gate.run_state(asked.run_id) == "failed"


def test_answer_that_does_not_count_is_one_line(asking: tuple[Site, sa.Engine], page: Page) -> None:
    """Somebody else is asked; the dialog stays, with the API's own words."""
    site, database = asking
    gate = gate_of(database, "3")
    asked = gate.waits(ApprovalRule(users=("grace",)))
    page.goto(f"{site.url}/approvals?id={asked.id}")
    page.get_by_role("button", name="Approve …").click(timeout=30_000)
    page.get_by_role("button", name="Approve it").click()
    seen(page, '"mary" is not among those who are asked; these are: grace')
    assert gate.newest().state == "waiting"


def test_request_that_there_never_was_is_one_line(asking: tuple[Site, sa.Engine], page: Page) -> None:
    site, _ = asking
    page.goto(f"{site.url}/approvals?id=99999")
    seen(page, "no request for approval has the number 99999")
