"""A vault, a bare repository behind git's own server, and a forge's API faked at the wire."""

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import attrs
import pytest
import sqlalchemy as sa
from fake_forge import TOKEN, FakeForge, Handler
from git_builder import PIPELINE, GitRepository

sys.path.append(str(Path(__file__).parents[1] / "sources"))

from git_servers import HttpServer, serving_http

from penstock.connecting.connect import Connecting
from penstock.forges.clients import Link
from penstock.settings import Settings


@pytest.fixture
def forge() -> Iterator[FakeForge]:
    """A forge that has nothing yet."""
    about = FakeForge()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Handler,), {"about": about}))
    about.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield about
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """With a key of the test's own for the vault; this machine may be asked, where the servers are."""
    return attrs.evolve(settings, vault_key_file=tmp_path / "keys" / "vault.key", allow_private_hosts=("127.0.0.1",))


@pytest.fixture
def room(settings: Settings, database: sa.Engine) -> Connecting:
    """May ask this machine, where the fake is."""
    return Connecting(settings, database, Link(allow_private=True, timeout_s=20.0))


@pytest.fixture
def bare(make_repository: Callable[..., GitRepository], tmp_path: Path) -> Path:
    """served/team/shop.git, with a pipeline on main."""
    made = make_repository("work", {"penstock.yaml": PIPELINE})
    folder = tmp_path / "served" / "team" / "shop.git"
    made.git("clone", "--quiet", "--bare", str(made.root), str(folder))
    return folder


@pytest.fixture
def git_server(bare: Path) -> Iterator[HttpServer]:
    """Serves it to ada with the token as password."""
    with serving_http(bare.parents[1]) as served:
        served.password = TOKEN
        yield served
