"""What tests of plugins share."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import sqlalchemy as sa
from containers import DockerEngine
from git_builder import GitRepository
from plugin_runs import Bench

from penstock.pipeline.session import open_services
from penstock.settings import Settings


@pytest.fixture
def bench(settings: Settings, database: sa.Engine, make_repository: Callable[..., GitRepository]) -> Iterator[Bench]:
    """Plugins on the process engine, in bubblewrap."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    yield Bench(open_services(settings, database, platform_up=False), make_repository())
    assert not list((settings.home / "workspaces").glob("*/*")), "something of a plugin was left behind"


@pytest.fixture
def docker_bench(
    settings: Settings,
    database: sa.Engine,
    docker_engine: DockerEngine,
    make_repository: Callable[..., GitRepository],
) -> Iterator[Bench]:
    """Plugins on a real Docker Engine."""
    own = attrs.evolve(settings, engine="docker", docker_host=docker_engine.host)
    yield Bench(open_services(own, database, platform_up=False), make_repository())
    assert not list((settings.home / "workspaces").glob("*/*")), "something of a plugin was left behind"
    client = docker_engine.client()
    left = client.containers.list(all=True)
    client.close()
    assert not left, "a container was left behind"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a plugin can be written."""
    return tmp_path / "plugin"
