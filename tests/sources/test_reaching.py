"""Where git may go: the operator's word decides, and what was checked is what is asked."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from git_builder import PIPELINE, GitRepository
from git_servers import HttpServer, SshServer, serving_http, serving_ssh

from penstock.errors import AccessError, InputError, PlatformError
from penstock.settings import Settings
from penstock.sources.git import Remote, ls_remote, mirror
from penstock.sources.login import Login, login_of
from penstock.sources.projects import add_project, fetched_from, list_projects
from penstock.sources.reaching import Reach, pinned, reach_of

PASSWORD = "of-the-reach-4711"
ADA = Login("ada", PASSWORD)


@pytest.fixture
def bare(make_repository: Callable[..., GitRepository], tmp_path: Path) -> Path:
    """served/shop.git, with a commit."""
    made = make_repository("work", {"penstock.yaml": PIPELINE})
    folder = tmp_path / "served" / "shop.git"
    made.git("clone", "--quiet", "--bare", str(made.root), str(folder))
    return folder


@pytest.fixture
def server(bare: Path) -> Iterator[HttpServer]:
    """A git server on loopback."""
    with serving_http(bare.parent) as served:
        served.password = PASSWORD
        yield served


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """An SSH server on loopback."""
    with serving_ssh(tmp_path_factory.mktemp("ssh")) as served:
        yield served


def leads_to(*addresses: str) -> Callable[[str, int], tuple[str, ...]]:
    """A resolver that knows one answer."""
    return lambda *_: addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/shop.git",
        "https://localhost/shop.git",
        "https://[::1]/shop.git",
        "http://169.254.169.254/latest/meta-data",
        "https://10.0.0.7/shop.git",
        "https://0x7f000001/shop.git",
        "https://2130706433/shop.git",
        "ssh://git@127.0.0.1:2222/shop.git",
        "git@localhost:team/shop.git",
        "ssh://git@[fe80::1]/shop.git",
    ],
)
@pytest.mark.parametrize("login", [None, "some"])
def test_git_does_not_go_where_only_this_machine_can(url: str, login: str | None, tmp_path: Path):
    """By whatever spelling of the address; the remedy is the operator's setting."""
    own = None if login is None else Login(key=b"k") if "ssh" in url or url.startswith("git@") else ADA
    with pytest.raises(AccessError, match="PENSTOCK_ALLOW_PRIVATE_HOSTS"):
        pinned(url, Reach(), own, {})


def test_no_byte_is_sent_to_a_host_that_is_refused(server: HttpServer, database: sa.Engine, tmp_path: Path):
    """Neither when it is connected nor when it is fetched; the project is not made."""
    url = f"{server.url}/shop.git"
    with pytest.raises(AccessError):
        add_project(database, "shop", url, login=ADA)
    with pytest.raises(AccessError):
        mirror(Remote(url, ADA), tmp_path / "m.git")
    assert (server.seen, list_projects(database)) == ([], ())


def test_address_that_was_checked_is_the_one_that_is_asked(server: HttpServer):
    """The name leads nowhere by the machine's own resolver: git asks the address that was found when it was checked."""
    port = server.url.rpartition(":")[2]
    there = Remote(
        f"http://git.reach.test:{port}/shop.git", None, Reach(("git.reach.test",), resolve=leads_to("127.0.0.1"))
    )
    with pytest.raises(PlatformError, match=r"Authentication|could not read"):
        ls_remote(there)
    assert set(server.seen) == {None}


def test_name_that_leads_inside_is_refused_beside_a_public_address():
    """One address that must not be asked is enough: git might take that one."""
    with pytest.raises(AccessError, match=r"10\.0\.0\.7"):
        pinned("https://git.reach.test/shop.git", Reach(resolve=leads_to("93.184.216.34", "10.0.0.7")), None, {})


def test_ssh_asks_the_address_and_knows_the_key_by_the_name(ssh: SshServer, bare: Path, tmp_path: Path):
    """The server's key is kept under the host's name and port, as SSH itself does, and is found there again."""
    known = tmp_path / "known_hosts"
    url = ssh.url(bare).replace("127.0.0.1", "git.reach.test")
    there = Remote(url, login_of(ssh.key, known_hosts=known), Reach(("127.0.0.0/8",), resolve=leads_to("127.0.0.1")))
    assert "refs/heads/main" in ls_remote(there)
    assert known.read_text().startswith(f"[git.reach.test]:{ssh.port} ")
    assert "refs/heads/main" in ls_remote(there)


def test_operators_own_ssh_names_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A host that whoever runs Penstock calls `work` is where their configuration says."""
    script = tmp_path / "ssh"
    script.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {tmp_path}/config "$@"\n')
    script.chmod(0o755)
    (tmp_path / "config").write_text("Host work\n  HostName 10.0.0.7\nHost jumped\n  ProxyJump gate.example\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert pinned("git@work:shop.git", Reach(), None, {}) == {}
    assert pinned("ssh://git@jumped/shop.git", Reach(), None, {}) == {}
    with pytest.raises(AccessError):
        pinned("git@127.0.0.1:shop.git", Reach(), None, {})


@pytest.mark.parametrize(
    "url", ["git://git.example/shop.git", "ftp://git.example/shop", "https:///shop", "http://h:x/"]
)
def test_other_protocols_are_no_addresses(url: str):
    """In one line."""
    with pytest.raises(InputError) as caught:
        pinned(url, Reach(True), None, {})
    assert "\n" not in str(caught.value)


def test_what_penstock_keeps_is_no_repository(settings: Settings, database: sa.Engine, bare: Path):
    """Another project's mirror is nobody's, by its path or by a link to it; the example's repository is open."""
    mirror(str(bare), settings.home / "mirrors" / "secret.git")
    link = bare.parent / "link.git"
    link.symlink_to(settings.home / "mirrors" / "secret.git")
    for url in (str(settings.home / "mirrors" / "secret.git"), f"file://{settings.home}/mirrors/secret.git", str(link)):
        with pytest.raises(AccessError, match="Penstock itself keeps"):
            add_project(database, "thief", url, reach=reach_of(settings))
    mirror(str(bare), settings.home / "repositories" / "shop.git")
    assert add_project(database, "shop", str(settings.home / "repositories" / "shop.git"), reach=reach_of(settings))


def test_behind_a_proxy_the_proxy_looks_names_up(monkeypatch: pytest.MonkeyPatch):
    """A name that only it knows is passed on; a number is checked all the same."""
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert pinned("https://git.nowhere.invalid/shop.git", Reach(), None, {"A": "b"}) == {"A": "b"}
    with pytest.raises(AccessError):
        pinned("https://10.0.0.7/shop.git", Reach(), None, {})


@pytest.mark.parametrize(
    ("url", "forge", "asked"),
    [
        ("https://gitlab.com/a/b", "gitlab", "https://gitlab.com/a/b.git"),
        ("https://gitlab.com/a/b/", "gitlab", "https://gitlab.com/a/b.git"),
        ("https://gitlab.com/a/b.git", "gitlab", "https://gitlab.com/a/b.git"),
        ("git@gitlab.com:a/b", "gitlab", "git@gitlab.com:a/b"),
        ("https://github.com/a/b", "github", "https://github.com/a/b"),
        ("https://git.example/a/b", None, "https://git.example/a/b"),
    ],
)
def test_gitlab_is_asked_where_it_does_not_redirect(url: str, forge: str | None, asked: str):
    """It sends whoever leaves `.git` out elsewhere, and git follows nobody."""
    assert fetched_from(url, forge) == asked
