"""
What plugins told, on its way from PostgreSQL to the warehouse: exactly once, whatever is killed in between.

Three steps, each a transaction of its own. Chunks are claimed: they get the name of a batch, and the number of the
lake's newest snapshot. The batch is written to the lake, and the very commit that makes its rows visible carries its
name. Then the chunks are deleted. Whoever finds claimed chunks looks for the commit with their name: there, they are
only deleted; not there, they are written. The look happens under the lock of the warehouse's writers, so that a mover
that was believed dead writes nothing twice.
"""

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import attrs
import duckdb
import pyarrow as pa
import sqlalchemy as sa

from penstock.plugins.data import tokens
from penstock.plugins.data.chunks import Chunk, Kind, unpacked
from penstock.plugins.data.limits import DataLimits
from penstock.plugins.data.scope import Scope
from penstock.state.plugin_tables import plugin_intake, plugin_sent, plugin_usage
from penstock.warehouse import Warehouse
from penstock.warehouse.connect import LAKE

MOVE_LOCK = 7_036_877  # an advisory lock's number: any, but always the same
BATCH_ROWS = 500_000
FULL_ROWS = 100_000
LONGEST_WAIT = timedelta(seconds=15)
"""Chunks wait for company, since each batch makes a file of each project; those who ask through the API see them."""

SWEEP_EVERY_S = 3600.0
USAGE_KEPT = timedelta(days=7)

_log = logging.getLogger(__name__)


class Mover:
    """Moves chunks; as many processes as want to may have one, only one at a time works."""

    def __init__(self, database: sa.Engine, warehouse: Warehouse, limits: DataLimits | None = None) -> None:
        self._database, self._warehouse, self._limits = database, warehouse, limits or DataLimits()
        self._schema = warehouse.location.catalog_schema
        self._is_ready = False
        self._swept_at = float("-inf")

    def round(self) -> int:
        """One look, for `penstock.rounds`: move what is due, and sweep now and then. Returns: rows that were moved."""
        moved = self.move()
        if time.monotonic() - self._swept_at > SWEEP_EVERY_S:
            self._swept_at = time.monotonic()
            self.sweep()
        return moved

    def move_all(self) -> int:
        """Everything that is there, now; for the end of a run without a platform. Returns: rows that were moved."""
        total = 0
        while moved := self.move(longest_wait=timedelta(0)):
            total += moved
        return total

    def move(self, *, longest_wait: timedelta = LONGEST_WAIT) -> int:
        """
        One batch: what was left half done, else what has waited for long enough. Returns: how many rows.

        Raises: PlatformError when the warehouse cannot be written; the next move goes on from there.
        """
        with self._alone() as is_mine:
            if not is_mine:
                return 0
            batch = self._left_over() or self._claim(longest_wait)
            return self._finish(batch) if batch else 0

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """A lock that the server takes back when this process dies."""
        with self._database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            got = bool(connection.execute(sa.select(sa.func.pg_try_advisory_lock(MOVE_LOCK))).scalar())
            try:
                yield got
            finally:
                if got:
                    connection.execute(sa.select(sa.func.pg_advisory_unlock(MOVE_LOCK)))

    def _left_over(self) -> str | None:
        wanted = sa.select(plugin_intake.c.batch).where(plugin_intake.c.batch.is_not(None)).limit(1)
        with self._database.connect() as connection:
            return connection.execute(wanted).scalar()

    def _claim(self, longest_wait: timedelta) -> str | None:
        """Give the oldest chunks the name of a batch, if they are due. Returns: the name."""
        if not self._is_due(longest_wait):
            return None
        self._prepare()
        batch = str(uuid.uuid4())
        table = plugin_intake.c
        rows_before = (sa.func.sum(table.rows).over(order_by=table.id) - table.rows).label("rows_before")
        waiting = sa.select(table.id, rows_before).where(table.batch.is_(None)).subquery()
        ids = sa.select(waiting.c.id).where(waiting.c.rows_before < BATCH_ROWS)
        newest = sa.text(f"(SELECT max(snapshot_id) FROM {self._schema}.ducklake_snapshot)")
        claim = sa.update(plugin_intake).where(plugin_intake.c.id.in_(ids)).values(batch=batch, after_snapshot=newest)
        with self._database.begin() as connection:
            return batch if connection.execute(claim).rowcount else None

    def _is_due(self, longest_wait: timedelta) -> bool:
        waiting = sa.select(
            sa.func.coalesce(sa.func.sum(plugin_intake.c.rows), 0),
            sa.func.now() - sa.func.min(plugin_intake.c.received_at),
        ).where(plugin_intake.c.batch.is_(None))
        with self._database.connect() as connection:
            rows, waited = connection.execute(waiting).one()
        return bool(rows) and (rows >= FULL_ROWS or waited >= longest_wait)

    def _prepare(self) -> None:
        """Let these tables' rows always be files: the API gives a plugin the files of its project, and nothing else."""
        if self._is_ready:
            return
        self._warehouse.create()
        for kind in Kind:
            option = f"CALL {LAKE}.set_option('data_inlining_row_limit', 0, table_name => '{kind.table}')"
            self._warehouse.alone(lambda lake, sql=option: lake.execute(sql).fetchall())  # type: ignore[misc]
        self._is_ready = True

    def _finish(self, batch: str) -> int:
        chunks = self._chunks(batch)
        tables = {kind: unpacked(kind, [chunk for chunk in chunks if chunk.kind is kind]) for kind in Kind}
        self._warehouse.write(lambda lake: self._write(lake, batch, tables))
        with self._database.begin() as connection:
            connection.execute(sa.delete(plugin_intake).where(plugin_intake.c.batch == batch))
        return sum(table.num_rows for table in tables.values())

    def _chunks(self, batch: str) -> list[Chunk]:
        wanted = sa.select(plugin_intake).where(plugin_intake.c.batch == batch).order_by(plugin_intake.c.id)
        with self._database.connect() as connection:
            return [as_chunk(row) for row in connection.execute(wanted).mappings()]

    def _write(self, lake: duckdb.DuckDBPyConnection, batch: str, tables: dict[Kind, pa.Table]) -> None:
        if self._is_written(batch):
            return
        lake.execute(f"CALL {LAKE}.set_commit_message('penstock', 'what plugins told', extra_info => ?)", [batch])
        for kind, table in tables.items():
            if table.num_rows:
                lake.register("incoming_rows", table)
                try:
                    lake.execute(f"INSERT INTO {kind.table} BY NAME SELECT * FROM incoming_rows ORDER BY seq")
                finally:
                    lake.unregister("incoming_rows")

    def _is_written(self, batch: str) -> bool:
        """Whether a commit of the lake carries the batch's name; snapshots live for a week, a batch for seconds."""
        found = sa.select(sa.exists(sa.text(f"1 FROM {done(self._schema)}")))
        with self._database.connect() as connection:
            return bool(connection.execute(found, {"batch": batch}).scalar())

    def sweep(self) -> None:
        """Forget old tokens and usage, and rows beyond what a project may keep."""
        with self._database.begin() as connection:
            tokens.sweep(connection)
            for table in (plugin_usage, plugin_sent):
                connection.execute(sa.delete(table).where(table.c.told_at < sa.func.now() - USAGE_KEPT))
        if self._is_ready:
            for kind in Kind:
                self._warehouse.write(lambda lake, kind=kind: _trim(lake, kind, self._limits.rows_kept))  # type: ignore[misc]


def done(schema: str, batch: str = ":batch") -> str:
    """FROM and WHERE of the commit that carries a batch's name."""
    return f"{schema}.ducklake_snapshot_changes AS made WHERE made.commit_extra_info = {batch}"


def as_chunk(row: sa.RowMapping) -> Chunk:
    """A row of `plugin_intake`."""
    scope = Scope(**{each.name: row[each.name] for each in attrs.fields(Scope)})
    return Chunk(row["id"], Kind(row["kind"]), scope, bytes(row["body"]), row["received_at"])


def _trim(lake: duckdb.DuckDBPyConnection, kind: Kind, rows_kept: int) -> None:
    """Delete a project's oldest rows beyond `rows_kept`."""
    found = lake.execute(
        f"SELECT tenant, project FROM {kind.table} WHERE seq IS NOT NULL GROUP BY ALL HAVING count(*) > ?", [rows_kept]
    ).fetchall()
    for tenant, project in found:
        mine = [tenant, project]
        last = lake.execute(
            f"SELECT seq FROM {kind.table} WHERE tenant = ? AND project = ? ORDER BY seq DESC LIMIT 1 OFFSET ?",
            [*mine, rows_kept],
        ).fetchone()
        if last:
            lake.execute(f"DELETE FROM {kind.table} WHERE tenant = ? AND project = ? AND seq <= ?", [*mine, last[0]])
            _log.info("plugin data: %s/%s keeps %d rows of %s", tenant, project, rows_kept, kind.value)
