"""Connect, try, change and disconnect: git's own server, a forge faked at the wire, real vault and database."""

import json
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
from fake_forge import TOKEN, FakeForge
from git_builder import PIPELINE
from git_servers import HttpServer

from penstock.answers import connections as answering
from penstock.connecting import editing
from penstock.connecting.connect import Connecting, Wanted, change, connect, disconnect
from penstock.connecting.detect import Place
from penstock.connecting.hooking import hooks_at
from penstock.connecting.trying import try_connection
from penstock.errors import AccessError, ConflictError, InputError, NotFoundError, SpecError
from penstock.forges.clients import ForgeAway, ForgeRefused, Link
from penstock.sources.projects import VAULT_PROJECT, add_project, get_project, list_projects, set_connection
from penstock.state.tables import connections, projects
from penstock.webhooks import hooks

LINK = Link(allow_private=True)
PUBLIC = "https://ci.example.org"


def put_at(room: Connecting, forge: FakeForge, name: str = "gitea") -> None:
    """Say that the project's forge is the fake."""
    project = get_project(room.database, "shop")
    known = attrs.evolve(project.connection, forge=name, api_url=forge.url)
    set_connection(room.database, "shop", known)


def connected(room: Connecting, server: HttpServer, forge: FakeForge) -> Any:
    connect(room, Wanted(f"{server.url}/team/shop.git", forge="gitea", login=f"ada:{TOKEN}".encode(), hook=False))
    put_at(room, forge)
    forge.says("GET", "/repos/team/shop", {"permissions": {"admin": True, "push": True}})
    forge.says("GET", "/repos/team/shop/hooks", [])
    forge.says("POST", "/repos/team/shop/hooks", {"id": 7}, 201)
    forge.says("DELETE", "/repos/team/shop/hooks/7", None, 204)
    forge.says("POST", "/repos/team/shop/hooks/7/tests", None, 204)
    return change(room, "shop", hook=True, public_url=PUBLIC)


def test_hook_is_made_where_the_token_may(room: Connecting, git_server: HttpServer, forge: FakeForge):
    """With Penstock's address and a secret that only the vault and the forge know."""
    made = connected(room, git_server, forge)
    assert made.left == ()
    (sent,) = forge.sent("POST", "/repos/team/shop/hooks")
    (hook,) = hooks.list_hooks(room.database, "shop")
    assert sent["config"]["url"] == f"{PUBLIC}{hook.path}"
    assert sent["config"]["secret"].encode() == room.vault.read(hooks.VAULT_PROJECT, hook.secrets[0])
    assert hook.repository == "team/shop"
    assert get_project(room.database, "shop").connection.forge_hook == "7"
    assert sent["config"]["secret"] not in "".join(made.done)
    assert forge.asked[-1][2]["Authorization"] == f"token {TOKEN}"


def test_hook_is_not_made_twice(room: Connecting, git_server: HttpServer, forge: FakeForge):
    """Asked again, it stays as it is while the forge has it; one that is gone there is made anew."""
    connected(room, git_server, forge)
    url = forge.sent("POST", "/repos/team/shop/hooks")[0]["config"]["url"]
    forge.says("GET", "/repos/team/shop/hooks", [{"id": 7, "active": True, "config": {"url": url}}])
    assert "the hook is there already" in change(room, "shop", hook=True, public_url=PUBLIC).done
    forge.says("GET", "/repos/team/shop/hooks", [])
    change(room, "shop", hook=True, public_url=PUBLIC)
    assert len(forge.sent("POST", "/repos/team/shop/hooks")) == 2
    assert len(hooks.list_hooks(room.database, "shop")) == 1


def test_token_that_may_not_make_hooks_leaves_it_to_a_person(
    room: Connecting, git_server: HttpServer, forge: FakeForge
):
    """Everything to type is told: page, address, secret, events, and what a token would need."""
    connected(room, git_server, forge)
    forge.says("POST", "/repos/team/shop/hooks", {"message": "token does not have write:repository"}, 403)
    made = change(room, "shop", hook=True, public_url=PUBLIC)
    told = "\n".join(made.left)
    (hook,) = hooks.list_hooks(room.database, "shop")
    secret = room.vault.read(hooks.VAULT_PROJECT, hook.secrets[0]).decode()
    for part in ("no hook was made", "write:repository", f"{PUBLIC}{hook.path}", secret, "Pull Request", "Settings"):
        assert part in told
    assert TOKEN not in told
    assert secret not in repr(made)


def test_address_of_this_machine_alone_makes_no_hook(room: Connecting, git_server: HttpServer, forge: FakeForge):
    """A forge elsewhere could not reach it."""
    connect(room, Wanted(f"{git_server.url}/team/shop.git", forge="gitea", login=f"ada:{TOKEN}".encode(), hook=False))
    put_at(room, forge)
    made = change(room, "shop", hook=True)
    assert "this machine alone" in made.left[0]
    assert forge.sent("POST", "/repos/team/shop/hooks") == []


def test_trying_really_asks(room: Connecting, git_server: HttpServer, forge: FakeForge):
    """Git, the token's rights, the hook and a ping."""
    connected(room, git_server, forge)
    url = forge.sent("POST", "/repos/team/shop/hooks")[0]["config"]["url"]
    forge.says("GET", "/repos/team/shop/hooks", [{"id": 7, "active": True, "config": {"url": url}}])
    found = {check.name: check for check in try_connection(room, "shop")}
    assert {name: check.verdict for name, check in found.items()} == dict.fromkeys(
        ("git", "forge", "token", "hook", "ping"), "ok"
    )
    assert found["token"].told == "may make hooks; may push"
    assert len(forge.sent("POST", "/repos/team/shop/hooks/7/tests")) == 1


def test_trying_says_what_is_wrong(room: Connecting, git_server: HttpServer, forge: FakeForge):
    """Each thing for itself: a token that was revoked, a hook that is switched off or gone, git that is refused."""
    connected(room, git_server, forge)
    url = forge.sent("POST", "/repos/team/shop/hooks")[0]["config"]["url"]
    forge.says("GET", "/repos/team/shop", {"message": "bad token"}, 401)
    forge.says("GET", "/repos/team/shop/hooks", [{"id": 7, "active": False, "config": {"url": url}}])
    git_server.password = "another"
    found = {check.name: check for check in try_connection(room, "shop")}
    assert {check.verdict for check in found.values()} == {"wrong", "ok"}
    assert "Authentication failed" in found["git"].told
    assert "401" in found["token"].told
    assert "switched" in found["hook"].told
    assert TOKEN not in str(found)
    forge.says("GET", "/repos/team/shop/hooks", [])
    found = {check.name: check for check in try_connection(room, "shop")}
    assert found["hook"].verdict == "missing"


def test_disconnecting_leaves_nothing_behind(room: Connecting, git_server: HttpServer, forge: FakeForge):
    """The hook at the forge, Penstock's address, the secrets of both and the login are gone."""
    connected(room, git_server, forge)
    gone = disconnect(room, "shop")
    assert gone.left == ()
    assert ("DELETE", "/repos/team/shop/hooks/7") in [asked[:2] for asked in forge.asked]
    assert list_projects(room.database) == ()
    assert room.vault.names(VAULT_PROJECT) == room.vault.names(hooks.VAULT_PROJECT) == ()


def test_forge_that_is_away_does_not_hold_up_disconnecting(room: Connecting, git_server: HttpServer, forge: FakeForge):
    """It is said what is left there."""
    connected(room, git_server, forge)
    forge.says("DELETE", "/repos/team/shop/hooks/7", {"message": "down"}, 503)
    assert "remove the hook 7 at gitea by hand" in disconnect(room, "shop").left[0]
    assert list_projects(room.database) == ()


def test_login_that_is_refused_is_not_kept(room: Connecting, git_server: HttpServer):
    """Neither when connecting nor when changing."""
    url = f"{git_server.url}/team/shop.git"
    with pytest.raises(InputError, match="Authentication failed"):
        connect(room, Wanted(url, forge="git", login=b"ada:wrong"))
    assert room.vault.names(VAULT_PROJECT) == ()
    connect(room, Wanted(url, forge="git", login=f"ada:{TOKEN}".encode()))
    with pytest.raises(InputError, match="Authentication failed"):
        change(room, "shop", login=b"ada:wrong")
    assert room.vault.read(VAULT_PROJECT, "login-shop") == f"ada:{TOKEN}".encode()


@pytest.mark.parametrize("token", [" ", "a\nb", "a\0b"])
def test_what_is_no_token_is_refused(room: Connecting, git_server: HttpServer, token: str):
    """It would become a header."""
    with pytest.raises(InputError, match="no token"):
        connect(room, Wanted(f"{git_server.url}/team/shop.git", login=f"ada:{TOKEN}".encode(), token=token))
    assert list_projects(room.database) == ()


def test_bare_repository_on_this_machine_gets_its_hook(room: Connecting, bare: Path):
    """And loses it when it is disconnected; somebody else's hook stays."""
    made = connect(room, Wanted(str(bare)))
    hook = bare / "hooks" / "post-receive"
    assert made.done[-1] == f"wrote {hook}"
    assert hook.stat().st_mode & 0o111
    disconnect(room, "shop")
    assert not hook.exists()
    hook.write_text("#!/bin/sh\necho mine\n")
    assert "somebody else's" in connect(room, Wanted(str(bare))).left[0]
    disconnect(room, "shop")
    assert hook.read_text() == "#!/bin/sh\necho mine\n"


# Each forge's API


def row_of(forge: str, hook_id: str, url: str) -> Any:
    if forge == "gitlab":
        return {"id": int(hook_id), "url": url, "alert_status": "executable"}
    if forge == "bitbucket-cloud":
        return {"uuid": hook_id, "url": url, "active": True}
    if forge == "bitbucket-server":
        return {"id": int(hook_id), "url": url, "active": True}
    return {"id": int(hook_id), "active": True, "config": {"url": url}}


@pytest.mark.parametrize(
    ("name", "repository", "path", "proof"),
    [
        ("github", "a/b", "/repos/a/b/hooks", ("Authorization", f"Bearer {TOKEN}")),
        ("gitlab", "g/s/p", "/projects/g%2Fs%2Fp/hooks", ("PRIVATE-TOKEN", TOKEN)),
        ("gitea", "a/b", "/repos/a/b/hooks", ("Authorization", f"token {TOKEN}")),
        ("forgejo", "a/b", "/repos/a/b/hooks", ("Authorization", f"token {TOKEN}")),
        ("bitbucket-cloud", "w/r", "/repositories/w/r/hooks", ("Authorization", f"Bearer {TOKEN}")),
        ("bitbucket-server", "P/r", "/projects/P/repos/r/webhooks", ("Authorization", f"Bearer {TOKEN}")),
    ],
)
def test_each_forge_is_spoken_to_in_its_own_words(
    forge: FakeForge, name: str, repository: str, path: str, proof: tuple[str, str]
):
    """A hook is made with address and secret, found again, and removed."""
    number = "{1-2}" if name == "bitbucket-cloud" else "5"
    row = row_of(name, number, "https://ci.example.org/x")
    listed = {"values": [row]} if name.startswith("bitbucket") else [row]
    forge.says("POST", path, row, 201)
    forge.says("GET", path, listed)
    forge.says("DELETE", f"{path}/{number.replace('{', '%7B').replace('}', '%7D')}", None, 204)
    api = hooks_at(Place(name, repository, forge.url), TOKEN, LINK)
    assert api is not None
    made = api.make("https://ci.example.org/x", "the-secret")
    assert made.id == number
    assert api.list() == (made,)
    api.remove(made.id)
    (sent,) = forge.sent("POST", path)
    assert "the-secret" in str(sent)
    assert "https://ci.example.org/x" in str(sent)
    assert {asked[2][proof[0]] for asked in forge.asked} == {proof[1]}


def test_azure_devops_has_a_subscription_for_each_event(forge: FakeForge):
    """Four, with basic authentication; when one cannot be made the others are removed again."""
    repository = {"id": "r-1", "project": {"id": "p-1"}}
    forge.says("GET", "/Shop/_apis/git/repositories/api", repository)
    forge.says("POST", "/_apis/hooks/subscriptions", {"id": "s-1"})
    forge.says("DELETE", "/_apis/hooks/subscriptions/s-1", None, 204)
    api = hooks_at(Place("azure-devops", "Shop/api", forge.url), TOKEN, LINK)
    assert api is not None
    made = api.make("https://ci.example.org/x", "the-secret")
    sent = forge.sent("POST", "/_apis/hooks/subscriptions")
    assert [body["eventType"] for body in sent] == [
        *("git.push", "git.pullrequest.created", "git.pullrequest.updated", "git.pullrequest.merged")
    ]
    assert {body["consumerInputs"]["basicAuthPassword"] for body in sent} == {"the-secret"}
    assert {body["publisherInputs"]["repository"] for body in sent} == {"r-1"}
    api.remove(made.id)
    assert sum(asked[0] == "DELETE" for asked in forge.asked) == 4


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"message": "Bad credentials"}, ForgeRefused),
        (404, {"message": "Not Found"}, ForgeRefused),
        (500, b"<html>oops", ForgeAway),
    ],
)
def test_forge_that_refuses_is_one_line(forge: FakeForge, status: int, body: Any, error: type[Exception]):
    """Without the token."""
    forge.says("GET", "/repos/a/b/hooks", body, status)
    api = hooks_at(Place("github", "a/b", forge.url), TOKEN, LINK)
    assert api is not None
    with pytest.raises(error) as caught:
        api.list()
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", [None, [], {}, {"id": None}, {"id": True}, {"id": {"a": 1}}, b"no json"])
def test_answer_of_another_shape_is_a_clear_error(forge: FakeForge, body: Any):
    """Something else may answer at the address."""
    forge.says("POST", "/repos/a/b/hooks", body, 201)
    api = hooks_at(Place("github", "a/b", forge.url), TOKEN, LINK)
    assert api is not None
    with pytest.raises(Exception, match=r"answer|JSON"):
        api.make("https://ci.example.org/x", "s")


def test_github_tells_scopes(forge: FakeForge):
    """A classic token without the scope may not make hooks, although its owner may."""
    may = {"permissions": {"admin": True, "push": True}}
    forge.says("GET", "/repos/a/b", may, X_OAuth_Scopes="read:org, public_repo")
    api = hooks_at(Place("github", "a/b", forge.url), TOKEN, LINK)
    assert api is not None
    assert api.rights().told() == "scopes read:org, public_repo; may not make hooks; may push"


def test_private_hosts_are_not_asked(room: Connecting, git_server: HttpServer, forge: FakeForge):
    """Unless the platform's operator allows it: an address that a user gives leads nowhere inside."""
    closed = attrs.evolve(room, link=Link(allow_private=False))
    wanted = Wanted(f"{git_server.url}/team/shop.git", login=f"ada:{TOKEN}".encode(), hook=False)
    with pytest.raises(AccessError, match="not a public address"):
        connect(closed, wanted)
    assert (git_server.seen, list_projects(room.database)) == ([], ())
    connect(room, wanted)
    put_at(room, forge)
    room = closed
    found = {check.name: check for check in try_connection(room, "shop")}
    assert "not a public address" in found["token"].told
    assert forge.asked == []


# Answers


def test_token_that_is_given_once_serves_for_answers(room: Connecting, git_server: HttpServer, forge: FakeForge):
    """The forge is told how runs stand with the very token that makes hooks, where its API is; there is one copy."""
    wanted = Wanted(
        f"{git_server.url}/team/shop.git",
        forge="gitea",
        login=b"ada:" + TOKEN.encode(),
        token="for-the-api",
        hook=False,
        api_url=f"{forge.url}/",
    )
    made = connect(room, wanted)
    assert "gitea is told how runs stand: team/shop" in made.done
    (answers,) = answering.list_connections(room.database)
    assert (answers.url, answers.repository, answers.secret) == (forge.url, "team/shop", "")
    assert answering.read_token(room.database, room.vault, answers) == room.token(made.project) == "for-the-api"
    assert {held.name for held in room.vault.names(VAULT_PROJECT)} == {"login-shop", "token-shop"}
    change(room, "shop", token="another")
    assert answering.read_token(room.database, room.vault, answers) == "another"
    disconnect(room, "shop")
    assert room.vault.names(VAULT_PROJECT) == room.vault.names(hooks.VAULT_PROJECT) == ()


@pytest.mark.parametrize("answers", [True, False])
def test_logins_token_answers_unless_it_is_not_wanted(room: Connecting, git_server: HttpServer, *, answers: bool):
    """A password for git opens the forge too; `--no-answers` leaves the forge alone."""
    login = f"ada:{TOKEN}".encode()
    connect(room, Wanted(f"{git_server.url}/team/shop.git", forge="gitea", login=login, hook=False, answers=answers))
    told = answering.list_connections(room.database)
    assert [one.project for one in told] == (["shop"] if answers else [])
    assert all(answering.read_token(room.database, room.vault, one) == TOKEN for one in told)


def test_answers_begin_with_the_first_token_and_stay_ended(room: Connecting, bare: Path):
    """A project that gets its token later is answered from then on; one whose answers were ended stays without."""
    add_project(room.database, "shop", str(bare))
    known = attrs.evolve(get_project(room.database, "shop").connection, forge="gitea", api_url="http://127.0.0.1:9")
    with room.database.begin() as engine:
        engine.execute(sa.update(projects).where(projects.c.name == "shop").values(url="https://127.0.0.1/a/shop.git"))
    set_connection(room.database, "shop", known)
    change(room, "shop", token="first")
    assert [one.project for one in answering.list_connections(room.database)] == ["shop"]
    answering.disconnect(room.database, room.vault, "shop")
    change(room, "shop", token="second")
    assert answering.list_connections(room.database) == ()
    assert room.token(get_project(room.database, "shop")) == "second"


def test_token_that_an_older_home_kept_for_answers_stays_good(
    room: Connecting, git_server: HttpServer, forge: FakeForge
):
    """It opens the forge until the project is given one; then it is forgotten, and so it is with the project."""
    connected(room, git_server, forge)
    room.vault.write(hooks.VAULT_PROJECT, "token-shop", b"of-an-older-home")
    with room.database.begin() as engine:
        engine.execute(sa.update(connections).values(secret="token-shop"))
    (old,) = answering.list_connections(room.database)
    assert answering.read_token(room.database, room.vault, old) == "of-an-older-home"
    change(room, "shop", default="trunk")
    (old,) = answering.list_connections(room.database)
    assert answering.read_token(room.database, room.vault, old) == "of-an-older-home"
    change(room, "shop", token="the-projects-own")
    (new,) = answering.list_connections(room.database)
    assert answering.read_token(room.database, room.vault, new) == "the-projects-own"
    assert "token-shop" not in {held.name for held in room.vault.names(hooks.VAULT_PROJECT)}


def test_forge_that_cannot_be_told_does_not_hold_up_connecting(room: Connecting, git_server: HttpServer):
    """It is a line among what is left, with the remedy."""
    login = f"ada:{TOKEN}".encode()
    made = connect(room, Wanted(f"{git_server.url}/team/shop.git", forge="bitbucket-cloud", login=login, hook=False))
    assert any("bitbucket-cloud is not told how runs stand" in line and "--api-url" in line for line in made.left)


@pytest.mark.parametrize(
    ("forge", "api_url", "error", "told"),
    [
        (None, "https://93.184.216.34/api", InputError, "say which forge"),
        ("gitea", "http://93.184.216.34/api", InputError, "unencrypted"),
        ("gitea", "https://ada:word@93.184.216.34/api", InputError, "credentials"),
        ("gitea", "ftp://93.184.216.34", InputError, "no address"),
    ],
)
def test_address_of_an_api_is_checked(
    *, room: Connecting, git_server: HttpServer, forge: str | None, api_url: str, error: type[Exception], told: str
):
    """Before anything is asked or kept."""
    with pytest.raises(error, match=told):
        connect(room, Wanted(f"{git_server.url}/team/shop.git", forge=forge, api_url=api_url))
    assert list_projects(room.database) == ()


def test_a_github_apps_key_never_becomes_a_header(room: Connecting, forge: FakeForge):
    """The forge is asked with the token that the app is given for it."""
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    forge.says("GET", "/repos/a/b/installation", {"id": 55})
    answer = {"token": "app-token", "expires_at": "2099-01-01T00:00:00Z"}
    forge.says("POST", "/app/installations/55/access_tokens", answer, 201)
    forge.says("GET", "/repos/a/b/hooks", [])
    api = hooks_at(Place("github", "a/b", forge.url), json.dumps({"app_id": 12, "private_key": pem}, indent=1), LINK)
    assert api is not None
    assert api.list() == ()
    assert forge.asked[-1][2]["Authorization"] == "Bearer app-token"
    assert not any("PRIVATE" in str(asked) for asked in forge.asked)


# Editing


def test_pipeline_is_committed_to_a_branch(room: Connecting, git_server: HttpServer, bare: Path):
    """A new one from what was read, then the same one further; others stay."""
    connect(room, Wanted(f"{git_server.url}/team/shop.git", forge="git", login=f"ada:{TOKEN}".encode()))
    draft = editing.read(room, "shop")
    assert (draft.branch, draft.text) == ("main", PIPELINE)
    text = PIPELINE.replace("echo hello", "echo once")
    args = {"branch": "edit/one", "message": "Say it once", "author": "ada"}
    first = editing.write(room, "shop", text, base=draft.commit, **args)
    second = editing.write(room, "shop", text + "# more\n", base=first, **args)
    words = ["git", "--git-dir", str(bare), "log", "--format=%H %an %s", "edit/one"]
    log = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in log] == [second, first, draft.commit]
    assert log[0].endswith("ada Say it once")
    assert editing.branches(room, "shop") == ("main", "edit/one")
    assert editing.read(room, "shop").commit == draft.commit


def test_pipeline_that_is_wrong_is_not_committed(room: Connecting, bare: Path):
    """Nor onto a branch that went on, nor without a change or message."""
    connect(room, Wanted(str(bare)))
    base = editing.read(room, "shop").commit
    args: dict[str, Any] = {"branch": "main", "base": base, "message": "m", "author": "ada"}
    changed = f"{PIPELINE}# changed\n"
    with pytest.raises(SpecError):
        editing.write(room, "shop", "steps: [", **args)
    with pytest.raises(InputError, match="nothing has changed"):
        editing.write(room, "shop", PIPELINE, **args)
    with pytest.raises(InputError, match="message"):
        editing.write(room, "shop", changed, **{**args, "message": " "})
    editing.write(room, "shop", changed, **args)
    with pytest.raises(ConflictError, match="read it again"):
        editing.write(room, "shop", f"{changed}# once more\n", **args)
    with pytest.raises(NotFoundError, match='no branch "nowhere"'):
        editing.read(room, "shop", "nowhere")


@pytest.mark.parametrize(
    "branch", ["", "-x", "a b", "a..b", "a.lock", "/a", "a/", ".a", "a/.b", "a~1", "x:y", "a\n", "@{"]
)
def test_bad_branch_names_are_refused(room: Connecting, bare: Path, branch: str):
    """Before git sees them."""
    connect(room, Wanted(str(bare)))
    base = editing.read(room, "shop").commit
    with pytest.raises(InputError, match="no name for a branch"):
        editing.write(room, "shop", PIPELINE + "#\n", branch=branch, base=base, message="m", author="ada")


def test_first_commit_of_an_empty_repository(room: Connecting, tmp_path: Path):
    """A page can begin one."""
    empty = tmp_path / "empty.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(empty)], check=True)
    add_project(room.database, "empty", str(empty))
    draft = editing.read(room, "empty")
    assert (draft.commit, draft.text) == (None, "")
    made = editing.write(room, "empty", PIPELINE, branch="main", base=None, message="Begin", author="ada")
    assert editing.read(room, "empty").commit == made
