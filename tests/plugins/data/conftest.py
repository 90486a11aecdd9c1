"""A database, a warehouse, and plugins of several tenants and projects that told something."""

import shutil
from collections.abc import Iterator
from datetime import timedelta

import attrs
import psycopg
import pytest
import sqlalchemy as sa
from real_parts import server_url, short_folder
from told_lines import metrics, scope

from penstock.plugins.data import DataLimits, PluginData
from penstock.plugins.data.mover import Mover
from penstock.plugins.data.queries import Queries
from penstock.settings import Settings, load_settings
from penstock.state.database import create_engine, migrate
from penstock.state.embedded import EmbeddedPostgres
from penstock.warehouse import Warehouse, warehouse_location

LIMITS = DataLimits(answer_time=timedelta(seconds=20), answer_memory_bytes=256 * 1024**2, answer_rows=1000)


@pytest.fixture
def store(database: sa.Engine, settings: Settings) -> PluginData:
    """Where plugins tell."""
    return PluginData(database, settings, LIMITS)


@pytest.fixture
def warehouse(settings: Settings) -> Iterator[Warehouse]:
    """The test's own."""
    with Warehouse(warehouse_location(settings)) as made:
        yield made


@pytest.fixture
def mover(database: sa.Engine, warehouse: Warehouse) -> Mover:
    """What brings it to the warehouse."""
    return Mover(database, warehouse, LIMITS)


@pytest.fixture
def queries(database: sa.Engine, settings: Settings) -> Iterator[Queries]:
    """What answers."""
    made = Queries(database, warehouse_location(settings), LIMITS)
    yield made
    made.close()


@attrs.frozen
class Town:
    """
    Three projects: `shop` of tenant default, `secret` of the same tenant, `shop` of tenant rival. Each has metrics and
    data in files, in a file with deleted rows, and on the way.
    """

    database: sa.Engine
    settings: Settings
    queries: Queries
    store: PluginData


@pytest.fixture(scope="module")
def town(postgres: EmbeddedPostgres) -> Iterator[Town]:
    """For tests that only ask."""
    home = short_folder()
    name = f"town_{home.name.lower()}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    settings = load_settings({"PENSTOCK_HOME": str(home), "PENSTOCK_DATABASE_URL": server_url(postgres, name)})
    database = create_engine(settings)
    migrate(database)
    store, queries = PluginData(database, settings, LIMITS), Queries(database, warehouse_location(settings), LIMITS)
    try:
        _settle(store, settings)
        yield Town(database, settings, queries, store)
    finally:
        queries.close()
        database.dispose()
        with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        shutil.rmtree(home, ignore_errors=True)


def _settle(store: PluginData, settings: Settings) -> None:
    with Warehouse(warehouse_location(settings)) as warehouse:
        mover = Mover(store.database, warehouse, LIMITS)
        _tell(store, 1)
        mover.move_all()
        warehouse.write(lambda lake: lake.execute("DELETE FROM plugin_metrics WHERE value = 3"))
        _tell(store, 2)
        mover.move_all()
        _tell(store, 3)


def _tell(store: PluginData, turn: int) -> None:
    towns = (("shop", "default", "ours"), ("secret", "default", "HIDDEN"), ("shop", "rival", "HIDDEN"))
    for project, tenant, word in towns:
        about = scope(project, tenant, plugin="lint" if turn < 3 else "cover", run_id=f"run-{turn}")
        store.take_metrics(about, metrics(1, 2, 3, name=f"{word}.findings"))
        store.take_data(about, [f'{{"kind": "{word}", "key": "k", "value": {{"said": "{word}"}}}}'.encode()])
