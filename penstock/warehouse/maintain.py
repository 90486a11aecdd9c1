"""
Keep the lake quick: inlined rows become files, small files become larger ones, old snapshots and their files go.

Run it on a schedule, from one place. It takes the writers' lock table by table, so that ingests get in between.
"""

from datetime import UTC, datetime, timedelta

import duckdb
from attrs import frozen

from penstock.warehouse.connect import LAKE
from penstock.warehouse.write import Warehouse

KEPT = timedelta(days=7)
"""How long old snapshots stay readable (time travel)."""

READERS_GRACE = timedelta(hours=1)
"""Files that no snapshot needs any more stay so long: a query that began earlier may still read them."""


@frozen
class Compaction:
    """What a compaction did, in numbers."""

    rows_flushed: int
    files_merged: int
    snapshots_expired: int
    files_deleted: int


def flush(warehouse: Warehouse) -> int:
    """Move inlined rows from the catalog to Parquet files. Returns: how many."""
    return sum(
        _sum_of_last(warehouse, f"CALL ducklake_flush_inlined_data('{LAKE}', table_name => '{table}')")
        for table in _tables(warehouse)
    )


def compact(warehouse: Warehouse, *, kept: timedelta = KEPT, grace: timedelta = READERS_GRACE) -> Compaction:
    """
    Flush, merge adjacent files, expire snapshots older than `kept`, delete what none needs.

    Raises: PlatformError as every writer does.
    """
    flushed = flush(warehouse)
    merged = 0
    for table in _tables(warehouse):
        _count(warehouse, f"CALL ducklake_rewrite_data_files('{LAKE}', '{table}')")
        merged += _merged_files(warehouse, table)
    return Compaction(
        rows_flushed=flushed,
        files_merged=merged,
        snapshots_expired=_count(warehouse, f"CALL ducklake_expire_snapshots('{LAKE}', older_than => {_ago(kept)})"),
        files_deleted=_count(warehouse, f"CALL ducklake_cleanup_old_files('{LAKE}', older_than => {_ago(grace)})")
        + _count(warehouse, f"CALL ducklake_delete_orphaned_files('{LAKE}', older_than => {_ago(max(kept, grace))})"),
    )


def retain(warehouse: Warehouse, kept: timedelta) -> int:
    """
    Remove the rows of old scans and runs: findings, components, tests, coverage, what plugins told, ingest errors.

    What is open today stays: the newest successful scan of every branch, tool and category keeps its findings, the
    newest list of every branch and source its components. So do scans, lists, history, runs, steps, images and
    releases, which are small, and which the tables are built again from.
    Returns: how many rows went. Their files go with later compactions.
    """
    return sum(warehouse.write(lambda lake, sql=sql: _deleted(lake, sql, kept)) for sql in _OLD)  # type: ignore[misc]


_OLD = (
    """
    DELETE FROM findings WHERE scanned_at < $before AND (project, commit, tool, category) NOT IN (
        SELECT (project, arg_max(commit, (committed_at, scanned_at)), tool, category) FROM scans
        WHERE state = 'succeeded' GROUP BY project, branch, tool, category)
    """,
    """
    DELETE FROM components WHERE listed_at < $before AND (project, commit, step, source) NOT IN (
        SELECT (project, arg_max(commit, (committed_at, listed_at)), step, source) FROM sboms
        GROUP BY project, branch, step, source)
        AND (project, commit) NOT IN (SELECT (project, commit) FROM releases WHERE state = 'live')
    """,
    "DELETE FROM coverage WHERE measured_at < $before",
    "DELETE FROM test_results WHERE finished_at < $before",
    "DELETE FROM plugin_metrics WHERE measured_at < $before",
    "DELETE FROM plugin_data WHERE received_at < $before",
    "DELETE FROM ingest_errors WHERE occurred_at < $before",
)


def _deleted(lake: duckdb.DuckDBPyConnection, sql: str, kept: timedelta) -> int:
    row = lake.execute(sql, {"before": datetime.now(UTC) - kept}).fetchone()
    return int(row[0]) if row else 0


def _ago(age: timedelta) -> str:
    return f"now() - INTERVAL '{int(age.total_seconds())} seconds'"


def _tables(warehouse: Warehouse) -> list[str]:
    def names(lake: duckdb.DuckDBPyConnection) -> list[str]:
        query = f"SELECT table_name FROM duckdb_tables() WHERE database_name = '{LAKE}' ORDER BY 1"
        return [name for (name,) in lake.execute(query).fetchall()]

    return warehouse.alone(names)


def _count(warehouse: Warehouse, call: str) -> int:
    return warehouse.alone(lambda lake: len(lake.execute(call).fetchall()))


def _sum_of_last(warehouse: Warehouse, call: str) -> int:
    return warehouse.alone(lambda lake: sum(int(row[-1]) for row in lake.execute(call).fetchall()))


def _merged_files(warehouse: Warehouse, table: str) -> int:
    call = f"CALL ducklake_merge_adjacent_files('{LAKE}', '{table}')"
    return warehouse.alone(lambda lake: sum(int(row[2]) for row in lake.execute(call).fetchall()))
