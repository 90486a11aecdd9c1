"""`penstock warehouse`: build the tables again, keep them quick, take them elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.findings_kept import writer
from penstock.errors import InputError

app = typer.Typer(name="warehouse", no_args_is_help=True)
export = typer.Typer(name="export", help="Take the tables elsewhere.", no_args_is_help=True)
app.add_typer(export)


@app.callback()
def warehouse() -> None:
    """
    Rebuild, compact and export the warehouse.

    Examples:

        penstock warehouse rebuild

        penstock warehouse compact --keep-days 400

        penstock warehouse export parquet ./tables
    """


@app.command()
def rebuild() -> None:
    """
    Build the tables again: findings and their history from the archived reports, runs from the state database.

    It may run at any time, also while pipelines run; doing it again changes nothing.

    Examples:

        penstock warehouse rebuild
    """
    from penstock.artifacts.store import open_store
    from penstock.pipeline.rebuild import rebuild as build
    from penstock.settings import load_settings
    from penstock.state.database import hosted_database
    from penstock.warehouse import Warehouse, warehouse_location

    settings = load_settings()
    store = open_store(settings.artifacts_path)
    with hosted_database(settings) as database, Warehouse(warehouse_location(settings)) as tables:
        done = build(settings, database, store, tables, lambda line: typer.echo(line, err=True))
    typer.echo(f"{done.runs} runs, {done.scans} scans and {done.findings} findings are in the tables")
    if done.lists:
        typer.echo(f"{done.lists} lists of components were read again")
    if done.missing:
        typer.echo(f"{done.missing} reports are no longer in the archive; what the tables had of them was kept")


@app.command()
def compact(
    keep_days: Annotated[
        int | None,
        typer.Option(
            "--keep-days", min=1, help="Remove findings, tests and metrics of scans and runs older than this."
        ),
    ] = None,
) -> None:
    """
    Merge small files, forget old snapshots, and delete files that nothing needs.

    The warehouse does this by itself once an hour while Penstock is up. What is open today is never removed.

    Examples:

        penstock warehouse compact

        penstock warehouse compact --keep-days 400
    """
    from penstock.warehouse import compact as merge
    from penstock.warehouse import retain
    from penstock.warehouse.suppressions import expire

    with writer() as tables:
        tables.create()
        removed = retain(tables, timedelta(days=keep_days)) if keep_days else 0
        expire(tables, datetime.now(UTC))
        done = merge(tables)
    typer.echo(
        f"{removed} rows removed, {done.rows_flushed} rows moved to files, {done.files_merged} files merged, "
        f"{done.snapshots_expired} snapshots forgotten, {done.files_deleted} files deleted"
    )


@export.command("parquet")
def parquet(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.", show_default=False)],
) -> None:
    """
    Write every table as a Parquet file, all as of one moment.

    Examples:

        penstock warehouse export parquet ./tables
    """
    from penstock.settings import load_settings
    from penstock.state.database import hosted_database
    from penstock.warehouse import connect, warehouse_location
    from penstock.warehouse.export import export_parquet

    if folder.exists() and not folder.is_dir():
        raise InputError("this is a file", where=str(folder), remedy="give a folder")
    settings = load_settings()
    with hosted_database(settings), connect(warehouse_location(settings), read_only=True) as lake:
        rows = export_parquet(lake, folder)
    for name, count in rows.items():
        typer.echo(f"{folder / name}.parquet: {count} rows")
