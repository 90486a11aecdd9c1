"""The page Deployments in a real browser, over services that run: what is where, back, forward, rollouts, pins."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs
import pytest
import sqlalchemy as sa
from dashboard_site import Site, serving, start_dashboards
from gates import GRACE, Gate
from git_builder import GitRepository
from playwright.sync_api import Browser, Locator, Page, expect

from penstock.api.tokens import ensure_local_token
from penstock.deploy import operations
from penstock.deploy.looking import approvals_of, commits_between, kept
from penstock.deploy.plan import Service
from penstock.deploy.releases import Release, release_folder, release_history
from penstock.errors import ConflictError, StepFailure
from penstock.people.users import User
from penstock.pipeline.approvals import answer
from penstock.state.tables import projects
from penstock.warehouse import ComponentList, ListedComponent, Sbom, ScanReport, Warehouse, between, views
from penstock.warehouse.home import warehouse_location
from tests.deploy.conftest import Platform, running_platform
from tests.deploy.rollout_plans import BY_HAND, ROLLING, plan, rollout, wait_for_weight
from tests.warehouse.lake_rows import at, commit, finding, scan

WAIT_MS = 15_000
PIPELINE = """
version: 1
steps:
  - {name: build, type: step.shell_exec, commands: ["true"], artifacts_out: [{key: app, path: app}]}
  - {name: release, type: step.gate, needs: [build], approval: {}}
  - {name: ship, type: step.deploy, needs: [release], artifact: app, command: ./app, environment: production}
"""
WEB = Service("shop", "production", "web")


@attrs.frozen
class Shop:
    """Three releases of `web`, each of a commit of its own; the last one was approved."""

    site: Site
    platform: Platform
    commits: tuple[str, ...]

    def deploy(self, name: str, version: int, *, graph_hash: str = "graph", **given: object) -> Release:
        made = plan(self.platform, name, f"v{version}", **given)
        aimed = attrs.evolve(made, commit=self.commits[version - 1], graph_hash=graph_hash)
        return self.platform.deploy(aimed)

    def address(self, name: str) -> str:
        return f"{self.site.url}/deployments?environment=production&project=shop&service={name}"

    @contextmanager
    def on_its_way(self, name: str) -> Iterator[None]:
        """Version 2 of a service of two instances, held at 30 % till somebody says something."""
        self.deploy(name, 1, replicas=2)
        thread = threading.Thread(target=self._deploy_held, args=(name,))
        thread.start()
        try:
            wait_for_weight(self.platform, name, 2, 30)
            yield
        finally:
            with suppress(ConflictError):  # it is over, as it shall be
                operations.tell(self.platform.engine, rollout(self.platform, name).id, "abort", actor="", why="")
            thread.join()

    def _deploy_held(self, name: str) -> None:
        with suppress(StepFailure):  # the page says why
            self.deploy(name, 2, strategy=BY_HAND, replicas=2)


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """Dashboards and API of a platform that deploys; a repository, a warehouse, somebody who approves."""
    with ExitStack() as stack:
        platform = stack.enter_context(running_platform())
        settings = platform.settings
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("PENSTOCK_VAULT_KEY_FILE", "PENSTOCK_APPS_PORT"):
            patch.setenv(name, platform.env[name])
        commits = write_repository(settings.home)
        with platform.engine.begin() as connection:
            known = {"name": "shop", "url": str(settings.home / "work"), "default_branch": "main"}
            connection.execute(sa.insert(projects).values(known))
        write_warehouse(platform, commits)
        ensure_local_token(platform.engine, settings)
        api = [sys.executable, "-m", "penstock.api"]
        stack.enter_context(serving(settings, api, f"{settings.api_url}/api/v1/health", "api"))
        made = Shop(Site(start_dashboards(stack, settings), settings, None), platform, commits)
        made.deploy("web", 1)
        made.deploy("web", 2, strategy=ROLLING)
        made.deploy("web", 3, graph_hash=approve(platform, commits[2]), LOG_LEVEL="debug")
        yield made


def write_repository(home: Path) -> tuple[str, ...]:
    work = GitRepository(home / "work")
    made = tuple(work.commit({"app": title}, title) for title in ("Sell", "Sell <more>", "Sell less"))
    work.git("clone", "--quiet", "--mirror", str(work.root), str(home / "mirrors" / "shop.git"))
    return made


def write_warehouse(platform: Platform, commits: tuple[str, ...]) -> None:
    """bandit read all three commits, semgrep the last one alone; the last one has a newer library, and one less."""
    found = {0: ("old", "stays"), 1: ("old", "stays"), 2: ("stays", "new")}
    reports = [
        ScanReport(
            scan=scan(number, commit=commits[number]),
            findings=[finding(each, rule_id=f"B-{each}") for each in names],
        )
        for number, names in found.items()
    ]
    alone = scan(9, commit=commits[2], run_id="r2", tool="semgrep", category="deep")
    reports.append(
        ScanReport(scan=alone, findings=[finding("deep", tool="semgrep", category="deep", rule_id="S-deep")])
    )
    lists = [listed(commits[1], express="4.17.1", left_pad="1.0"), listed(commits[2], express="4.18.0")]
    with Warehouse(warehouse_location(platform.settings)) as warehouse:
        warehouse.create()
        warehouse.record(*(commit(n, commit=each) for n, each in enumerate(commits)), *reports, *lists)


def listed(commit_: str, **versions: str) -> ComponentList:
    of = {"project": "shop", "commit": commit_, "run_id": "r", "step": "deps", "source": "checkout", "listed_at": at(1)}
    sbom = Sbom(**of, branch="main", committed_at=at(0), components=len(versions))  # type: ignore[arg-type]
    return ComponentList(
        sbom=sbom,
        components=[
            ListedComponent(**of, ecosystem="npm", name=name, version=version, kind="library")  # type: ignore[arg-type]
            for name, version in versions.items()
        ],
    )


def approve(platform: Platform, commit_: str) -> str:
    """Grace approves the commit. Returns: the hash of the graph for which that holds."""
    gate = Gate(platform.engine, commit_, pipeline=PIPELINE)
    gate.people(GRACE, User("mary", "mary@example.org", is_local=True))
    asked = gate.waits()
    answer(platform.engine, asked.id, "grace", approved=True, how="cli", why="seen")
    assert gate.comes(gate.run()).state == "approved"
    return asked.graph_hash


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1100}, color_scheme="light")
    context.set_default_timeout(WAIT_MS)
    yield context.new_page()
    context.close()


def see(page: Page | Locator, text: str) -> None:
    expect(page.get_by_text(text).locator("visible=true").first).to_be_visible(timeout=WAIT_MS)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def confirm(page: Page, why: str, name: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why (for the record)").fill(why)
    dialog.get_by_label("Why (for the record)").blur()
    dialog.get_by_role("button", name=name, exact=True).click()


def look_at(page: Page, folder: Path, name: str) -> None:
    """A wide light picture and a narrow dark one; nothing is broken, nothing sticks out."""
    for width, scheme in ((1280, "light"), (420, "dark")):
        page.set_viewport_size({"width": width, "height": 1100})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=WAIT_MS)
        page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
        assert page.get_by_test_id("stMain").evaluate("each => each.scrollWidth <= each.clientWidth")
    page.set_viewport_size({"width": 1280, "height": 1100})
    assert page.get_by_test_id("stException").count() == 0


def test_service_is_rolled_back_and_forward(shop: Shop, page: Page, tmp_path: Path) -> None:
    """From what is where to the service, to a kept release with a reason; what is live has changed, and it is said."""
    page.goto(f"{shop.site.url}/deployments")
    row = page.locator("tr", has_text="shop/web").first
    for text in ("#3", shop.commits[2][:12], "1 of 1 ready", "production"):
        expect(row).to_contain_text(text, timeout=WAIT_MS)
    look_at(page, tmp_path, "where")
    row.get_by_role("link", name="shop/web").click()
    live = page.locator("dl").first
    for text in ("release 3", "grace", "1 of 1 ready"):
        expect(live).to_contain_text(text, timeout=WAIT_MS)
    press(page, "Roll back …")
    back = page.get_by_role("dialog").get_by_role("combobox")
    expect(back).to_have_value(re.compile("^#2 · "), timeout=WAIT_MS)
    page.screenshot(path=tmp_path / "dialog.png")
    confirm(page, "orders fail", "Roll back now")
    see(page, "The rollback of shop/web in production is done.")
    assert shop.platform.get("web") == "v2"
    expect(page.locator("tr", has_text="#4")).to_contain_text("rollback to #2 by local: orders fail")
    look_at(page, tmp_path, "service")
    press(page, "Roll forward …")
    confirm(page, "mended", "Roll forward now")
    see(page, "The roll-forward of shop/web in production is done.")
    assert shop.platform.get("web") == "v3"
    expect(page.locator("tr", has_text="#5")).to_contain_text("roll-forward to #3 by local: mended")


def test_two_releases_are_compared(shop: Shop, page: Page) -> None:
    """Commits, configuration, findings of the scanner that read both, components; backwards too; not with itself."""
    page.goto(f"{shop.address('web')}&former=2&latter=3")
    for text in ("Sell less", "env.LOG_LEVEL", "B-new", "B-old", "left_pad", "4.17.1", "4.18.0"):
        see(page, text)
    assert page.get_by_text("S-deep").count() == 0
    assert page.get_by_text("B-stays").count() == 0
    added = page.locator(".ps-tile", has_text="commits added")
    expect(added).to_contain_text("1")
    page.goto(f"{shop.address('web')}&former=3&latter=1")
    see(page, "Commits that it takes out")
    expect(page.locator(".ps-tile", has_text="commits taken out")).to_contain_text("2", timeout=WAIT_MS)
    see(page, "Sell <more>")
    page.goto(f"{shop.address('web')}&former=3&latter=3")
    see(page, "one and the same release")


def test_rollout_is_seen_live_paused_and_promoted(shop: Shop, page: Page, tmp_path: Path) -> None:
    """Weight, instances and events; each word is asked for again; the end is said."""
    with shop.on_its_way("held"):
        page.goto(f"{shop.site.url}/deployments")
        row = page.locator("tr", has_text="shop/held").filter(has_text="canary")
        expect(row).to_contain_text("30 %", timeout=WAIT_MS)
        row.get_by_role("link", name="shop/held").click()
        see(page, "30 % of the requests go to release 2")
        expect(page.locator("tr", has_text="gets them").first).to_be_visible()
        look_at(page, tmp_path, "rollout")
        press(page, "Pause …")
        confirm(page, "let me see", "Pause it")
        see(page, "pause by local: let me see")
        press(page, "Resume …")
        confirm(page, "", "Resume it")
        expect(page.get_by_role("button", name="Pause …")).to_be_visible(timeout=WAIT_MS)
        press(page, "Promote …")
        confirm(page, "seen", "Promote it")
        see(page, "The deployment of shop/held in production is done.")
    assert shop.platform.get("held") == "v2"


def test_rollout_is_aborted(shop: Shop, page: Page) -> None:
    """The former release has all requests, and the page says who ended it and why."""
    with shop.on_its_way("ended"):
        page.goto(shop.address("ended"))
        page.get_by_role("button", name="Abort …").click()
        confirm(page, "looks odd", "Abort it")
        expect(page.get_by_role("alert").first).to_contain_text("by local: looks odd", timeout=WAIT_MS)
    assert shop.platform.get("ended") == "v1"
    expect(page.locator("dl").first).to_contain_text("release 1")


def test_service_is_pinned_and_let_go(shop: Shop, page: Page) -> None:
    """Who holds it and why is on the page; what somebody else has done meanwhile is one line in the dialog."""
    shop.deploy("kept", 1)
    page.goto(shop.address("kept"))
    expect(page.get_by_role("button", name="Roll back …")).to_be_disabled(timeout=WAIT_MS)
    see(page, "There is one release only")
    press(page, "Pin …")
    confirm(page, "until Monday", "Pin it")
    expect(page.locator("dl").first).to_contain_text("release 1, by local: until Monday", timeout=WAIT_MS)
    other = page.context.new_page()
    other.goto(shop.address("kept"))
    other.get_by_role("button", name="Unpin …").click()
    press(page, "Unpin …")
    confirm(page, "", "Unpin it")
    see(page, "is no longer pinned")
    confirm(other, "", "Unpin it")
    see(other.get_by_role("dialog"), "is not pinned")


def test_service_that_there_never_was_is_one_line(shop: Shop, page: Page) -> None:
    page.goto(shop.address("<nobody>"))
    expect(page.get_by_role("alert").first).to_contain_text("there is no release of", timeout=WAIT_MS)
    assert page.get_by_test_id("stException").count() == 0


def test_nothing_is_said_of_what_was_not_looked_at(shop: Shop) -> None:
    """Commits, scanners or lists that only one side has, or that nobody knows, make no difference of zero."""
    reader = views.Reader(warehouse_location(shop.site.settings))
    of = {"project": "shop", "former": "f" * 40, "latter": shop.commits[2]}
    for question in (between.findings_between, between.components_between, between.scanners_of_both):
        assert reader.ask(question, **of).empty
    before_lists = {"project": "shop", "former": shop.commits[0], "latter": shop.commits[1]}
    assert reader.ask(between.components_between, **before_lists).empty
    assert len(reader.ask(between.scanners_of_both, **before_lists)) == 1
    reader.close()
    engine, settings = shop.platform.engine, shop.site.settings
    assert commits_between(engine, settings, "shop", "f" * 40, shop.commits[0]) is None
    assert commits_between(engine, settings, "nowhere", shop.commits[0], shop.commits[1]) is None


def test_approval_counts_for_its_own_commit_graph_and_environment(shop: Shop) -> None:
    history = {one.number: one for one in release_history(shop.platform.engine, WEB)}
    third = history[3]
    elsewhere = attrs.evolve(third, id="other", service=attrs.evolve(WEB, environment="staging"))
    rebuilt = attrs.evolve(third, id="rebuilt", graph_hash="another")
    assert approvals_of(shop.platform.engine, [history[1], third, elsewhere, rebuilt]) == {third.id: ("grace",)}


def test_release_whose_files_are_gone_is_not_offered(shop: Shop) -> None:
    shop.deploy("gone", 1)
    shop.deploy("gone", 2)
    history = release_history(shop.platform.engine, attrs.evolve(WEB, name="gone"))
    with shop.platform.engine.connect() as connection:
        assert [one.number for one in kept(connection, shop.site.settings, history)] == [1]
        folder = release_folder(shop.site.settings, history[1].id)
        folder.rename(folder.with_name("moved"))
        assert kept(connection, shop.site.settings, history) == []
