"""What plugins told comes to the warehouse exactly once, whatever fails or is killed in between."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import attrs
import pytest
import sqlalchemy as sa
from told_lines import metrics, scope

from penstock.errors import PlatformError
from penstock.plugins.data import PluginData
from penstock.plugins.data.mover import Mover
from penstock.plugins.data.queries import Queries
from penstock.state.plugin_tables import plugin_intake
from penstock.warehouse import Warehouse, compact, retain

LONG_AGO = timedelta(0)
STUCK = """
    CREATE FUNCTION penstock.stuck() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN OLD; END $$;
    CREATE TRIGGER stuck BEFORE DELETE ON penstock.plugin_intake EXECUTE FUNCTION penstock.stuck();
"""
MOVE = """
from penstock.plugins.data.mover import Mover
from penstock.settings import load_settings
from penstock.state.database import create_engine
from penstock.warehouse import Warehouse, warehouse_location
settings = load_settings()
with Warehouse(warehouse_location(settings)) as warehouse:
    Mover(create_engine(settings), warehouse).move_all()
"""


def in_lake(warehouse: Warehouse) -> tuple[int, int, float]:
    """Rows, different numbers of rows, and sum of the metrics."""
    query = "SELECT count(*), count(DISTINCT seq), coalesce(sum(value), 0) FROM plugin_metrics"
    return warehouse.alone(lambda lake: lake.execute(query).fetchone())  # type: ignore[return-value]


def seen(queries: Queries, project: str = "shop") -> tuple[object, ...]:
    """Rows and sum of the metrics that a plugin sees."""
    return queries.ask(scope(project), "SELECT count(*), coalesce(sum(value), 0) FROM plugin_metrics").rows[0]


def waiting(database: sa.Engine) -> int:
    """Chunks that wait."""
    with database.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(plugin_intake)).scalar_one())


def test_rows_are_moved_once(store: PluginData, mover: Mover, warehouse: Warehouse, database: sa.Engine) -> None:
    """All of them, with whose they are."""
    store.take_metrics(scope(), metrics(1, 2))
    store.take_metrics(scope("it's / é", "täñant %"), metrics(4))
    store.take_data(scope(), [b'{"kind": "licence", "key": "requests", "value": {"id": "Apache-2.0"}}'])
    assert mover.move_all() == 4
    assert mover.move_all() == 0
    assert in_lake(warehouse) == (3, 3, 7.0)
    found = warehouse.alone(
        lambda lake: lake.execute("SELECT tenant, project, plugin, kind, key, value FROM plugin_data").fetchall()
    )
    assert found == [("default", "shop", "lint", "licence", "requests", '{"id": "Apache-2.0"}')]
    assert waiting(database) == 0


def test_a_plugin_sees_rows_before_and_after_the_move(store: PluginData, mover: Mover, queries: Queries) -> None:
    """At every time, once; also under names that no address could hold."""
    strange = "it's / é"
    store.take_metrics(scope(strange), metrics(1, 2))
    assert seen(queries, strange) == (2, 3.0)
    mover.move_all()
    store.take_metrics(scope(strange), metrics(4))
    assert seen(queries, strange) == (3, 7.0)
    assert seen(queries) == (0, 0)


def test_few_rows_wait_for_company(store: PluginData, mover: Mover, database: sa.Engine) -> None:
    """But not for ever."""
    store.take_metrics(scope(), metrics(1))
    assert mover.round() == 0
    with database.begin() as connection:
        connection.execute(sa.update(plugin_intake).values(received_at=sa.func.now() - timedelta(minutes=1)))
    assert mover.round() == 1


def test_what_was_claimed_and_not_written_is_written(
    store: PluginData, mover: Mover, warehouse: Warehouse, database: sa.Engine
) -> None:
    """A mover was killed after its first step."""
    warehouse.create()
    store.take_metrics(scope(), metrics(1, 2))
    with database.begin() as connection:
        connection.execute(sa.update(plugin_intake).values(batch="of-the-dead", after_snapshot=0))
    store.take_metrics(scope(), metrics(4))
    assert mover.move_all() == 3
    assert in_lake(warehouse) == (3, 3, 7.0)


def test_what_was_written_and_not_deleted_is_there_once(
    store: PluginData, mover: Mover, warehouse: Warehouse, database: sa.Engine, queries: Queries
) -> None:
    """The second step is done, the third fails again and again; meanwhile a plugin sees the rows once."""
    store.take_metrics(scope(), metrics(1, 2))
    with database.begin() as connection:
        connection.execute(sa.text(STUCK.format("RAISE EXCEPTION 'no';")))
    for _ in range(2):
        with pytest.raises(sa.exc.DBAPIError):
            mover.move_all()
        assert in_lake(warehouse) == (2, 2, 3.0)
        assert waiting(database) == 1
        assert seen(queries) == (2, 3.0)
    with database.begin() as connection:
        connection.execute(sa.text("DROP TRIGGER stuck ON penstock.plugin_intake"))
    mover.move_all()
    assert (in_lake(warehouse), waiting(database)) == ((2, 2, 3.0), 0)


def test_a_mover_that_is_killed_leaves_its_work_to_the_next(
    store: PluginData, mover: Mover, warehouse: Warehouse, database: sa.Engine, env: dict[str, str]
) -> None:
    """`kill -9` between the commit of the lake and the end; the lock goes with the process."""
    store.take_metrics(scope(), metrics(1, 2))
    with database.begin() as connection:
        connection.execute(sa.text(STUCK.format("PERFORM pg_sleep(120);")))
    process = subprocess.Popen([sys.executable, "-c", MOVE], env={**os.environ, **env})
    deleting = sa.text(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'DELETE FROM %'"
    )
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while (pid := connection.execute(deleting).scalar()) is None:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        connection.execute(sa.text(f"SELECT pg_terminate_backend({pid}, 5000)"))
        connection.execute(sa.text("DROP TRIGGER stuck ON penstock.plugin_intake"))
    assert waiting(database) == 1
    mover.move_all()
    assert (in_lake(warehouse), waiting(database)) == ((2, 2, 3.0), 0)


def test_movers_at_once_move_once(store: PluginData, warehouse: Warehouse, database: sa.Engine) -> None:
    """Each process may have one; writers go on meanwhile."""
    with Warehouse(warehouse.location) as other, ThreadPoolExecutor(6) as pool:
        movers = [Mover(database, warehouse), Mover(database, other)]
        told = [pool.submit(store.take_metrics, scope(run_id=f"run-{n}"), metrics(*range(50))) for n in range(20)]
        moved = [pool.submit(movers[n % 2].move_all) for n in range(8)]
        assert sum(each.result().accepted for each in told) == 1000
        for each in moved:
            each.result()
    movers[0].move_all()
    assert in_lake(warehouse) == (1000, 1000, 20 * sum(range(50)))


def test_a_warehouse_that_is_away_loses_nothing(store: PluginData, warehouse: Warehouse, database: sa.Engine) -> None:
    """What plugins tell is taken all the same."""
    away = attrs.evolve(warehouse.location, data_path="/proc/nowhere", catalog_schema="elsewhere")
    store.take_metrics(scope(), metrics(1))
    with Warehouse(away) as broken, pytest.raises(PlatformError):
        Mover(database, broken).move_all()
    Mover(database, warehouse).move_all()
    assert in_lake(warehouse) == (1, 1, 1.0)


def test_rows_stay_what_they_are_when_files_are_merged(
    store: PluginData, mover: Mover, warehouse: Warehouse, queries: Queries
) -> None:
    """Compaction keeps projects apart, and rewrites what was deleted."""
    for value in range(4):
        store.take_metrics(scope(), metrics(value))
        store.take_metrics(scope("secret"), metrics(100))
        mover.move_all()
    warehouse.write(lambda lake: lake.execute("DELETE FROM plugin_metrics WHERE value = 3"))
    assert seen(queries) == (3, 3.0)
    compact(warehouse, kept=LONG_AGO, grace=LONG_AGO)
    assert seen(queries) == (3, 3.0)
    assert seen(queries, "secret") == (4, 400.0)


def test_old_rows_go(store: PluginData, mover: Mover, warehouse: Warehouse, queries: Queries) -> None:
    """By the age that the warehouse keeps."""
    old = b'{"name": "findings", "value": 9, "at": "2020-01-01T00:00:00Z"}'
    store.take_metrics(scope(), [old, *metrics(1)])
    store.take_data(scope(), [b'{"kind": "x", "value": 1}'])
    mover.move_all()
    retain(warehouse, timedelta(days=30))
    assert seen(queries) == (1, 1.0)
    retain(warehouse, timedelta(0))
    assert queries.ask(scope(), "SELECT count(*) FROM plugin_data").rows == ((0,),)


def test_a_project_keeps_so_many_rows(store: PluginData, warehouse: Warehouse, database: sa.Engine) -> None:
    """The newest; others' rows do not count."""
    small = Mover(database, warehouse, attrs.evolve(store.limits, rows_kept=3))
    for value in range(5):
        store.take_metrics(scope(), metrics(value))
    store.take_metrics(scope("secret"), metrics(100))
    small.move_all()
    small.sweep()
    assert in_lake(warehouse) == (4, 4, 2 + 3 + 4 + 100)


def test_a_lake_of_the_second_version_is_upgraded(
    store: PluginData, warehouse: Warehouse, queries: Queries, database: sa.Engine
) -> None:
    """Its rows say no tenant and so are nobody's; new ones are laid out by project."""
    second = """
        DROP TABLE plugin_data;
        DROP TABLE plugin_metrics;
        CREATE TABLE plugin_metrics (project VARCHAR NOT NULL, commit VARCHAR NOT NULL, run_id VARCHAR NOT NULL,
            step VARCHAR NOT NULL, plugin VARCHAR NOT NULL, name VARCHAR NOT NULL, value DOUBLE, unit VARCHAR,
            labels VARCHAR, measured_at TIMESTAMPTZ);
        INSERT INTO plugin_metrics SELECT 'shop', 'c', 'r', 's', 'p', 'old', 8, NULL, NULL, now() FROM range(500);
        DELETE FROM schema_version;
        INSERT INTO schema_version VALUES (2, now())
    """
    warehouse.write(lambda lake: lake.execute(second))
    store.take_metrics(scope(), metrics(1))
    with Warehouse(warehouse.location) as today:
        Mover(database, today).move_all()
        assert in_lake(today)[0] == 501
    assert seen(queries) == (1, 1.0)
