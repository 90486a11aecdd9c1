"""/connections over real HTTP: what comes back, what is on record, and that no secret does."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import httpx
import pytest
import sqlalchemy as sa
from api_calls import API
from git_builder import PIPELINE, GitRepository

sys.path.append(str(Path(__file__).parents[1] / "sources"))

from git_servers import HttpServer, serving_http

from penstock.settings import Settings
from penstock.sources.projects import VAULT_PROJECT
from penstock.state.tables import audit
from penstock.vault import open_vault

PASSWORD = "of-the-api-9012"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """With a key of the test's own for the vault; this machine may be asked, where the server is."""
    return attrs.evolve(settings, vault_key_file=tmp_path / "keys" / "vault.key", allow_private_hosts=("127.0.0.1",))


@pytest.fixture
def server(make_repository: Callable[..., GitRepository], tmp_path: Path) -> Iterator[HttpServer]:
    """A repository behind a password."""
    made = make_repository("work", {"penstock.yaml": PIPELINE})
    made.git("clone", "--quiet", "--bare", str(made.root), str(tmp_path / "served" / "shop.git"))
    with serving_http(tmp_path / "served") as served:
        served.password = PASSWORD
        yield served


@pytest.fixture
def connected(api: httpx.Client, server: HttpServer) -> httpx.Response:
    """The answer to connecting it."""
    body = {"url": f"{server.url}/shop.git", "login": f"ada:{PASSWORD}", "forge": "git"}
    return api.post(f"{API}/connections", json=body)


def test_connection_tells_facts_and_no_secret(
    api: httpx.Client, connected: httpx.Response, settings: Settings, database: sa.Engine
):
    """The login is in the vault; answers, the record of changes and the project's row hold nothing of it."""
    assert connected.status_code == 201, connected.text
    shown = api.get(f"{API}/connections/shop")
    assert shown.json()["has_login"] is True
    assert shown.json()["forge"] == "git"
    assert open_vault(settings).read(VAULT_PROJECT, "login-shop") == f"ada:{PASSWORD}".encode()
    tried = api.post(f"{API}/connections/shop/test")
    assert [check["verdict"] for check in tried.json()] == ["ok", "ok"]
    with database.connect() as connection:
        kept = str(connection.execute(sa.select(audit)).all())
        kept += str(connection.execute(sa.text("SELECT * FROM penstock.projects")).all())
    assert "project.add" in kept
    assert not any(PASSWORD in text for text in (connected.text, shown.text, tried.text, kept))


def test_connection_is_changed_and_removed(api: httpx.Client, connected: httpx.Response, settings: Settings):
    """What is left out stays; an empty login forgets it."""
    assert connected.status_code == 201
    changed = api.patch(f"{API}/connections/shop", json={"default_branch": "trunk", "polled": False})
    assert changed.json()["connection"]["project"] == {
        "name": "shop",
        "url": connected.json()["connection"]["project"]["url"],
        "default_branch": "trunk",
        "polled": False,
    }
    assert changed.json()["connection"]["has_login"] is True
    assert api.patch(f"{API}/connections/shop", json={"login": ""}).json()["connection"]["has_login"] is False
    assert open_vault(settings).names(VAULT_PROJECT) == ()
    assert api.delete(f"{API}/connections/shop").json() == []
    assert api.get(f"{API}/connections/shop").status_code == 404


def test_pipeline_is_read_checked_and_committed(api: httpx.Client, connected: httpx.Response):
    """On top of the commit that was read."""
    assert connected.status_code == 201
    draft = api.get(f"{API}/connections/shop/pipeline").json()
    assert (draft["text"], draft["branch"], draft["branches"]) == (PIPELINE, "main", ["main"])
    new = {"text": f"{PIPELINE}# more\n", "base": draft["commit"]}
    checked = api.post(f"{API}/connections/shop/pipeline/check", json=new)
    assert [step["name"] for step in checked.json()["steps"]] == ["hello"]
    made = api.post(f"{API}/connections/shop/pipeline", json={**new, "branch": "edit", "message": "More"})
    assert made.status_code == 201, made.text
    again = api.get(f"{API}/connections/shop/pipeline", params={"branch": "edit"}).json()
    assert (again["commit"], again["text"]) == (made.json()["commit"], new["text"])


@pytest.mark.parametrize(
    ("change", "status", "what"),
    [
        ({"text": "steps: ["}, 422, "penstock.yaml"),
        ({"branch": "a..b"}, 422, "no name for a branch"),
        ({"base": "1" * 40}, 404, "no commit"),
        ({"branch": "main", "base": None}, 409, "read it again"),
        ({"message": " "}, 422, "needs a message"),
    ],
)
def test_commit_that_cannot_be_is_a_problem(
    api: httpx.Client, connected: httpx.Response, change: dict[str, str | None], status: int, what: str
):
    """Nothing is pushed."""
    assert connected.status_code == 201
    base = api.get(f"{API}/connections/shop/pipeline").json()["commit"]
    new = {"text": f"{PIPELINE}# more\n", "base": base, "branch": "edit", "message": "More", **change}
    refused = api.post(f"{API}/connections/shop/pipeline", json=new)
    assert (refused.status_code, what in refused.json()["detail"]) == (status, True), refused.text
    assert api.get(f"{API}/connections/shop/pipeline").json()["branches"] == ["main"]


def test_login_that_is_refused_is_a_problem_without_it(api: httpx.Client, server: HttpServer, settings: Settings):
    """Nothing is kept."""
    body = {"url": f"{server.url}/shop.git", "login": "ada:wrong-one", "forge": "git"}
    refused = api.post(f"{API}/connections", json=body)
    assert refused.status_code == 422
    assert "Authentication failed" in refused.json()["detail"]
    assert "wrong-one" not in refused.text
    assert open_vault(settings).names(VAULT_PROJECT) == ()


def test_without_a_token_nothing_is_told(api: httpx.Client, connected: httpx.Response):
    """Every route asks for one."""
    assert connected.status_code == 201
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test"), ("GET", "/pipeline")):
        answer = httpx.request(method, f"{api.base_url}{API}/connections/shop{path}", trust_env=False, timeout=60)
        assert answer.status_code == 401
