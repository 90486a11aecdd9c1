"""`penstock sql`: ask the warehouse."""

import csv
import json
import sys
from datetime import date, datetime, timedelta
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.errors import InputError
from penstock.settings import load_settings
from penstock.state.database import hosted_database
from penstock.warehouse.connect import Location
from penstock.warehouse.sql import ROW_LIMIT, TIME_LIMIT, Answer, ask


def sql(
    query: Annotated[
        str, typer.Argument(help='One SELECT; "-" reads it from standard input. Default: list the tables.')
    ] = "SELECT table_name, table_comment FROM information_schema.tables ORDER BY 1",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array with one object per row.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Rows to print at most; 0 prints all.")] = ROW_LIMIT,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that the query may take.")
    ] = TIME_LIMIT.total_seconds(),
) -> None:
    """
    Ask the warehouse in DuckDB's SQL. It reads tables and nothing else: no files, no network, no changes.

    Examples:

        penstock sql

        penstock sql "SELECT severity, count(*) FROM findings GROUP BY ALL"

        penstock sql "FROM finding_history WHERE state = 'open'" --csv --limit 0

        penstock sql "DESCRIBE runs"
    """
    from penstock.warehouse.home import warehouse_location

    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other", remedy="choose one")
    settings = load_settings()
    with hosted_database(settings):
        found = ask_typed(warehouse_location(settings), query, limit=limit, timeout_s=timeout)
    print_answer(found, sys.stdout, as_json=as_json, as_csv=as_csv)


def ask_typed(location: Location, query: str, *, limit: int, timeout_s: float) -> Answer:
    """What `penstock.warehouse.sql.ask` answers. limit: 0 is none; query: "-" is standard input."""
    typed = sys.stdin.read() if query == "-" else query
    return ask(location, typed, limit=limit or None, time_limit=timedelta(seconds=timeout_s))


def print_answer(answer: Answer, out: TextIO, *, as_json: bool = False, as_csv: bool = False) -> None:
    """Print rows as a table, JSON or CSV to `out`, and to standard error that there are more."""
    if as_json:
        _check_names(answer.columns)
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        out.write(json.dumps(rows, default=_plain, ensure_ascii=False) + "\n")
    elif as_csv:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([answer.columns, *([_cell(value) for value in row] for row in answer.rows)])
    else:
        Console(file=out, highlight=False).print(_table(answer))
    if answer.is_cut:
        typer.echo(f"… only the first {len(answer.rows)} rows; --limit 0 prints all", err=True)


def _check_names(columns: tuple[str, ...]) -> None:
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise InputError(f'two columns are called "{twice[0]}"', where="SQL", remedy="rename one with AS for --json")


def _table(answer: Answer) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(answer.columns):
        is_number = all(isinstance(row[index], int | float) for row in answer.rows) and bool(answer.rows)
        table.add_column(Text(name), justify="right" if is_number else "left", overflow="fold")
    for row in answer.rows:
        # Text, not str: a finding's message is no markup, and no control character reaches the terminal.
        table.add_row(*(Text(_printable(_cell(value))) for value in row))
    return table


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return json.dumps(value, default=_plain, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime | date) else str(value)
