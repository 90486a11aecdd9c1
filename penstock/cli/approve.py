"""`penstock approvals`, `approve` and `reject`: gates that wait for people."""

import os
import pwd
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.table import Table

from penstock.cli.show import console as make_console
from penstock.errors import NotFoundError, PlatformError
from penstock.pipeline import records
from penstock.pipeline.approvals import Waiting, answer, waiting_gate, waiting_gates
from penstock.platform.dagster import DagsterClient
from penstock.settings import Settings, load_settings
from penstock.state.database import hosted_database

Run = Annotated[str, typer.Argument(help="A run; its first digits are enough.")]
Step = Annotated[str, typer.Argument(help="The gate.")]


def approvals(project: Annotated[str | None, typer.Option(help="Only this project's.")] = None) -> None:
    """
    List the gates that wait for people.

    Examples:

        penstock approvals --project shop
    """
    table = Table("run", "project", "commit", "gate", "", box=None, pad_edge=False)
    with hosted_database(load_settings()) as database:
        for gate in waiting_gates(database, project=project):
            table.add_row(gate.run_id[:8], gate.project, gate.commit[:12], gate.step, gate.reason)
    make_console().print(table)


def approve(run: Run, step: Step, why: Annotated[str, typer.Option(help="For the record.")] = "") -> None:
    """
    Open a gate: what comes after it goes on. Holds for this commit and this pipeline alone.

    Examples:

        penstock approve 19f2a3 release --why "seen in staging"
    """
    _answer(run, step, why, approved=True)


def reject(run: Run, step: Step, why: Annotated[str, typer.Option(help="For the record.")] = "") -> None:
    """
    Keep a gate shut for good, for this commit and this pipeline.

    Examples:

        penstock reject 19f2a3 release --why "waits for the security team"
    """
    _answer(run, step, why, approved=False)


def _answer(run: str, step: str, why: str, *, approved: bool) -> None:
    settings = load_settings()
    with hosted_database(settings) as database:
        gate = waiting_gate(database, run, step)
        # Who runs this by the system's account; what LOGNAME says is anybody's to choose.
        missing = answer(database, gate, actor=pwd.getpwuid(os.getuid()).pw_name, approved=approved, why=why)
        if not approved:
            typer.echo(f"{step} is rejected and stays shut for this commit")
        elif missing:
            people = "one more person" if missing == 1 else f"{missing} more people"
            typer.echo(f"approved; {step} waits for {people}")
        else:
            typer.echo(f"{step} is approved; {_go_on(settings, database, gate)}")


def _go_on(settings: Settings, database: sa.Engine, gate: Waiting) -> str:
    """Run what is left. Returns: in words where."""
    try:
        again = DagsterClient.at(settings.dagster_url).rerun(gate.run_id)
    except (PlatformError, NotFoundError):
        return f"run it again with what comes after it: penstock run --step {gate.step} --step …"
    records.leave_waiting(database, gate.run_id, again)
    return f"run {again[:8]} goes on from there"
