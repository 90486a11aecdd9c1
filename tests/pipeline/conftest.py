"""What tests of whole runs share."""

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from git_builder import GitRepository
from run_sessions import Runner

from penstock.pipeline.session import open_services
from penstock.settings import Settings


@pytest.fixture
def runner(settings: Settings, database: sa.Engine, make_repository: Callable[..., GitRepository]) -> Iterator[Runner]:
    services = open_services(settings, database, platform_up=False)
    yield Runner(make_repository(), services)
    assert not list((settings.home / "workspaces").glob("*/*")), "a workspace was left behind"
