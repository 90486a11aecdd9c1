"""What tests share: one embedded PostgreSQL for the session, a database and a home for each test, git repositories."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from containers import BUSYBOX, DockerEngine, build_busybox, running_registry
from git_builder import GitRepository
from real_parts import Isolation, server_url, short_folder

from penstock.engines.process import bubblewrap
from penstock.settings import Settings, load_settings
from penstock.state.database import create_engine, migrate
from penstock.state.embedded import EmbeddedPostgres

TEMPLATE = "penstock_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server that lives as long as the tests, with a migrated database to copy."""
    home = short_folder()
    with EmbeddedPostgres(home).hosted() as server:
        with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
        address = {"PENSTOCK_HOME": str(home), "PENSTOCK_DATABASE_URL": server_url(server, TEMPLATE)}
        engine = create_engine(load_settings(address))
        migrate(engine)
        engine.dispose()
        yield server
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def home() -> Iterator[Path]:
    """A PENSTOCK_HOME where nothing is yet."""
    folder = short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def settings(postgres: EmbeddedPostgres, home: Path) -> Iterator[Settings]:
    """Settings with a home and a migrated database of the test's own."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        yield load_settings({"PENSTOCK_HOME": str(home), "PENSTOCK_DATABASE_URL": server_url(postgres, name)})
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(settings: Settings) -> Iterator[sa.Engine]:
    """The test's own database, opened."""
    engine = create_engine(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    """What makes another process use the same settings."""
    assert settings.database_url is not None
    return {"PENSTOCK_HOME": str(settings.home), "PENSTOCK_DATABASE_URL": settings.database_url}


@pytest.fixture
def make_repository(tmp_path: Path) -> Callable[..., GitRepository]:
    """make_repository(name, files) → a git repository, with a commit if there are files."""

    def make(name: str = "shop", files: dict[str, str | bytes] | None = None) -> GitRepository:
        made = GitRepository(tmp_path / name)
        if files:
            made.commit(files, "First")
        return made

    return make


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """A real Docker Engine with the image `busybox:tests`. Its tests are marked xdist_group("docker")."""
    folder = short_folder()
    engine = DockerEngine(folder / "docker")
    try:
        engine.start()
        build_busybox(engine.host, folder / "busybox", BUSYBOX)
        yield engine
    finally:
        engine.remove()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """A real registry on loopback that asks for no login: `127.0.0.1:PORT`."""
    folder = short_folder()
    with running_registry(folder) as address:
        yield address
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bottomless(home: Path) -> Iterator[Path]:
    """A folder that is nested deeper than a path may be long, or Python recurses."""
    folder = home / "bottomless"
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(params=["bubblewrap", "nothing"])
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Isolation]:
    """The test runs twice: with bubblewrap, and on a machine whose PATH has everything but bubblewrap."""
    if request.param == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    if request.param == "nothing":
        monkeypatch.setenv("PATH", str(request.getfixturevalue("commands_without_bwrap")))
    bubblewrap.cache_clear()
    yield Isolation(request.param == "bubblewrap")
    bubblewrap.cache_clear()


@pytest.fixture(scope="session")
def commands_without_bwrap() -> Iterator[Path]:
    """A folder of links to this machine's commands, without bubblewrap."""
    folder = short_folder()
    for source in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for command in Path(source).iterdir() if Path(source).is_dir() else ():
            if command.name != "bwrap" and not (folder / command.name).is_symlink():
                (folder / command.name).symlink_to(command)
    yield folder
    shutil.rmtree(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share its servers, and the dashboards' files one browser: each group stays with one worker."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            folder = item.path.parent.name
            item.add_marker(pytest.mark.xdist_group(folder if folder == "dashboards" else str(item.path)))
