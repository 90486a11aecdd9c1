"""Connecting, looking at events and editing a pipeline, in a real browser on a real API, git server and vault."""

import hashlib
import hmac
import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import httpx
import pytest
from dashboard_site import ROOT, Site, configure, free_ports, serving, short_folder, start_dashboards
from playwright.sync_api import Browser, Page, expect

sys.path.append(str(Path(__file__).parents[1] / "sources"))

from git_builder import PIPELINE, GitRepository
from git_servers import HttpServer, serving_http

from penstock.api.tokens import ensure_local_token, token_file
from penstock.sources.projects import VAULT_PROJECT
from penstock.state.database import create_engine, hosted_database
from penstock.vault import open_vault
from penstock.webhooks import hooks

PASSWORD = "typed-on-a-page-1234"
WAIT_MS = 60_000


@attrs.frozen
class Parts:
    """A Penstock without history, and a git server that wants a password."""

    site: Site
    git: HttpServer
    bare: Path

    @property
    def url(self) -> str:
        """Of the repository."""
        return f"{self.git.url}/shop.git"

    def api(self) -> httpx.Client:
        """With this machine's token."""
        headers = {"Authorization": f"Bearer {token_file(self.site.settings).read_text()}"}
        return httpx.Client(
            base_url=f"{self.site.settings.api_url}/api/v1", headers=headers, timeout=60, trust_env=False
        )


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """One for all tests of this file; each connects a project of its own."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        folder = short_folder(stack)
        patch.setenv("PENSTOCK_VAULT_KEY_FILE", str(folder / "vault.key"))
        patch.setenv("PENSTOCK_ALLOW_PRIVATE_HOSTS", "127.0.0.1")  # where the git server is
        settings = attrs.evolve(configure(stack), vault_key_file=folder / "vault.key")
        work = GitRepository(folder / "work")
        work.commit({"penstock.yaml": PIPELINE})
        bare = folder / "git" / "shop.git"
        work.git("clone", "--quiet", "--bare", str(work.root), str(bare))
        git = stack.enter_context(serving_http(bare.parent))
        git.password = PASSWORD
        database = stack.enter_context(hosted_database(settings))
        ensure_local_token(database, settings)
        api = [sys.executable, "-m", "penstock.api"]
        stack.enter_context(serving(settings, api, f"{settings.api_url}/api/v1/health", "api"))
        yield Parts(Site(start_dashboards(stack, settings), settings, None), git, bare)


@pytest.fixture
def page(browser: Browser, parts: Parts) -> Iterator[Page]:
    """A wide screen, which has seen the overview."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, color_scheme="light")
    context.set_default_timeout(WAIT_MS)
    made = context.new_page()
    begin(made, parts.site)
    yield made
    context.close()


def begin(page: Page, site: Site) -> None:
    """As everybody does: Streamlit learns of the pages when the first one is drawn."""
    page.goto(site.url)
    expect(page.get_by_role("heading", name="Overview", exact=True)).to_be_visible(timeout=WAIT_MS)


def see(page: Page, text: str) -> None:
    expect(page.get_by_text(text).first).to_be_visible(timeout=WAIT_MS)


def unbroken(page: Page) -> None:
    assert page.get_by_test_id("stException").count() == 0, page.inner_text("body")
    assert page.get_by_test_id("stMain").evaluate("each => each.scrollWidth <= each.clientWidth")


def connected(parts: Parts, name: str) -> None:
    body = {"url": parts.url, "name": name, "login": f"ada:{PASSWORD}"}
    with parts.api() as api:
        answer = api.post("/connections", json=body)
        assert answer.status_code == 201, answer.text


def test_repository_is_connected_tested_and_disconnected(page: Page, parts: Parts, tmp_path: Path):
    """With a password that goes to the vault and is on no page afterwards; disconnecting asks first."""
    page.goto(f"{parts.site.url}/connect")
    page.get_by_label("Address", exact=True).fill(parts.url)
    page.get_by_label("Name", exact=True).fill("typed")
    page.get_by_label("Login for git", exact=True).fill(f"ada:{PASSWORD}")
    page.get_by_role("button", name="Connect", exact=True).click()
    see(page, "✔ typed:")
    assert PASSWORD not in page.content()
    vault = open_vault(parts.site.settings)
    assert vault.read(VAULT_PROJECT, "login-typed") == f"ada:{PASSWORD}".encode()
    page.get_by_role("button", name="Test the connection").click()
    see(page, "1 branch, 0 tags")
    unbroken(page)
    page.screenshot(path=tmp_path / "connect.png", full_page=True)
    page.set_viewport_size({"width": 420, "height": 900})
    unbroken(page)
    page.screenshot(path=tmp_path / "connect-narrow.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.get_by_role("button", name="Disconnect …").click()
    page.get_by_role("dialog").get_by_role("button", name="Disconnect it").click()
    see(page, "typed is disconnected")
    assert "login-typed" not in {found.name for found in vault.names(VAULT_PROJECT)}
    with parts.api() as api:
        assert api.get("/projects/typed").status_code == 404


@pytest.mark.parametrize(
    ("address", "login", "what"),
    [
        ("", "", "The address is missing"),
        ("https://me:word@git.example/x", "", "the address holds credentials"),
        ("/nowhere/at/all", "", "give an address that"),
        ("{url}", "ada:wrong-password", "Authentication failed"),
    ],
)
def test_connection_that_fails_is_one_line(page: Page, parts: Parts, address: str, login: str, what: str):
    """Nothing is connected, no password is repeated."""
    page.goto(f"{parts.site.url}/connect")
    page.get_by_label("Address", exact=True).fill(address.format(url=parts.url))
    page.get_by_label("Name", exact=True).fill("failing")
    page.get_by_label("Login for git", exact=True).fill(login)
    page.get_by_role("button", name="Connect", exact=True).click()
    expect(page.get_by_role("alert").first).to_contain_text(what, timeout=WAIT_MS)
    assert "wrong-password" not in page.content()
    with parts.api() as api:
        assert api.get("/projects/failing").status_code == 404


def test_connection_is_changed(page: Page, parts: Parts):
    """Another default branch is kept; a login that is refused is not, and it is said."""
    connected(parts, "changing")
    page.goto(f"{parts.site.url}/connect?project=changing")
    page.get_by_text("Change", exact=True).click()
    page.get_by_label("Default branch", exact=True).fill("trunk")
    page.get_by_role("button", name="Save").click()
    see(page, "changing: changed")
    with parts.api() as api:
        assert api.get("/projects/changing").json()["default_branch"] == "trunk"
    page.goto(f"{parts.site.url}/connect?project=changing")
    page.get_by_text("Change", exact=True).click()
    page.get_by_label("New login for git", exact=True).fill("ada:not-the-password")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").first).to_contain_text("Authentication failed", timeout=WAIT_MS)
    vault = open_vault(parts.site.settings)
    assert vault.read(VAULT_PROJECT, "login-changing") == f"ada:{PASSWORD}".encode()


def test_pipeline_is_checked_while_it_is_typed_and_committed(page: Page, parts: Parts, tmp_path: Path):
    """What is wrong is said without leaving the field, the graph is drawn, the commit is on the server's branch."""
    connected(parts, "edited")
    page.goto(f"{parts.site.url}/editor?project=edited")
    field = page.get_by_label("penstock.yaml", exact=True)
    expect(field).to_have_value(PIPELINE, timeout=WAIT_MS)
    see(page, "As it is on main")
    field.press("Control+End")
    field.press_sequentially("  - name: second\n    type: step.shell_exec\n    commands: [ls]\n    needs: [helo]\n")
    expect(page.get_by_role("alert").first).to_contain_text('did you mean "hello"', timeout=WAIT_MS)
    assert page.get_by_role("button", name="Commit", exact=True).count() == 0
    field.press("ArrowUp")
    field.press("End")
    field.press("ArrowLeft")
    field.press("ArrowLeft")
    field.press_sequentially("l")
    see(page, "right: 2 steps")
    chart = page.get_by_test_id("stGraphVizChart").locator("svg")
    expect(chart).to_contain_text("second", timeout=WAIT_MS)
    assert "needs: [hello]" in field.input_value()
    unbroken(page)
    page.screenshot(path=tmp_path / "editor.png", full_page=True)
    page.get_by_label("Branch", exact=True).fill("pipeline/second")
    page.get_by_label("Message", exact=True).fill("Add a second step")
    page.get_by_role("button", name="Commit", exact=True).click()
    see(page, "is on the branch pipeline/second")
    held = GitRepository(tmp_path / "held")
    told = held.git("--git-dir", str(parts.bare), "show", "pipeline/second:penstock.yaml")
    assert "needs: [hello]" in told
    assert held.git("--git-dir", str(parts.bare), "log", "-1", "--format=%s", "pipeline/second") == "Add a second step"
    assert "second" not in held.git("--git-dir", str(parts.bare), "show", "main:penstock.yaml")


def test_repository_that_takes_no_push_is_one_line(page: Page, parts: Parts):
    """Where the login may only read, the text stays in the field."""
    connected(parts, "readonly")
    page.goto(f"{parts.site.url}/editor?project=readonly")
    field = page.get_by_label("penstock.yaml", exact=True)
    expect(field).to_have_value(PIPELINE, timeout=WAIT_MS)
    field.fill(PIPELINE.replace("echo hello", "echo changed"))
    parts.git.may_write = False
    try:
        page.get_by_role("button", name="Commit", exact=True).click()
        expect(page.get_by_role("alert").first).to_contain_text("takes no push", timeout=WAIT_MS)
    finally:
        parts.git.may_write = True
    expect(field).to_have_value(PIPELINE.replace("echo hello", "echo changed"))


def deliver(parts: Parts, hook: hooks.Hook, secret: str, kind: str, *, body: object, delivery: str) -> int:
    data = json.dumps(body).encode()
    signature = hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": kind, "X-GitHub-Delivery": delivery, "X-Hub-Signature-256": f"sha256={signature}"}
    headers["Content-Type"] = "application/json"
    url = f"{parts.site.settings.api_url}{hook.path}"
    return httpx.post(url, content=data, headers=headers, trust_env=False, timeout=60).status_code


def test_events_tell_what_became_of_them_and_are_replayed(page: Page, parts: Parts, tmp_path: Path):
    """Ignored and why, rejected and why, not believed; one is worked on again at the press of a button."""
    connected(parts, "told")
    secret = hooks.new_secret()
    database = create_engine(parts.site.settings)
    hook = hooks.add_hook(database, open_vault(parts.site.settings), "told", "github", secret=secret, repository="a/b")
    database.dispose()
    of = {"repository": {"full_name": "a/b"}}
    star = {"action": "created", "sender": {"login": "ada"}, **of}
    assert deliver(parts, hook, secret, "star", body=star, delivery="d-1") == 202
    assert deliver(parts, hook, secret, "push", body={"ref": "refs/heads/main"}, delivery="d-2") == 422
    assert deliver(parts, hook, "not the secret at all", "push", body=of, delivery="d-3") == 401
    page.goto(f"{parts.site.url}/events?project=told")
    see(page, "star events start nothing")
    expect(page.locator("tr", has_text="github").filter(has_text="✘ rejected")).to_be_visible(timeout=WAIT_MS)
    unbroken(page)
    page.screenshot(path=tmp_path / "events.png", full_page=True)
    page.get_by_role("button", name="Replay").click()
    row = page.locator("tr", has_text="✘ rejected").filter(has_text="github")
    expect(row.locator("td[data-label=again]")).to_have_text("1", timeout=WAIT_MS)


def test_pages_are_opened_by_their_address_first(browser: Browser, parts: Parts):
    """A bookmark, in a browser that knows nothing, at dashboards that have drawn no page yet: each is drawn at once."""
    connected(parts, "bookmarked")
    with ExitStack() as stack:
        ports = {**parts.site.settings.ports, "dashboards": free_ports(1)[0]}
        url = start_dashboards(stack, attrs.evolve(parts.site.settings, ports=ports))
        pages = {
            "editor?project=bookmarked": ("Editor", "right: 1 step"),
            "connect": ("Connect", "bookmarked"),
            "events": ("Events", "what became of each"),
        }
        for path, (heading, text) in pages.items():
            context = stack.enter_context(browser.new_context(viewport={"width": 1280, "height": 1000}))
            context.set_default_timeout(WAIT_MS)
            page = context.new_page()
            page.goto(f"{url}/{path}")
            expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible(timeout=WAIT_MS)
            see(page, text)
            assert page.get_by_text("Page not found").count() == 0
            assert page.url.startswith(f"{url}/{path.partition('?')[0]}")
            unbroken(page)
            assert page.locator(".ps-trouble").all_inner_texts() == []


def test_pages_say_what_to_do_first(page: Page, fresh: Site):
    """Without an API or a project, each page is one line and the next command."""
    begin(page, fresh)
    page.goto(f"{fresh.url}/connect")
    see(page, "No repository is connected")
    unbroken(page)
    for path in ("events", "editor"):
        page.goto(f"{fresh.url}/{path}")
        expect(page.get_by_role("alert").first).to_contain_text(re.compile("penstock up"), timeout=WAIT_MS)


def test_graph_is_drawn_from_names_as_they_are():
    """Quotes in a name end nothing."""
    sys.path.append(str(ROOT))
    from dashboards.drawing import dot

    step = {"name": 'a"b', "type": "step.gate", "kind": "gate", "needs": ["c\\"]}
    assert '"a\\"b" [label="a\\"b\\ngate" shape=diamond]' in dot([step])
    assert '"c\\\\" -> "a\\"b"' in dot([step])
