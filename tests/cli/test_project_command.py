"""`penstock project`: from an address to a connected repository, as a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_process import COMMAND, Penstock
from git_builder import PIPELINE, GitRepository

sys.path.append(str(Path(__file__).parents[1] / "sources"))

from git_servers import HttpServer, serving_http

PASSWORD = "of-the-command-line-5678"


@pytest.fixture
def penstock(env: dict[str, str], tmp_path: Path) -> Penstock:
    """With a vault of its own; it may ask this machine, where the server is."""
    own = {"PENSTOCK_VAULT_KEY_FILE": str(tmp_path / "vault.key"), "PENSTOCK_ALLOW_PRIVATE_HOSTS": "127.0.0.1"}
    return Penstock({**env, **own}, tmp_path)


@pytest.fixture
def bare(make_repository: Callable[..., GitRepository], tmp_path: Path) -> Path:
    made = make_repository("work", {"penstock.yaml": PIPELINE})
    folder = tmp_path / "served" / "shop.git"
    made.git("clone", "--quiet", "--bare", str(made.root), str(folder))
    return folder


@pytest.fixture
def server(bare: Path) -> Iterator[HttpServer]:
    with serving_http(bare.parent) as served:
        served.password = PASSWORD
        yield served


def test_local_repository_is_connected_shown_tried_and_removed(penstock: Penstock, bare: Path):
    """Each command says what it did; a home without a running platform is warned of."""
    added = penstock("project", "add", "served/shop.git")
    assert added.returncode == 0, added.stderr
    assert added.stdout.splitlines()[0] == f"shop: {bare}, default branch main"
    assert f"wrote {bare / 'hooks' / 'post-receive'}" in added.stdout
    assert "no platform is running for PENSTOCK_HOME" in added.stderr
    assert "nothing starts until `penstock up` runs there" in added.stderr
    assert str(bare) in penstock("project", "list").stdout
    assert "none: as whoever runs Penstock" in penstock("project", "show", "shop").stdout
    tried = penstock("project", "test", "shop")
    assert tried.returncode == 0
    assert "✔ git    1 branch, 0 tags" in tried.stdout
    assert penstock("project", "remove", "shop").stdout == "shop is disconnected\n"
    assert not (bare / "hooks" / "post-receive").exists()


def test_login_comes_from_a_file_and_is_shown_nowhere(penstock: Penstock, server: HttpServer, tmp_path: Path):
    """And `test` says with its exit code that it no longer works."""
    (tmp_path / "login").write_text(f"ada:{PASSWORD}\n")
    url = f"{server.url}/shop.git"
    added = penstock("project", "add", url, "--login-file", "login", "--forge", "git")
    shown = penstock("project", "show", "shop")
    assert added.returncode == shown.returncode == 0, added.stderr
    assert "in the vault" in shown.stdout
    server.password = "changed"
    tried = penstock("project", "test", "shop")
    assert tried.returncode == 3
    assert "✘ git" in tried.stdout
    (tmp_path / "login").write_text("ada:changed")
    assert penstock("project", "edit", "shop", "--login-file", "login").stdout == "shop: changed\n"
    assert penstock("project", "test", "shop").returncode == 0
    everything = "".join(done.stdout + done.stderr for done in (added, shown, tried))
    assert PASSWORD not in everything


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("add", "/nowhere/x.git"), "give an address that `git ls-remote` can read"),
        (("add", "https://me:word@git.example/x"), "the address holds credentials"),
        (("add", "served/shop.git", "--login-file", "missing"), "missing: it cannot be read: No such file"),
        (("add", "served/shop.git", "--login-file", "empty"), "empty: it is empty"),
        (("add", "served/shop.git", "--login-file", "login"), "user and password open only https:// addresses"),
        (("add", "https://git.example/x", "--forge", "svn"), 'no forge is called "svn"'),
        (("add", "served/shop.git", "--name", "Shop"), '"Shop" is no name for a project'),
        (("show", "nobody"), 'no project is called "nobody"'),
        (("edit", "nobody"), 'no project is called "nobody"'),
        (("test", "nobody"), 'no project is called "nobody"'),
        (("remove", "nobody"), 'no project is called "nobody"'),
    ],
)
def test_mistakes_are_one_line(penstock: Penstock, bare: Path, tmp_path: Path, words: tuple[str, ...], what: str):
    """With exit code 2 and no traceback; nothing is connected."""
    assert bare.is_dir()
    (tmp_path / "empty").touch()
    (tmp_path / "login").write_text("ada:word-of-mine")
    done = penstock("project", *words)
    assert done.returncode == 2, done.stderr
    assert what in done.stderr
    assert done.stderr.count("\n") == 1
    assert "word-of-mine" not in done.stderr
    assert "shop" not in penstock("project", "list").stdout


def test_login_may_come_through_a_pipe(penstock: Penstock, server: HttpServer):
    """`pass show … | penstock project add … --login-file -`."""
    words = [str(COMMAND), "project", "add", f"{server.url}/shop.git", "--forge", "git", "--login-file", "-"]
    env = {**os.environ, **penstock.env}
    given = f"ada:{PASSWORD}\n"
    done = subprocess.run(words, input=given, env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
