"""
The room where a plugin's SQL runs: `python -m penstock.plugins.data.room`, forked for each question.

Three walls. The query is parsed by DuckDB and must be one SELECT over the tables of this room. The DuckDB that runs it
has never seen the lake, its catalog or PostgreSQL: it may open the files of one project by name, and no other file, no
network and no setting; rows of others are not filtered out, they are not there. The process has limits of its own
for memory, time and files, so that what runs away ends here.

It is warm: imports are done, and each question gets a fork of it, which takes 10 ms instead of 600.
"""

import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import msgspec

from penstock.errors import AccessError, PenstockError
from penstock.plugins.data.messages import Answer, Question, Source
from penstock.plugins.data.naming import check_names, foreign_names
from penstock.warehouse.connect import LAKE, quoted, quoted_name
from penstock.warehouse.sql import check_query

FDS = 4
"""What comes with each question: the question, the two tails, and where the answer goes."""

COLUMNS = {
    "plugin_metrics": (
        ("seq", "BIGINT"),
        *((name, "VARCHAR") for name in ("tenant", "project", "commit", "run_id", "step", "plugin", "environment")),
        *(("name", "VARCHAR"), ("value", "DOUBLE"), ("unit", "VARCHAR"), ("kind", "VARCHAR"), ("labels", "VARCHAR")),
        *(("measured_at", "TIMESTAMPTZ"), ("received_at", "TIMESTAMPTZ")),
    ),
    "plugin_data": (
        ("seq", "BIGINT"),
        *((name, "VARCHAR") for name in ("tenant", "project", "commit", "run_id", "step", "plugin", "environment")),
        *(("kind", "VARCHAR"), ("key", "VARCHAR"), ("value", "VARCHAR"), ("received_at", "TIMESTAMPTZ")),
    ),
}
GRACE_S = 5
"""For what surrounds a query; after that the process is ended from outside."""


def main() -> None:
    """Fork for each question that comes over the socket on standard input; end when it is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the children
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(0)) as door:
        while True:
            message, fds, _, _ = socket.recv_fds(door, 1, FDS)
            if not message:
                return
            if os.fork() == 0:
                door.close()
                _serve(*fds)
            for fd in fds:
                os.close(fd)


def _serve(asked: int, metrics: int, data: int, told: int) -> None:
    """Answer one question and end, whatever happens."""
    try:
        question = msgspec.json.decode(_contents(asked), type=Question)
        signal.alarm(int(question.time_s) + GRACE_S)
        tails = {"plugin_metrics": metrics, "plugin_data": data}
        body = msgspec.json.encode(respond(question, {name: f"/proc/self/fd/{fd}" for name, fd in tails.items()}))
        with os.fdopen(told, "wb") as out:
            out.write(body)
        code = 0
    except BaseException as error:  # noqa: BLE001 - the boundary: whoever asked sees that nothing came
        sys.stderr.write(f"plugin data: the room ended: {type(error).__name__}\n")
        code = 1
    os._exit(code)


def _contents(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read()


def respond(question: Question, tails: dict[str, str]) -> Answer:
    """The answer, or the reason why there is none. tails: table → path of the rows that came along."""
    foreign: tuple[str, ...] = ()
    try:
        with furnished(question, tails) as lake:
            _limit_process(question)
            if not question.is_own:
                own = {"tenant": question.tenant, "project": question.project}
                foreign = foreign_names(_parsed(lake, question.sql), own)
                check_door(lake, question.sql)
            return _answered(lake, question, foreign)
    except PenstockError as error:
        kind = "access" if isinstance(error, AccessError) else "input"
        return Answer(refused=kind, what=error.what, remedy=error.remedy, foreign=foreign)
    except duckdb.InterruptException:
        return Answer(refused="timeout", what=f"the query took longer than {question.time_s:g} s", foreign=foreign)
    except (duckdb.OutOfMemoryException, MemoryError):
        return Answer(refused="memory", what="the query needs too much memory", foreign=foreign)
    except RecursionError:
        return Answer(refused="input", what="the query is nested too deeply", foreign=foreign)
    except duckdb.Error as error:
        return Answer(refused="input", what=_said(error, question, tails), foreign=foreign)


def furnished(question: Question, tails: dict[str, str]) -> duckdb.DuckDBPyConnection:
    """A DuckDB that holds the rows of one project as views, and can reach nothing else any more."""
    lake = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_persistent_secrets": False,
            "allow_unsigned_extensions": True,
            "python_enable_replacements": False,
            "memory_limit": f"{question.memory_bytes // 1024**2}MiB",
            "threads": 2,
        }
    )
    lake.execute(f"SET TimeZone = 'UTC'; ATTACH ':memory:' AS {LAKE}; USE {LAKE}")
    if bucket := question.bucket:
        lake.execute(f"LOAD {quoted(bucket.extension)}; CREATE SECRET penstock_data ({bucket.secret})")
    paths = []
    for name, source in question.sources.items():
        lake.execute(f"CREATE VIEW {name} AS {_rows_sql(name, source, tails[name], question)}")
        paths += [path for pair in source.files for path in pair if path] + ([tails[name]] if source.tail else [])
    for view in question.views:
        lake.execute(view)
    allowed = ", ".join(quoted(path) for path in paths)
    lake.execute(
        f"""
        SET temp_directory = '';
        SET allowed_paths = [{allowed}];
        SET enable_external_access = false;
        SET lock_configuration = true;
        """
    )
    return lake


def _rows_sql(name: str, source: Source, tail: str, question: Question) -> str:
    """The rows of a table: files as they are, files without what was deleted, and what is not there yet."""
    typed = ", ".join(f"NULL::{kind} AS {quoted_name(column)}" for column, kind in COLUMNS[name])
    whole = [path for path, gone in source.files if gone is None] + ([tail] if source.tail else [])
    parts = [f"SELECT {typed} WHERE false"]
    if whole:
        listed = ", ".join(quoted(path) for path in whole)
        parts.append(f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false, union_by_name = true)")
    parts += [
        f"""
        SELECT * EXCLUDE (file_row_number)
        FROM read_parquet({quoted(path)}, hive_partitioning = false, file_row_number = true)
        WHERE file_row_number NOT IN (SELECT pos FROM read_parquet({quoted(gone)}, hive_partitioning = false))
        """
        for path, gone in source.files
        if gone is not None
    ]
    names = ", ".join(quoted_name(column) for column, _ in COLUMNS[name])
    of = f"tenant = {quoted(question.tenant)} AND project = {quoted(question.project)}"
    return f"SELECT {names} FROM ({' UNION ALL BY NAME '.join(parts)}) WHERE {of}"


def _limit_process(question: Question) -> None:
    """Walls of the kernel's own: no file is written, and neither memory nor time runs away."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - opened once a question, before the limits
        now = int(statm.read().split()[0]) * resource.getpagesize()
    roof = now + 2 * question.memory_bytes
    cpu = int(question.time_s * 4) + GRACE_S
    for which, limit in (
        (resource.RLIMIT_AS, roof),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (limit, limit))


def check_door(lake: duckdb.DuckDBPyConnection, sql: str) -> None:
    """
    Raises: AccessError for more than one SELECT over the tables of the room; InputError or a duckdb.Error for what is
    no query at all.
    """
    check_names(_parsed(lake, sql))
    check_query(lake, sql)


def _parsed(lake: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    row = lake.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    found: dict[str, Any] = json.loads(row[0]) if row else {}
    return found


def _answered(lake: duckdb.DuckDBPyConnection, question: Question, foreign: tuple[str, ...]) -> Answer:
    done = threading.Event()
    watch = threading.Thread(target=_interrupt, args=(lake, done, question.time_s), daemon=True)
    watch.start()
    try:
        result = lake.execute(question.sql, question.parameters or None)
        about = result.description or []
        rows, is_cut = _bounded(result, question)
    finally:
        done.set()
    names, types = tuple(column[0] for column in about), tuple(str(column[1]) for column in about)
    return Answer(names, types, tuple(rows), is_cut, foreign)


def _interrupt(lake: duckdb.DuckDBPyConnection, done: threading.Event, after_s: float) -> None:
    if not done.wait(after_s):
        # More than once: an interrupt between two calls stops neither.
        while not done.wait(0.05):
            lake.interrupt()


def _bounded(result: duckdb.DuckDBPyConnection, question: Question) -> tuple[list[tuple[Any, ...]], bool]:
    rows: list[tuple[Any, ...]] = []
    size = 0
    for row in _fetched(result):
        plain = tuple(_plain(value) for value in row)
        size += len(msgspec.json.encode(plain))
        if len(rows) >= question.rows or size > question.bytes:
            return rows, True
        rows.append(plain)
    return rows, False


def _fetched(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while some := result.fetchmany(500):
        yield from some


def _plain(value: Any) -> Any:
    """As JSON takes it: what is no number for it, and what is larger than others read exactly, as text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return _worded(value)


def _worded(value: Any) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, Decimal | UUID | timedelta) else repr(value)


def _said(error: duckdb.Error, question: Question, tails: dict[str, str]) -> str:
    """DuckDB's words on one line, without the names of files: where the platform keeps them is nobody's business."""
    text = str(error).split("\n\n")[0].splitlines()[0]
    for source in question.sources.values():
        for pair in source.files:
            for path in filter(None, pair):
                text = text.replace(path, "…")
    for path in tails.values():
        text = text.replace(path, "…")
    return text[:500]


if __name__ == "__main__":
    main()
