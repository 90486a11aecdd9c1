"""Logins of git: used where they belong, and seen nowhere else."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import psutil
import pytest
import sqlalchemy as sa
from git_builder import PIPELINE, GitRepository
from git_servers import HttpServer, SshServer, make_key, serving_http, serving_ssh

from penstock.errors import InputError, NotFoundError, PlatformError
from penstock.settings import Settings
from penstock.sources.git import Remote, commit_file, default_branch, ls_remote, mirror, push
from penstock.sources.login import Login, check_login, given_to_git, is_ssh, login_of
from penstock.sources.projects import VAULT_PROJECT, Connection, add_project, get_project, set_connection
from penstock.sources.reaching import Reach
from penstock.vault import open_vault

PASSWORD = "s3cret-of-the-test/with=odd&signs"
HERE = Reach(("127.0.0.1",))


@pytest.fixture
def bare(make_repository: Callable[..., GitRepository], tmp_path: Path) -> Path:
    """served/shop.git, with a commit."""
    made = make_repository("work", {"penstock.yaml": PIPELINE})
    folder = tmp_path / "served" / "shop.git"
    made.git("clone", "--quiet", "--bare", str(made.root), str(folder))
    return folder


@pytest.fixture
def server(bare: Path) -> Iterator[HttpServer]:
    """Lets nobody in without the password."""
    with serving_http(bare.parent) as served:
        served.password = PASSWORD
        yield served


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """Lets nobody in without the key."""
    with serving_ssh(tmp_path_factory.mktemp("ssh")) as served:
        yield served


def everything_below(*folders: Path) -> bytes:
    return b"".join(path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())


def test_password_opens_a_repository_and_lies_nowhere(server: HttpServer, tmp_path: Path):
    """Listing, mirroring and pushing work; the mirror, its configuration and lock hold no word of it."""
    remote = Remote(f"{server.url}/shop.git", Login("ada", PASSWORD), HERE)
    assert default_branch(remote) == "main"
    folder = tmp_path / "mirrors" / "shop.git"
    found = mirror(remote, folder)
    head = found.resolve("main")
    commit = commit_file(found, "a b.txt", b"content", onto=head, message="Add")
    push(found, remote, commit, "edit")
    assert ls_remote(remote)["refs/heads/edit"] == commit
    assert PASSWORD.encode() not in everything_below(folder.parent)
    assert server.wanted.split()[1].encode() not in everything_below(folder.parent)


def test_password_is_in_no_argument_and_no_environment(server: HttpServer, tmp_path: Path):
    """While git talks to a server that takes its time, no process of this machine shows it."""
    seen: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for process in psutil.Process().children(recursive=True):
                try:
                    seen.append(" ".join(process.cmdline()) + " ".join(map("=".join, process.environ().items())))
                except psutil.Error:
                    continue
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for number in range(3):
            mirror(Remote(f"{server.url}/shop.git", Login("ada", PASSWORD), HERE), tmp_path / f"m{number}.git")
    finally:
        done.set()
        thread.join()
    assert any("git" in words for words in seen)
    assert not any(PASSWORD in words for words in seen)


@pytest.mark.parametrize("login", [None, Login("ada", "wrong"), Login("eve", PASSWORD)])
def test_wrong_login_is_one_line_without_it(server: HttpServer, login: Login | None):
    """Git asks nobody at the terminal, and its reason repeats no password."""
    with pytest.raises(PlatformError, match=r"^git ls-remote failed: fatal: .*(Authent|could not)") as caught:
        ls_remote(Remote(f"{server.url}/shop.git", login, HERE))
    assert "wrong" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_git_does_not_follow_to_another_host(server: HttpServer, bare: Path):
    """Wherever a server sends git, nothing is asked there: the address that was checked is another one."""
    with serving_http(bare.parent) as other:
        server.redirect = other.url
        with pytest.raises(PlatformError, match="the server redirects"):
            ls_remote(Remote(f"{server.url}/shop.git", Login("ada", PASSWORD), HERE))
        assert other.seen == []


def test_machines_own_helpers_neither_answer_nor_keep_it(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A global credential.helper is left out while a login of the vault's is used."""
    script = tmp_path / "helper"
    script.write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/called\ncat >>{tmp_path}/called\n')
    script.chmod(0o755)
    (tmp_path / "gitconfig").write_text(f"[credential]\n\thelper = {script}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text((tmp_path / "gitconfig").read_text())
    assert ls_remote(Remote(f"{server.url}/shop.git", Login("ada", PASSWORD), HERE))
    assert not (tmp_path / "called").exists()


def test_login_is_gone_with_the_command(server: HttpServer):
    """What held it in memory is closed, also when git fails."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for password in (PASSWORD, "wrong"):
        try:
            ls_remote(Remote(f"{server.url}/shop.git", Login("ada", password), HERE))
        except PlatformError:
            assert password == "wrong"
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# SSH


def test_key_opens_a_repository(ssh: SshServer, bare: Path, tmp_path: Path):
    """Listing, mirroring and pushing; the key is in no file of Penstock's."""
    remote = Remote(ssh.url(bare), login_of(ssh.key, known_hosts=tmp_path / "known_hosts"), HERE)
    found = mirror(remote, tmp_path / "mirrors" / "shop.git")
    commit = commit_file(found, "a", b"a", onto=found.resolve("main"), message="Add")
    push(found, remote, commit, "edit")
    assert ls_remote(remote)["refs/heads/edit"] == commit
    line = ssh.key.splitlines()[2]
    assert line not in everything_below(tmp_path / "mirrors")
    assert (tmp_path / "known_hosts").is_file()


def test_key_that_the_server_does_not_know_is_refused(ssh: SshServer, bare: Path, tmp_path: Path):
    """With SSH's own reason, although git adds its advice below."""
    stranger = make_key(tmp_path / "stranger")
    login = login_of(stranger, known_hosts=tmp_path / "known_hosts")
    with pytest.raises(PlatformError, match="Permission denied"):
        ls_remote(Remote(ssh.url(bare), login, HERE))


def test_server_whose_key_has_changed_is_refused(ssh: SshServer, bare: Path, tmp_path: Path):
    """Somebody may stand in between."""
    make_key(tmp_path / "other")
    kind, key, _ = (tmp_path / "other.pub").read_text().split()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{ssh.port} {kind} {key}\n")
    with pytest.raises(PlatformError, match="Host key verification failed"):
        ls_remote(Remote(ssh.url(bare), login_of(ssh.key, known_hosts=known), HERE))


# What is a login


def test_forms_of_logins(tmp_path: Path):
    """A token takes the user that its forge wants."""
    assert login_of(b"ada:pass:word\n") == Login("ada", "pass:word")
    assert login_of(b"glpat-1", forge="gitlab") == Login("oauth2", "glpat-1")
    assert login_of(b"ghp_1", forge="github").user == "x-access-token"
    assert login_of(b"t").user == "penstock"
    key = make_key(tmp_path / "key")
    assert login_of(key.replace(b"\n", b"\r\n").strip()).key == key
    assert "glpat" not in repr(login_of(b"glpat-1"))
    assert "OPENSSH" not in repr(login_of(key))


@pytest.mark.parametrize(
    ("secret", "what"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xff\xfe", "no text"),
        (b"a:b\nhost=evil.example", "control characters"),
        (b":password", "missing"),
        (b"user:", "missing"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "no end"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n!!!\n-----END OPENSSH PRIVATE KEY-----", "damaged"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----", "passphrase"),
    ],
)
def test_what_is_no_login_is_refused(secret: bytes, what: str):
    """At once, and without repeating it."""
    with pytest.raises(InputError, match=what) as caught:
        login_of(secret)
    assert "evil" not in str(caught.value)


def test_key_with_a_passphrase_is_refused(tmp_path: Path):
    """Nobody is there to type it."""
    with pytest.raises(InputError, match="passphrase"):
        login_of(make_key(tmp_path / "key", "open sesame"))


@pytest.mark.parametrize(
    ("url", "login", "what"),
    [
        ("http://git.example/x", Login("a", "b"), "over http"),
        ("/srv/git/x.git", Login("a", "b"), "open only https"),
        ("ssh://git@git.example/x", Login("a", "b"), "open only https"),
        ("git@git.example:x", Login("a", "b"), "open only https"),
        ("https://git.example/x", Login(key=b"k"), "opens only ssh"),
    ],
)
def test_login_that_does_not_fit_the_address_is_refused(url: str, login: Login, what: str):
    """Before git is asked."""
    with pytest.raises(InputError, match=what), given_to_git(login, url):
        pass


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("git@github.com:a/b.git", True),
        ("ssh://git@github.com:22/a/b", True),
        ("https://github.com/a/b", False),
        ("/srv/a:b", False),
        ("./a:b", False),
        ("file:///srv/x", False),
    ],
)
def test_addresses_by_ssh(url: str, answer: bool):
    """As git itself tells them apart."""
    assert is_ssh(url) is answer


def test_password_may_travel_on_this_machine_without_tls():
    """Tests and servers beside Penstock need no certificate."""
    check_login(Login("a", "b"), "http://127.0.0.1:8080/x")
    check_login(Login("a", "b"), "http://[::1]:8080/x")


# Projects


def test_projects_login_is_read_from_the_vault(
    settings: Settings, database: sa.Engine, server: HttpServer, tmp_path: Path
):
    """By everything that fetches for a project; without it, it is said what is missing."""
    settings = attrs.evolve(settings, vault_key_file=tmp_path / "vault.key", allow_private_hosts=("127.0.0.1",))
    url = f"{server.url}/shop.git"
    add_project(database, "shop", url, login=Login("ada", PASSWORD), reach=HERE)
    vault = open_vault(settings)
    vault.write(VAULT_PROJECT, "login-shop", f"ada:{PASSWORD}".encode())
    project = set_connection(database, "shop", Connection(login="login-shop"))
    assert get_project(database, "shop") == project
    _, commit = project.with_ref(settings, "main")
    assert project.with_commit(settings, commit).has(commit)
    vault.remove(VAULT_PROJECT, "login-shop")
    with pytest.raises(NotFoundError, match='no secret "login-shop"'):
        project.with_ref(settings, "main")


def test_projects_secrets_are_out_of_every_steps_reach(database: sa.Engine):
    """No project can have the name under which they lie."""
    with pytest.raises(InputError, match="Penstock's own"):
        add_project(database, VAULT_PROJECT, "/srv/x")


def test_git_cannot_ask_at_a_terminal(server: HttpServer, tmp_path: Path):
    """Even one that is there stays untouched: nobody waits for an answer."""
    script = (
        "from penstock.sources.command import git\n"
        f"try:\n    git('ls-remote', {server.url + '/shop.git'!r})\n"
        "except Exception as error:\n    print(error)\n"
    )
    words = ["script", "-qec", f"python -c '{script.replace(chr(39), chr(34))}'", str(tmp_path / "typescript")]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(words, env=env, capture_output=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert b"git ls-remote failed" in done.stdout
    assert b"Username for" not in done.stdout
