"""`penstock approvals`, `approve` and `reject`: gates that wait for people."""

import getpass
from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.show import console as make_console
from penstock.errors import PlatformError
from penstock.pipeline.approvals import answer, waiting_gate, waiting_gates
from penstock.platform.dagster import DagsterClient
from penstock.settings import load_settings
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
        answer(database, gate, actor=getpass.getuser(), approved=approved, why=why)
    said = "approved" if approved else "rejected"
    try:
        again = DagsterClient.at(settings.dagster_url).rerun(gate.run_id)
    except PlatformError:
        typer.echo(f"{step} is {said}; Penstock is not running, so run the step again when it is")
        return
    typer.echo(f"{step} is {said}; run {again[:8]} goes on from there")
