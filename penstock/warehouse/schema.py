"""
The tables are made, and brought up to date: lake tables outlive the code that wrote them.

`schema.sql` is the present schema and may be run at any time. What it cannot do to a table that is there already (a
column more) is a statement in MIGRATIONS under the version that needs it.
"""

import importlib.resources
from collections.abc import Mapping

import duckdb

from penstock.errors import PlatformError

_THIRD = (
    "SELECT 'tables of components, coverage, images, approvals, rollouts and of what plugins told'",
    "ALTER TABLE scans ADD COLUMN IF NOT EXISTS roots VARCHAR[]",
    "ALTER TABLE releases ADD COLUMN IF NOT EXISTS strategy VARCHAR",
    "ALTER TABLE releases ADD COLUMN IF NOT EXISTS replicas BIGINT",
    "ALTER TABLE releases ADD COLUMN IF NOT EXISTS previous_number BIGINT",
    "ALTER TABLE releases ADD COLUMN IF NOT EXISTS rollback_of BIGINT",
    "ALTER TABLE scans ADD COLUMN IF NOT EXISTS base_branch VARCHAR",
    "ALTER TABLE plugin_metrics ADD COLUMN IF NOT EXISTS tenant VARCHAR",
    "ALTER TABLE plugin_metrics ADD COLUMN IF NOT EXISTS environment VARCHAR",
    "ALTER TABLE plugin_metrics ADD COLUMN IF NOT EXISTS kind VARCHAR",
    "ALTER TABLE plugin_metrics ADD COLUMN IF NOT EXISTS received_at TIMESTAMPTZ",
    "ALTER TABLE plugin_metrics ADD COLUMN IF NOT EXISTS seq BIGINT",
)
"""Columns that tables of version 2 get: ALTER TABLE … ADD COLUMN IF NOT EXISTS …; whole tables need no line."""

MIGRATIONS: Mapping[int, str] = {2: "SELECT 'suppressions: a table more'", 3: ";".join(_THIRD)}
"""Version → what brings a warehouse of the version before it up to that version, before `schema.sql` is run."""

PARTITIONED: Mapping[int, str] = {
    3: "ALTER TABLE plugin_metrics SET PARTITIONED BY (tenant, project);"
    "ALTER TABLE plugin_data SET PARTITIONED BY (tenant, project)",
}
"""Version → how its tables are laid out in files, which only a lake can do; run after `schema.sql`."""

FIRST_VERSION = 1


def ensure_schema(connection: duckdb.DuckDBPyConnection, migrations: Mapping[int, str] = MIGRATIONS) -> int:
    """
    Bring the tables to the newest version in one transaction; one query when they are there already.

    Returns: the version. The caller holds the writers' lock.
    Raises: PlatformError when the warehouse was written by a newer Penstock.
    """
    newest = max(migrations, default=FIRST_VERSION)
    present = schema_version(connection)
    if present > newest:
        raise PlatformError(
            f"the warehouse has schema version {present}, this Penstock knows {newest}",
            remedy="upgrade Penstock",
        )
    if present < newest:
        _upgrade(connection, present, newest, migrations)
    return newest


def schema_version(connection: duckdb.DuckDBPyConnection) -> int:
    """The version of the tables; 0 when there are none."""
    try:
        row = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    except duckdb.CatalogException:
        return 0
    return int(row[0]) if row and row[0] else 0


def schema_sql() -> str:
    """The present schema as SQL, idempotent."""
    return importlib.resources.files(__package__).joinpath("schema.sql").read_text(encoding="utf-8")


def _upgrade(connection: duckdb.DuckDBPyConnection, present: int, newest: int, migrations: Mapping[int, str]) -> None:
    pending = [sql for version, sql in sorted(migrations.items()) if version > present > 0]
    connection.execute("BEGIN")
    try:
        for sql in [*pending, schema_sql(), *_layouts(connection, present, newest)]:
            connection.execute(sql)
        connection.execute("INSERT INTO schema_version VALUES (?, now())", [newest])
        connection.execute("COMMIT")
    except duckdb.Error:
        connection.execute("ROLLBACK")
        raise


def _layouts(connection: duckdb.DuckDBPyConnection, present: int, newest: int) -> list[str]:
    row = connection.execute("SELECT type FROM duckdb_databases() WHERE database_name = current_database()").fetchone()
    is_lake = row is not None and row[0] == "ducklake"
    return [sql for version, sql in sorted(PARTITIONED.items()) if present < version <= newest] if is_lake else []
