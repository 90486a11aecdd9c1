"""Opening a warehouse: where it is, what is missing, and what is never said."""

import re
import shutil
import traceback
from pathlib import Path

import attrs
import duckdb
import pytest
from lake_rows import at, findings, run, scan

from penstock.errors import NotFoundError, PenstockError, PlatformError, SettingsError
from penstock.warehouse import Location, Warehouse, connect
from penstock.warehouse.rows import ROW_TYPES, arrow_schema
from penstock.warehouse.schema import MIGRATIONS, ensure_schema, schema_sql, schema_version

PASSWORD = "open sesame/42"
QUOTED = "open%20sesame%2F42"
UNREACHABLE = [
    f"postgresql://ann:{QUOTED}@127.0.0.1:1/lake",
    f"postgresql://ann:{QUOTED}@nowhere.invalid/lake",
    f"postgresql://ann:{QUOTED}@/lake?host=/nowhere/at/all",
]

NEXT = max(MIGRATIONS) + 1


def columns_of(lake: duckdb.DuckDBPyConnection, table: str) -> set[str]:
    """Names of a table's columns."""
    return {row[0] for row in lake.execute(f"DESCRIBE {table}").fetchall()}


def test_a_reader_before_any_writer_is_told_so(location: Location):
    """Not a stack of DuckDB's, but what to do."""
    with pytest.raises(NotFoundError, match="there is no warehouse yet; run a pipeline"):
        connect(location, read_only=True)


def test_a_reader_cannot_write(reader):
    """Attached read-only."""
    for query in ("DELETE FROM runs", "CREATE TABLE t (i INT)", "DROP TABLE runs", "UPDATE runs SET state = 'x'"):
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            reader.execute(query)


def test_a_reader_sees_what_was_written_after_it_opened(warehouse: Warehouse, reader):
    """A dashboard's connection may stay open."""
    assert reader.execute("SELECT count(*) FROM runs").fetchall() == [(0,)]
    warehouse.record_run(run(1))
    assert reader.execute("SELECT count(*) FROM runs").fetchall() == [(1,)]


@pytest.mark.parametrize("url", UNREACHABLE)
def test_a_catalog_that_is_away_is_one_line_without_the_password(url, tmp_path: Path):
    """Neither the message, nor its causes, nor a traceback shows the password; a reader and a writer say the same."""
    location = Location(catalog_url=url, data_path=str(tmp_path))
    for attempt in (
        lambda: connect(location, read_only=True),
        Warehouse(location, sleep=lambda _: None).create,
    ):
        with pytest.raises(PlatformError, match="see that PostgreSQL runs") as raised:
            attempt()
        shown = "".join(traceback.format_exception(raised.value)) + repr(location) + str(raised.value)
        assert PASSWORD not in shown
        assert QUOTED not in shown
        assert "\n" not in str(raised.value)


def test_a_wrong_database_is_named(catalog_url: str, tmp_path: Path):
    """What PostgreSQL says is passed on."""
    url = catalog_url.replace("/postgres?", "/other?")
    with pytest.raises(PlatformError, match='database "other" does not exist'):
        connect(Location(catalog_url=url, data_path=str(tmp_path)))


@pytest.mark.parametrize("url", ["nonsense", "postgresql://ann:secret@[::1/lake", "postgresql://h/d?nosuch=1"])
def test_what_is_no_address_is_refused_without_repeating_it(url, tmp_path: Path):
    """The setting's name and how it should look, not what was in it."""
    with pytest.raises(SettingsError, match="PENSTOCK_DATABASE_URL: this is no PostgreSQL address") as raised:
        connect(Location(catalog_url=url, data_path=str(tmp_path)))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "Lake", "la ke", "lake'; DROP", "1lake", "l" * 64])
def test_a_schema_with_a_strange_name_is_refused(name):
    """The name goes into SQL."""
    with pytest.raises(SettingsError, match="is no name for a schema"):
        Location(catalog_url="postgresql://", data_path="x", catalog_schema=name)


def test_another_folder_than_the_catalog_knows_is_refused(warehouse: Warehouse, tmp_path: Path):
    """Files would be written where no reader looks."""
    moved = attrs.evolve(warehouse.location, data_path=str(tmp_path / "elsewhere"))
    with pytest.raises(SettingsError, match="keeps its data elsewhere"):
        connect(moved, read_only=True)


def test_the_catalog_shows_no_password_to_sql(warehouse: Warehouse):
    """Not in the list of databases, not in the list of secrets."""
    url = re.sub(r"//postgres:@", f"//postgres:{QUOTED}@", warehouse.location.catalog_url)
    with connect(attrs.evolve(warehouse.location, catalog_url=url), read_only=True) as lake:
        shown = str(lake.execute("FROM duckdb_databases()").fetchall())
        shown += str(lake.execute("FROM duckdb_secrets()").fetchall())
    assert PASSWORD not in shown
    assert QUOTED not in shown


def test_extensions_are_never_fetched(reader):
    """A machine without a network works the same."""
    settings = dict(reader.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    assert settings["autoinstall_known_extensions"] == "false"
    assert settings["autoload_known_extensions"] == "false"
    assert settings["allow_persistent_secrets"] == "false"


def test_a_missing_table_is_no_python_variable(reader):
    """A local name must not answer for a table."""
    findngs = [1]
    with pytest.raises(duckdb.CatalogException, match="findngs does not exist"):
        reader.execute("FROM findngs")
    assert findngs


def test_two_warehouses_share_a_database(location: Location, tmp_path: Path):
    """Each schema is a lake of its own, beside whatever else the database holds."""
    other = attrs.evolve(location, catalog_schema=location.catalog_schema + "_b", data_path=str(tmp_path / "b"))
    with Warehouse(location) as first, Warehouse(other) as second:
        first.record_run(run(1))
        second.create()
        with connect(other, read_only=True) as lake:
            assert lake.execute("SELECT count(*) FROM runs").fetchall() == [(0,)]


@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_rows_and_tables_agree(tables, row_type):
    """The fields of a row are the columns of its table."""
    assert set(arrow_schema(row_type).names) == columns_of(tables, row_type.TABLE)


def test_a_finding_fits_its_table(tables):
    """Every field of a Finding is a column, so that nothing of it is lost."""
    from penstock.findings import FINDING_SCHEMA_NAMES

    assert set(FINDING_SCHEMA_NAMES) < columns_of(tables, "findings")


def test_every_table_says_its_grain(tables):
    """In one sentence that begins with "One row per"."""
    query = "SELECT table_name, comment FROM duckdb_tables() UNION ALL SELECT view_name, comment FROM duckdb_views()"
    grains = dict(tables.execute(f"{query} WHERE NOT internal").fetchall())
    assert {"findings", "finding_history", "runs", "steps", "releases"} <= set(grains)
    assert [name for name, comment in grains.items() if not (comment or "").startswith("One row per")] == []


def test_the_schema_can_be_made_twice(tables):
    """Running it again changes nothing and loses nothing."""
    tables.execute("INSERT INTO runs (run_id, project, commit, state) VALUES ('r', 'p', 'c', 's')")
    tables.execute(schema_sql())
    assert tables.execute("SELECT count(*) FROM runs").fetchall() == [(1,)]


def test_an_older_warehouse_is_migrated_once(warehouse: Warehouse, reader):
    """Tables outlive the code: a new column appears beside old rows, and the next start has nothing to do."""
    warehouse.record_run(run(1))
    newer = {NEXT: "ALTER TABLE runs ADD COLUMN cost DOUBLE"}
    assert warehouse.alone(lambda lake: ensure_schema(lake, newer)) == NEXT
    assert warehouse.alone(lambda lake: ensure_schema(lake, newer)) == NEXT
    assert reader.execute("SELECT run_id, cost FROM runs").fetchall() == [("r1", None)]
    assert schema_version(reader) == NEXT


def test_a_migration_that_fails_leaves_the_old_version(warehouse: Warehouse, reader):
    """One transaction: no half of it stays."""
    broken = {NEXT: "ALTER TABLE runs ADD COLUMN cost DOUBLE; ALTER TABLE nowhere ADD COLUMN x INT"}
    with pytest.raises(PlatformError, match="nowhere"):
        warehouse.alone(lambda lake: ensure_schema(lake, broken))
    assert schema_version(reader) == NEXT - 1
    assert "cost" not in columns_of(reader, "runs")
    warehouse.record_run(run(1))


def test_a_newer_warehouse_is_refused(warehouse: Warehouse):
    """An old Penstock does not write into tables that it does not know."""
    warehouse.alone(lambda lake: ensure_schema(lake, {NEXT: "SELECT 1"}))
    with Warehouse(warehouse.location) as old, pytest.raises(PenstockError, match="upgrade Penstock"):
        old.record_run(run(1))


def test_files_that_vanished_are_an_error_not_an_empty_answer(warehouse: Warehouse, reader):
    """A damaged warehouse says so."""
    warehouse.record_scan(scan(1), findings(map(str, range(500))))
    shutil.rmtree(warehouse.location.data_path)
    with pytest.raises(duckdb.Error, match="parquet"):
        reader.execute("SELECT max(message) FROM findings").fetchall()


def test_times_come_back_in_utc(warehouse: Warehouse, reader):
    """Whatever the machine's own zone is."""
    warehouse.record_run(run(1))
    (queued,) = reader.execute("SELECT queued_at FROM runs").fetchone() or (None,)
    assert queued == at(1)
    assert queued.utcoffset().total_seconds() == 0


def test_a_warehouse_without_suppressions_gets_them(warehouse: Warehouse, reader):
    """A lake of the first version has the table after the next start of a writer."""

    def first_version(lake: duckdb.DuckDBPyConnection) -> None:
        lake.execute(
            "DROP TABLE suppressions; DELETE FROM schema_version; INSERT INTO schema_version VALUES (1, now())"
        )

    warehouse.write(first_version)
    warehouse.close()
    warehouse.create()
    assert reader.execute("SELECT count(*) FROM suppressions").fetchall() == [(0,)]
