"""
What a project may read, and nothing else: the one place that decides it.

The warehouse lays what plugins told out in files by tenant and project, and the lake's catalog says which file is
whose. What is here found is all that the room, where a plugin's SQL runs, can open. Rows that are not yet in the
warehouse come with it; both are read in one snapshot of PostgreSQL, which holds the catalog too, so that a row is seen
once even while it is moved.
"""

import io
from collections.abc import Sequence

import attrs
import pyarrow.parquet as pq
import sqlalchemy as sa

from penstock.errors import PlatformError
from penstock.plugins.data.chunks import Chunk, Kind, unpacked
from penstock.plugins.data.mover import as_chunk, done
from penstock.state.plugin_tables import plugin_intake
from penstock.warehouse import Location

TAIL_BYTES = 256 * 1024 * 1024


@attrs.frozen
class File:
    """A Parquet file of rows, and the one that says which of its rows were deleted since."""

    path: str
    deleted: str | None = None


@attrs.frozen
class Permitted:
    """Of one project. files: in the warehouse. tails: what is not there yet, as Parquet; empty when there is none."""

    files: dict[Kind, tuple[File, ...]]
    tails: dict[Kind, bytes]


def permitted(database: sa.Engine, location: Location, tenant: str, project: str) -> Permitted:
    """
    What this project may read, as of now.

    Raises: PlatformError when so much waits for the mover that it cannot be read in time.
    """
    isolated = database.execution_options(isolation_level="REPEATABLE READ")
    with isolated.connect() as connection, connection.begin():
        has_lake = _has_lake(connection, location.catalog_schema)
        files = {kind: _files(connection, location, kind, tenant, project) if has_lake else () for kind in Kind}
        rows = _tail(connection, location.catalog_schema if has_lake else None, tenant, project)
    chunks = [as_chunk(row) for row in rows]
    tails = {kind: _parquet(kind, [chunk for chunk in chunks if chunk.kind is kind]) for kind in Kind}
    return Permitted(files, tails)


def _has_lake(connection: sa.Connection, schema: str) -> bool:
    found = sa.select(sa.func.to_regclass(f"{schema}.ducklake_partition_column"))
    return connection.execute(found).scalar() is not None


_FILES = """
    SELECT meta.value AS data_path, home.path AS home_path, home.path_is_relative AS home_relative,
        tables.path AS table_path, tables.path_is_relative AS table_relative,
        files.path, files.path_is_relative, gone.path AS gone_path, gone.path_is_relative AS gone_relative
    FROM {schema}.ducklake_data_file AS files
    JOIN {schema}.ducklake_table AS tables ON tables.table_id = files.table_id AND tables.end_snapshot IS NULL
    JOIN {schema}.ducklake_schema AS home ON home.schema_id = tables.schema_id AND home.end_snapshot IS NULL
    JOIN {schema}.ducklake_metadata AS meta ON meta.key = 'data_path' AND meta.scope IS NULL
    LEFT JOIN {schema}.ducklake_delete_file AS gone
        ON gone.data_file_id = files.data_file_id AND gone.end_snapshot IS NULL
    WHERE files.end_snapshot IS NULL AND files.mapping_id IS NULL
        AND home.schema_name = 'main' AND tables.table_name = :table
        AND {tenant} AND {project}
    ORDER BY files.data_file_id
"""

_IS_OF = """
    EXISTS (
        SELECT 1 FROM {schema}.ducklake_file_partition_value AS found
        JOIN {schema}.ducklake_partition_column AS part ON part.partition_id = files.partition_id
            AND part.table_id = files.table_id AND part.partition_key_index = found.partition_key_index
            AND part.transform = 'identity'
        JOIN {schema}.ducklake_column AS col ON col.table_id = files.table_id AND col.column_id = part.column_id
            AND col.end_snapshot IS NULL AND col.column_name = '{column}'
        WHERE found.data_file_id = files.data_file_id AND found.table_id = files.table_id
            AND found.partition_value = :{column}
    )
"""


def _files(connection: sa.Connection, location: Location, kind: Kind, tenant: str, project: str) -> tuple[File, ...]:
    schema = location.catalog_schema  # a-z, 0-9 and _, as Location sees to
    of = {column: _IS_OF.format(schema=schema, column=column) for column in ("tenant", "project")}
    query = sa.text(_FILES.format(schema=schema, **of))
    rows = connection.execute(query, {"table": kind.table, "tenant": tenant, "project": project}).mappings()
    return tuple(_file(row) for row in rows)


def _file(row: sa.RowMapping) -> File:
    home = _joined(row["data_path"], row["home_path"], row["home_relative"])
    table = _joined(home, row["table_path"], row["table_relative"])
    gone = _joined(table, row["gone_path"], row["gone_relative"]) if row["gone_path"] else None
    return File(_joined(table, row["path"], row["path_is_relative"]), gone)


def _joined(folder: str, path: str, is_relative: bool) -> str:
    return folder + path if is_relative else path


def _tail(connection: sa.Connection, schema: str | None, tenant: str, project: str) -> Sequence[sa.RowMapping]:
    """Chunks that no commit of the lake has brought there."""
    mine = [plugin_intake.c.tenant == tenant, plugin_intake.c.project == project]
    if schema is not None:
        moved = done(schema, "plugin_intake.batch") + " AND made.snapshot_id > plugin_intake.after_snapshot"
        waits = sa.or_(plugin_intake.c.batch.is_(None), sa.not_(sa.exists(sa.text(f"1 FROM {moved}"))))
        mine.append(waits)
    size = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(plugin_intake.c.body)), 0)).where(*mine)
    if connection.execute(size).scalar_one() > TAIL_BYTES:
        raise PlatformError(
            "too much of what plugins told waits for the warehouse", remedy="see in logs/api.log why it is not moved"
        )
    return connection.execute(sa.select(plugin_intake).where(*mine).order_by(plugin_intake.c.id)).mappings().all()


def _parquet(kind: Kind, chunks: Sequence[Chunk]) -> bytes:
    if not chunks:
        return b""
    sink = io.BytesIO()
    pq.write_table(unpacked(kind, chunks), sink, compression="lz4")
    return sink.getvalue()
