"""The warehouse of a PENSTOCK_HOME, for notebooks and programs of one's own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from penstock.settings import load_settings
from penstock.warehouse.connect import connect


@contextmanager
def open_home(home: Path | str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """
    A read-only DuckDB connection to the warehouse, whether the platform runs or not.

    home: a PENSTOCK_HOME; None takes the one that the environment names, or `.penstock` in this repository.
    Raises: NotFoundError when nothing was ever recorded there.
    """
    from penstock.pipeline.ingest import warehouse_location
    from penstock.state.database import hosted_database

    named = {"PENSTOCK_HOME": str(home)} if home is not None else {}
    settings = load_settings({**os.environ, **named})
    with hosted_database(settings), connect(warehouse_location(settings), read_only=True) as lake:
        yield lake
