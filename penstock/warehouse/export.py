"""The tables as Parquet files, for whatever reads those."""

from pathlib import Path

import duckdb

from penstock.errors import InputError
from penstock.warehouse.connect import LAKE, quoted


def export_parquet(lake: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, int]:
    """
    Write each table and view as `NAME.parquet` into a folder, all of one moment; files of these names are replaced.

    Returns: rows by table. Raises: InputError when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lake.execute("BEGIN")  # one snapshot for all tables
        try:
            return {name: _copy(lake, name, folder) for name in _names(lake)}
        finally:
            lake.execute("ROLLBACK")
    except (OSError, duckdb.IOException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"cannot be written: {reason}", where=str(folder), remedy="check the folder") from None


def _names(lake: duckdb.DuckDBPyConnection) -> list[str]:
    query = f"SELECT table_name FROM information_schema.tables WHERE table_catalog = '{LAKE}' ORDER BY 1"
    return [name for (name,) in lake.execute(query).fetchall()]


def _copy(lake: duckdb.DuckDBPyConnection, name: str, folder: Path) -> int:
    target, draft = folder / f"{name}.parquet", folder / f".{name}.parquet.part"
    row = lake.execute(f'COPY (FROM "{name}") TO {quoted(str(draft))} (FORMAT parquet, COMPRESSION zstd)').fetchone()
    draft.replace(target)
    return int(row[0]) if row else 0
