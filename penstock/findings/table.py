"""Findings as an Arrow table, for a batch insert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import astuple

from penstock.findings.collector import collector_paused
from penstock.findings.finding import Finding

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBERS = frozenset(("line", "column", "end_line"))
_FLAGS = frozenset(("suppressed",))
_LISTS = frozenset(("cwe",))

_CHUNK = 4096  # rows made at once: what is short-lived stays small, and in the processor's cache

FINDING_SCHEMA_NAMES = Finding.__struct_fields__
"""The columns of `to_arrow`, in order."""


def finding_schema() -> pa.Schema:
    """Text but for line, column, end_line (int32), suppressed (bool) and cwe (list of text)."""
    import pyarrow as pa

    def kind(name: str) -> pa.DataType:
        if name in _NUMBERS:
            return pa.int32()
        if name in _FLAGS:
            return pa.bool_()
        return pa.list_(pa.string()) if name in _LISTS else pa.string()

    return pa.schema([pa.field(name, kind(name)) for name in FINDING_SCHEMA_NAMES])


def to_arrow(findings: Sequence[Finding], constants: Mapping[str, pa.Scalar] | None = None) -> pa.Table:
    """
    One row per finding, columns as FINDING_SCHEMA_NAMES.

    constants: further columns that have one value for all rows (the commit, the run), put first.
    Returns: len(findings) rows.
    """
    import pyarrow as pa

    schema = finding_schema()
    starts = range(0, len(findings), _CHUNK)
    with collector_paused():
        tables = [_table(findings[start : start + _CHUNK], schema) for start in starts] or [schema.empty_table()]
    table = pa.concat_tables(tables).combine_chunks()
    first = {name: pa.repeat(value, len(findings)) for name, value in (constants or {}).items()}
    return pa.Table.from_arrays([*first.values(), *table.columns], names=[*first, *schema.names])


def _table(findings: Sequence[Finding], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = zip(*map(astuple, findings), strict=True)
    return pa.Table.from_arrays([_column(*pair) for pair in zip(columns, schema.types, strict=True)], schema=schema)


def _column(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    """An array of values. Most columns of a report hold one value, or few lists: those are made once and taken."""
    import pyarrow as pa

    if values and values.count(values[0]) == len(values):
        return pa.repeat(pa.scalar(values[0] if values[0] != () else [], type=kind), len(values))
    if not pa.types.is_list(kind):
        return pa.array(values, type=kind)
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return pa.array(list(places), type=kind).take(pa.array([places[value] for value in values], type=pa.int32()))
