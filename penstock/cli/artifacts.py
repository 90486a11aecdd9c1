"""`penstock artifacts`: what steps put out, and for how long it is kept."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.table import Table

from penstock.artifacts import open_store
from penstock.artifacts.reports import archived_reports
from penstock.artifacts.retention import Policy, Swept
from penstock.artifacts.retention import remove as remove_record
from penstock.artifacts.retention import sweep as sweep_store
from penstock.cli.runs import find_run
from penstock.cli.show import console as make_console
from penstock.errors import InputError, NotFoundError
from penstock.pipeline.session import size_in_words
from penstock.settings import load_settings
from penstock.state.database import hosted_database
from penstock.state.tables import artifacts as table

app = typer.Typer(no_args_is_help=True)

_SPAN = re.compile(r"(\d+)([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}
_SIZE = re.compile(r"(\d+)\s*([kmgt]?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

Chosen = Annotated[
    str, typer.Argument(help="Its number, or the first digits of its SHA-256 (sha256:… if only digits).")
]


@app.callback()
def artifacts() -> None:
    """
    What steps put out: list, fetch, remove, and how long it is kept.

    Examples:

        penstock artifacts list --project shop
        penstock artifacts fetch 42 dist
        penstock artifacts sweep --older-than 30d --keep 5 --dry-run
    """


@app.command("list")
def list_(
    run: Annotated[str | None, typer.Option(help="Of this run; its first digits are enough.")] = None,
    project: Annotated[str | None, typer.Option(help="Of this project.")] = None,
    key: Annotated[str | None, typer.Option(help="Under this key.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 50,
) -> None:
    """
    List artifacts, newest first.

    Examples:

        penstock artifacts list --run 19f2a3
        penstock artifacts list --project shop --key dist
    """
    shown = _table("artifact", "project", "commit", "run", "step", "key", "kind", "size", "sha256", "made")
    with hosted_database(load_settings()) as database:
        wanted = sa.select(table).order_by(table.c.id.desc()).limit(limit)
        run_id = find_run(database, run) if run else None
        for column, value in ((table.c.run_id, run_id), (table.c.project, project), (table.c.key, key)):
            wanted = wanted if value is None else wanted.where(column == value)
        with database.connect() as connection:
            for row in connection.execute(wanted):
                shown.add_row(*_words(row))
    make_console().print(shown)


@app.command()
def show(artifact: Chosen) -> None:
    """
    Say everything about one artifact, also whether the store still has it.

    Examples:

        penstock artifacts show 42
    """
    settings = load_settings()
    with hosted_database(settings) as database:
        row = _find(database, artifact)
    state = "there" if open_store(settings.artifacts_path).has(row["digest"]) else "lost"
    shown = _table("field", "value")
    for name in ("id", "project", "commit", "ref", "run_id", "step", "key", "path", "kind", "digest", "published"):
        shown.add_row("artifact" if name == "id" else name, str(row[name]))
    shown.add_row("size", f"{size_in_words(row['size_bytes'])} ({row['size_bytes']} bytes)")
    shown.add_row("made", row["created_at"].astimezone(UTC).isoformat(timespec="seconds"))
    shown.add_row("in the store", state)
    make_console().print(shown)


@app.command()
def fetch(
    artifact: Chosen,
    to: Annotated[Path, typer.Argument(help="The file or folder to make; it must not be there.")],
) -> None:
    """
    Bring an artifact to a path, verified. A folder is unpacked.

    Examples:

        penstock artifacts fetch 42 dist
    """
    settings = load_settings()
    with hosted_database(settings) as database:
        row = _find(database, artifact)
    if to.exists() or to.is_symlink():
        raise InputError("it is there already", where=str(to), remedy="name a path where nothing is")
    open_store(settings.artifacts_path).fetch_path(row["digest"], row["kind"], to)
    typer.echo(f"{to}: {row['key']} of {row['project']}, {size_in_words(row['size_bytes'])}, SHA-256 verified")


@app.command()
def remove(artifact: Chosen) -> None:
    """
    Take one artifact off the record, and its bytes if nothing else needs them.

    Refused while a release or a run at work needs it. Bytes younger than a day go with a later sweep.

    Examples:

        penstock artifacts remove 42
    """
    settings = load_settings()
    with hosted_database(settings) as database:
        row = _find(database, artifact)
        store, now = open_store(settings.artifacts_path), datetime.now(UTC)
        gone = remove_record(database, store, row["id"], now, reports=archived_reports(settings))
    rest = "and its bytes are gone" if gone else "its bytes stay as long as others need them, or for a day"
    typer.echo(f"artifact {row['id']} ({row['key']} of {row['project']}) is off the record; {rest}")


@app.command()
def sweep(
    *,
    older_than: Annotated[str | None, typer.Option(help="What is older goes: 12h, 30d, 8w.")] = None,
    keep: Annotated[
        int | None, typer.Option(min=0, help="But the newest so many of each project and key stay.")
    ] = None,
    total: Annotated[str | None, typer.Option(help="All of it together, the oldest goes beyond: 500GB.")] = None,
    cache_total: Annotated[str, typer.Option(help="Caches of one project, the least used go beyond.")] = "10GB",
    cache_unused: Annotated[str, typer.Option(help="Caches that nobody used for so long go.")] = "30d",
    releases: Annotated[int, typer.Option(min=0, help="Former releases of a service that can come back.")] = 5,
    grace: Annotated[str, typer.Option(help="Younger bytes stay: somebody may be recording them.")] = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """
    Remove what is not kept any longer.

    What releases need that live or can come back, what runs at work need, and the raw reports behind the
    findings always stay.

    Examples:

        penstock artifacts sweep --older-than 30d --keep 5 --dry-run
        penstock artifacts sweep --total 500GB
    """
    settings = load_settings()
    policy = Policy(
        older_than=span("--older-than", older_than) if older_than else None,
        keep=keep,
        total_bytes=size("--total", total) if total else None,
        releases=releases,
        cache_bytes=size("--cache-total", cache_total),
        cache_unused=span("--cache-unused", cache_unused),
        grace=span("--grace", grace),
    )
    with hosted_database(settings) as database:
        reports, store = archived_reports(settings), open_store(settings.artifacts_path)
        done = sweep_store(database, store, policy, datetime.now(UTC), reports=reports, dry_run=dry_run)
    _print_swept(done, policy, dry_run=dry_run)


def span(option: str, text: str) -> timedelta:
    """`30d` as a time. Raises: InputError."""
    if not (found := _SPAN.fullmatch(text)) or len(text) > 6:
        raise InputError(f'"{text}" is no time', where=option, remedy="write hours, days or weeks: 12h, 30d, 8w")
    return timedelta(hours=int(found[1]) * _HOURS[found[2]])


def size(option: str, text: str) -> int:
    """`500GB` in bytes, powers of 1000. Raises: InputError."""
    if not (found := _SIZE.fullmatch(text.strip())):
        raise InputError(f'"{text}" is no size', where=option, remedy="write one such as 800MB, 500GB or 2TB")
    return int(found[1]) * int(1000 ** _POWERS[found[2].lower()])


def _find(database: sa.Engine, chosen: str) -> Any:
    """
    The newest artifact of that number or digest.

    Raises: NotFoundError when there is none, or digits fit more than one digest.
    """
    digits = chosen.removeprefix("sha256:").lower()
    by_number = chosen.isdecimal() and len(chosen) < 19
    condition = table.c.id == int(chosen) if by_number else table.c.digest.startswith(digits, autoescape=True)
    wanted = sa.select(table).where(condition).order_by(table.c.id.desc())
    with database.connect() as connection:
        rows = connection.execute(wanted).mappings().all() if digits else []
    if len({row["digest"] for row in rows}) != 1:
        what = "more than one artifact is" if rows else "no artifact is"
        raise NotFoundError(f'{what} called "{chosen}"', remedy="list them with `penstock artifacts list`")
    return rows[0]


def _words(row: Any) -> tuple[str, ...]:
    made = row.created_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    where = (str(row.id), row.project, row.commit[:12], row.run_id[:8], row.step, row.key, row.kind)
    return (*where, size_in_words(row.size_bytes), row.digest[:12], made)


def _table(*names: str) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        made.add_column(name, justify="right" if name == "size" else "left", overflow="fold")
    return made


def _print_swept(done: Swept, policy: Policy, *, dry_run: bool) -> None:
    would = "would go" if dry_run else "gone"
    if done.records:
        _print_records(done.records)
    for cache in done.caches:
        typer.echo(f"cache {cache.key} of {cache.project}, {cache.scope}: {size_in_words(cache.size_bytes)}")
    rest = f"{done.blobs} blobs ({size_in_words(done.size_bytes)})"
    typer.echo(f"{would}: {len(done.records)} artifacts, {len(done.caches)} caches, {rest}, {done.leftovers} leftovers")
    if done.over_bytes and policy.total_bytes is not None:
        typer.echo(f"still {size_in_words(done.over_bytes)} above the limit: releases and runs need the rest", err=True)


def _print_records(records: Iterable[Any]) -> None:
    shown = _table("artifact", "project", "run", "step", "key", "size", "made")
    for record in records:
        made = record.created_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
        words = (str(record.id), record.project, record.run_id[:8], record.step, record.key)
        shown.add_row(*words, size_in_words(record.size_bytes), made)
    make_console().print(shown)
