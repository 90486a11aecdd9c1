"""
SQL that somebody typed, closed in: it reads the tables of the lake, and nothing else.

Two walls. First the query is parsed by DuckDB itself and every node of the tree looked at: one SELECT, from tables and
views of the lake, with table functions from a short list. That wall is needed because DuckDB's own settings leave
doors open once a catalog is attached: `postgres_query` reads any table and, as a superuser, any file of the server, and
COPY may write into the folder of the data. Second, DuckDB is told to allow no file but the lake's and no network.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import duckdb
from attrs import frozen

from penstock.errors import AccessError, Cancelled, InputError, PenstockError, StepTimeout
from penstock.warehouse.connect import LAKE, Location, connect, quoted, redact

T = TypeVar("T")

TIME_LIMIT = timedelta(seconds=60)
ROW_LIMIT = 1000

TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "repeat", "json_each", "json_tree"})
"""What may stand in FROM beside tables."""

FORBIDDEN_FUNCTIONS = frozenset(
    {"current_setting", "getvariable", "json_serialize_plan", "nextval", "currval", "sleep_ms", "pg_sleep", "write_log"}
)
FORBIDDEN_PREFIXES = ("ducklake_", "postgres_", "duckdb_", "read_")
INFORMATION_VIEWS = frozenset({"tables", "columns", "views"})


@frozen
class Answer:
    """Rows of a query, at most as many as were asked for. is_cut: there were more."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    is_cut: bool


def ask(location: Location, query: str, *, limit: int | None = ROW_LIMIT, time_limit: timedelta = TIME_LIMIT) -> Answer:
    """
    The answer to one SELECT (or FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, SHOW TABLES).

    limit: rows that are fetched; None fetches all.
    Raises: InputError when DuckDB does not understand it; AccessError when it reaches for anything but the lake's
    tables; StepTimeout after `time_limit`; Cancelled at Ctrl-C; and what `connect` raises.
    """
    connection = connect(location, read_only=True)
    try:
        lock_down(connection, location)
        return answer(connection, location, query, limit=limit, time_limit=time_limit)
    finally:
        connection.close()


def answer(
    connection: duckdb.DuckDBPyConnection,
    location: Location,
    query: str,
    *,
    limit: int | None = ROW_LIMIT,
    time_limit: timedelta = TIME_LIMIT,
) -> Answer:
    """As `ask`, on a connection that `lock_down` has closed; for whoever asks more than once."""
    with _explained(connection, location):
        return _within(connection, time_limit, lambda: _checked_answer(connection, query, limit))


def _checked_answer(connection: duckdb.DuckDBPyConnection, query: str, limit: int | None) -> Answer:
    check_query(connection, query)
    result = connection.execute(query)
    columns = tuple(column[0] for column in result.description or ())
    rows = result.fetchall() if limit is None else result.fetchmany(limit + 1)
    return Answer(columns, tuple(rows[:limit]), is_cut=limit is not None and len(rows) > limit)


def lock_down(connection: duckdb.DuckDBPyConnection, location: Location) -> None:
    """Let DuckDB touch no file or address but the lake's, spill nothing to disk, and change no setting any more."""
    connection.execute(
        f"""
        SET temp_directory = '';
        SET allowed_directories = [{quoted(location.data_path.rstrip("/") + "/")}];
        SET enable_external_access = false;
        SET lock_configuration = true;
        """
    )


def check_query(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """
    Raises: AccessError when `query` is more than one SELECT over the lake's tables; a duckdb.Error when it is no SQL.
    """
    count = len(connection.extract_statements(query))
    if count != 1:
        raise InputError(
            "there is no query" if count == 0 else f"these are {count} queries", where="SQL", remedy="write one"
        )
    row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchone()
    tree = json.loads(row[0] if row else "{}")
    if tree.get("error", True):
        raise _refused("only reading is possible here", "write one SELECT")
    _check_tree(tree, _readable(connection), _internal_views(connection))


def table_names(connection: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """Tables and views of the lake, ascending."""
    query = (
        f"SELECT table_name FROM duckdb_tables() WHERE database_name = '{LAKE}' UNION ALL "
        f"SELECT view_name FROM duckdb_views() WHERE database_name = '{LAKE}' ORDER BY 1"
    )
    return tuple(name for (name,) in connection.execute(query).fetchall())


def _readable(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    return frozenset(name.lower() for name in table_names(connection))


def _internal_views(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    rows = connection.execute("SELECT lower(view_name) FROM duckdb_views() WHERE internal").fetchall()
    return frozenset(name for (name,) in rows)


def _check_tree(tree: Any, tables: frozenset[str], internal: frozenset[str]) -> None:
    nodes = list(_nodes(tree))
    # A name from WITH hides a table only inside its own query: outside, the same name would reach DuckDB's catalog.
    named = {str(entry["key"]).lower() for node in nodes for entry in _entries(node)}
    if shadowed := sorted(named & internal):
        raise _refused(f'"{shadowed[0]}" is a name of DuckDB\'s own', "call it something else")
    for node in nodes:
        _check_node(node, tables | named)


def _entries(node: dict[str, Any]) -> list[dict[str, Any]]:
    found = node.get("cte_map")
    return list(found["map"]) if isinstance(found, dict) else []


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(child, dict | list):
            yield from _nodes(child)


def _check_node(node: dict[str, Any], tables: frozenset[str] | set[str]) -> None:
    kind = node.get("type")
    if kind == "BASE_TABLE":
        _check_table(node, tables)
    elif kind == "TABLE_FUNCTION":
        _check_table_function(node["function"])
    elif kind == "SHOW_REF":
        _check_show(node, tables)
    if "function_name" in node:
        _check_function(node)


def _check_table(node: dict[str, Any], tables: frozenset[str] | set[str]) -> None:
    catalog, schema, name = (str(node[key]).lower() for key in ("catalog_name", "schema_name", "table_name"))
    if catalog in ("", LAKE) and schema == "information_schema" and name in INFORMATION_VIEWS:
        return
    written = ".".join(part for part in (catalog, schema, name) if part)
    if catalog not in ("", LAKE) or schema not in ("", "main", LAKE):
        raise _refused(f'"{written}" is outside of the warehouse', "use the tables that SHOW TABLES lists")
    if name not in tables:
        raise _unknown_table(name, tables)


def _unknown_table(name: str, tables: frozenset[str] | set[str]) -> InputError:
    import difflib

    close = difflib.get_close_matches(name, sorted(tables), n=1)
    remedy = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(sorted(tables))}"
    return InputError(f'no table is called "{name}"', where="SQL", remedy=remedy)


def _check_table_function(function: dict[str, Any]) -> None:
    name = str(function.get("function_name", "")).lower()
    if name not in TABLE_FUNCTIONS:
        raise _refused(f'the table function "{name}" is not allowed', "read the tables that SHOW TABLES lists")


def _check_show(node: dict[str, Any], tables: frozenset[str] | set[str]) -> None:
    shown = str(node.get("table_name") or "").strip('"').lower()
    if shown and shown not in ("tables", "__show_tables_expanded") and shown not in tables:
        raise _unknown_table(shown, tables)


def _check_function(node: dict[str, Any]) -> None:
    name = str(node["function_name"]).lower()
    if name in FORBIDDEN_FUNCTIONS or name.startswith(FORBIDDEN_PREFIXES):
        raise _refused(f'the function "{name}" is not allowed', "use another")


def _refused(what: str, remedy: str) -> AccessError:
    return AccessError(what, where="SQL", remedy=remedy)


def _within(connection: duckdb.DuckDBPyConnection, limit: timedelta, work: Callable[[], T]) -> T:
    """What `work` returns; it runs in a thread of its own, so that time and Ctrl-C are seen while DuckDB is busy."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="sql") as pool:
        future = pool.submit(work)
        try:
            return future.result(timeout=limit.total_seconds())
        except TimeoutError:
            raise StepTimeout(
                f"the query took longer than {limit.total_seconds():g} s",
                where="SQL",
                remedy="narrow it, or raise --timeout",
            ) from None
        except KeyboardInterrupt:
            raise Cancelled("interrupted", where="SQL") from None
        finally:
            # More than once: an interrupt between two queries of `work` stops neither.
            while wait([future], timeout=0.05).not_done:
                connection.interrupt()


@contextmanager
def _explained(connection: duckdb.DuckDBPyConnection, location: Location) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise explain(error, location, lambda: table_names(connection)) from None


def explain(error: duckdb.Error, location: Location, tables: Callable[[], tuple[str, ...]]) -> PenstockError:
    """What DuckDB said, on one line, with the nearest remedy. `tables` is asked only for a missing table."""
    text = redact(str(error), location)
    what = re.sub(r"^[\w ]*Error: ", "", text.split("\n")[0])
    line = re.search(r"^LINE (\d+):", text, re.MULTILINE)
    where = f"SQL line {line[1]}" if line else "SQL"
    return InputError(what.rstrip("!"), where=where, remedy=_remedy(text, tables))


def _remedy(text: str, tables: Callable[[], tuple[str, ...]]) -> str | None:
    if bindings := re.search(r"Candidate bindings: (.*)", text):
        return f"there are {bindings[1]}"
    if meant := re.search(r'Did you mean (".*?")', text):
        return f"did you mean {meant[1]}?"
    return f"there are {', '.join(tables())}" if "Table with name" in text else None
