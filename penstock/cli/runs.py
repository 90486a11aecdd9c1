"""`penstock runs` and `penstock logs`: what has run, and what it printed."""

from collections.abc import Iterable
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.table import Table
from rich.text import Text

from penstock.cli.show import console as make_console
from penstock.cli.show import print_log, seconds, sign, step_table
from penstock.errors import NotFoundError
from penstock.pipeline.records import RunRecord, list_runs, list_steps, load_run
from penstock.settings import load_settings
from penstock.state.database import hosted_database
from penstock.state.tables import runs as table


def runs(
    run: Annotated[str | None, typer.Argument(help="A run; its first digits are enough. Default: list them.")] = None,
    project: Annotated[str | None, typer.Option(help="Only this project's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
) -> None:
    """
    List runs, newest first, or show the steps of one.

    Examples:

        penstock runs --project shop
        penstock runs 19f2a3
    """
    console = make_console()
    settings = load_settings()
    with hosted_database(settings) as database:
        if run is None:
            console.print(_run_table(list_runs(database, project=project, limit=limit)))
            return
        record = load_run(database, find_run(database, run))
        console.print(step_table(list_steps(database, record.info.id)))
        console.print(Text.assemble("run ", record.info.id, " ", sign(record.state), "  ", record.reason or ""))


def logs(
    run: Annotated[str, typer.Argument(help="A run; its first digits are enough.")],
    step: Annotated[str | None, typer.Argument(help="One of its steps; default: all.")] = None,
) -> None:
    """
    Print what the steps of a run printed.

    Examples:

        penstock logs 19f2a3 test
    """
    console = make_console()
    settings = load_settings()
    with hosted_database(settings) as database:
        run_id = find_run(database, run)
        names = [record.step for record in list_steps(database, run_id)]
    if step is not None and step not in names:
        raise NotFoundError(f'run {run_id} has no step "{step}"', remedy=f"there are: {', '.join(names)}")
    for name in names if step is None else [step]:
        print_log(console, settings, run_id, name)


def find_run(database: sa.Engine, prefix: str) -> str:
    """
    The run whose identifier begins with `prefix`.

    Raises: NotFoundError when there is none or more than one.
    """
    with database.connect() as connection:
        wanted = sa.select(table.c.id).where(table.c.id.startswith(prefix, autoescape=True)).limit(2)
        found = connection.execute(wanted).scalars().all()
    if len(found) != 1:
        what = "no run begins" if not found else "more than one run begins"
        raise NotFoundError(f'{what} with "{prefix}"', remedy="list them with `penstock runs`")
    return str(found[0])


def _run_table(found: Iterable[RunRecord]) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("run", "project", "commit", "ref", "state", "seconds", "title"):
        shown.add_column(name, no_wrap=name != "title", overflow="fold")
    for record in found:
        info = record.info
        words = (info.id[:8], info.project, info.partition, info.branch, sign(record.state))
        shown.add_row(*words, seconds(record.seconds), Text(record.reason or info.title or ""))
    return shown
