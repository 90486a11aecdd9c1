"""Rows in Arrow, as they lie in PostgreSQL until they are moved, and as the warehouse wants them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum

import attrs
import msgspec
import pyarrow as pa
from attrs import frozen

from penstock.plugins.data.lines import Datum, Metric
from penstock.plugins.data.scope import Scope
from penstock.warehouse import PluginDatum, PluginMetric
from penstock.warehouse.rows import arrow_schema

ROWS = 10_000
"""Of one chunk at most; a row's number is that of its chunk times `STRIDE`, and its place."""

STRIDE = 1 << 20

SCOPE = tuple(each.name for each in attrs.fields(Scope))

_AT = pa.timestamp("us", "UTC")
_METRICS = pa.schema(
    [
        ("name", pa.string()),
        ("value", pa.float64()),
        ("unit", pa.string()),
        ("kind", pa.string()),
        ("labels", pa.string()),
        ("measured_at", _AT),
    ]
)
_DATA = pa.schema([("kind", pa.string()), ("key", pa.string()), ("value", pa.string())])


class Kind(StrEnum):
    """The two kinds of rows."""

    METRICS = "metrics"
    DATA = "data"

    @property
    def table(self) -> str:
        """Their table in the warehouse."""
        return f"plugin_{self.value}"

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of that table."""
        return arrow_schema(PluginMetric if self is Kind.METRICS else PluginDatum)


@frozen
class Chunk:
    """Rows of one scope, as they came. id: ascending in the order in which they were stored."""

    id: int
    kind: Kind
    scope: Scope
    body: bytes
    received_at: datetime


def packed(kind: Kind, rows: Sequence[Metric | Datum], now: datetime) -> bytes:
    """Rows of one kind, at most ROWS of them, as a compressed Arrow stream. now: of metrics that say no time."""
    made = _metrics(rows, now) if kind is Kind.METRICS else _data(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(made)
    return bytes(sink.getvalue())


def _metrics(rows: Sequence[Metric | Datum], now: datetime) -> pa.Table:
    encode = msgspec.json.Encoder(order="sorted").encode
    columns: list[list[object]] = [
        [row.name for row in rows if isinstance(row, Metric)],
        [row.value for row in rows if isinstance(row, Metric)],
        [row.unit for row in rows if isinstance(row, Metric)],
        [row.kind or "gauge" for row in rows if isinstance(row, Metric)],
        [encode(row.labels) if row.labels else None for row in rows if isinstance(row, Metric)],
        [row.at.astimezone(UTC) if row.at else now for row in rows if isinstance(row, Metric)],
    ]
    return _table(_METRICS, columns)


def _data(rows: Sequence[Metric | Datum]) -> pa.Table:
    columns: list[list[object]] = [
        [row.kind for row in rows if isinstance(row, Datum)],
        [row.key for row in rows if isinstance(row, Datum)],
        [bytes(row.value).decode() for row in rows if isinstance(row, Datum)],
    ]
    return _table(_DATA, columns)


def _table(schema: pa.Schema, columns: Sequence[Sequence[object]]) -> pa.Table:
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def unpacked(kind: Kind, chunks: Sequence[Chunk]) -> pa.Table:
    """Chunks of one kind as rows of the warehouse, each with its scope and its number."""
    return pa.concat_tables([kind.schema.empty_table(), *(_whole(chunk) for chunk in chunks)])


def _whole(chunk: Chunk) -> pa.Table:
    with pa.ipc.open_stream(chunk.body) as reader:
        table = reader.read_all()
    count = table.num_rows
    about = {name: getattr(chunk.scope, name) for name in SCOPE}
    columns = {name: pa.repeat(pa.scalar(value, pa.string()), count) for name, value in about.items()}
    columns["received_at"] = pa.repeat(pa.scalar(chunk.received_at, _AT), count)
    columns["seq"] = pa.array(range(chunk.id * STRIDE, chunk.id * STRIDE + count), pa.int64())
    columns |= {name: table[name].combine_chunks() for name in table.column_names}
    schema = chunk.kind.schema
    return pa.Table.from_arrays([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)
