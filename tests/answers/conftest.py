"""A shop whose forge is told how its runs stand: a real database, a real vault, and a forge at the wire."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
from git_builder import GitRepository

sys.path.append(str(Path(__file__).parents[1] / "forges"))  # the forges at the wire
sys.path.append(str(Path(__file__).parents[1] / "warehouse"))  # rows of a warehouse

from answering import Clock, Forges, Runs
from forge_server import ForgeServer

from penstock.answers.connections import Connection, Options, connect
from penstock.answers.deliver import Deliverer
from penstock.forges.clients import Link, open_client
from penstock.settings import Settings
from penstock.sources.projects import add_project
from penstock.vault import Vault, open_vault


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """With a key of the test's own for the vault."""
    return attrs.evolve(settings, vault_key_file=tmp_path / "keys" / "vault.key")


@pytest.fixture
def vault(settings: Settings) -> Vault:
    """Where the tokens are."""
    return open_vault(settings)


@pytest.fixture
def clock() -> Clock:
    """It goes on when a test says so."""
    return Clock()


@pytest.fixture
def link(clock: Clock) -> Link:
    """Forges may be on this machine here."""
    return Link(["127.0.0.1"], timeout_s=60.0, clock=clock)


@pytest.fixture
def shop(make_repository: Callable[..., GitRepository], database: sa.Engine) -> GitRepository:
    """A project."""
    made = make_repository("shop", {"readme": "hello"})
    add_project(database, "shop", str(made.root))
    return made


@pytest.fixture
def forges() -> Iterator[Forges]:
    """forges(name) → a forge that listens."""
    with Forges() as made:
        yield made


@pytest.fixture
def forge(forges: Forges) -> ForgeServer:
    """GitHub, where the shop is."""
    return forges("github")


Connected = Callable[..., Connection]


@pytest.fixture
def connected(database: sa.Engine, vault: Vault, link: Link, shop: GitRepository) -> Connected:
    """connected(forge, …options) → the shop's connection to it."""

    def make(forge: ForgeServer, project: str = "shop", **options: Any) -> Connection:
        return connect(
            database,
            vault,
            project,
            forge.name,
            secret=forge.secret,
            url=forge.url,
            repository=forge.repository,
            options=Options(**{"steps": False, **options}),
            link=link,
        )

    return make


@pytest.fixture
def deliverer(database: sa.Engine, settings: Settings, clock: Clock, link: Link) -> Iterator[Deliverer]:
    """Not started: a test calls `round`. It is never early by chance."""
    made = Deliverer(
        database,
        settings,
        opened=lambda of, secret: open_client(of.place, secret, link),
        clock=clock,
        chance=lambda: 0.0,
    )
    yield made
    for _, client in made._clients.values():
        client.close()


@pytest.fixture
def runs(database: sa.Engine, shop: GitRepository) -> Runs:
    """Makes runs and lets them go on."""
    return Runs(database, itertools.count(1))
