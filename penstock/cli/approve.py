"""`penstock approvals`, `approve`, `reject` and `withdraw`: gates that wait for people."""

import time
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.table import Table

from penstock.cli.show import console as make_console
from penstock.errors import NotFoundError
from penstock.people.users import system_account
from penstock.pipeline import approvals as gates
from penstock.pipeline.approval_rows import OPEN, Request, waiting_for
from penstock.pipeline.continuing import go_on, is_under_way
from penstock.pipeline.log import utc_now
from penstock.platform.dagster import DagsterClient
from penstock.settings import Settings, load_settings
from penstock.state.database import hosted_database

Run = Annotated[str, typer.Argument(help="A run; its first digits are enough.")]
Step = Annotated[str, typer.Argument(help="The gate.")]
Why = Annotated[str, typer.Option(help="For the record.")]
_PATIENCE_S = 20.0


def approvals(
    project: Annotated[str | None, typer.Option(help="Only this project's.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that are over too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the newest.")] = 50,
) -> None:
    """
    List the gates that wait for people.

    Examples:

        penstock approvals --project shop

        penstock approvals --all
    """
    table = Table("run", "project", "commit", "gate", "digest", "state", "", box=None, pad_edge=False)
    with hosted_database(load_settings()) as database:
        states = () if everything else ("waiting",)
        for found in gates.list_requests(database, project=project, states=states, limit=limit):
            where = (found.run_id[:8], found.project, found.commit[:12], found.step, found.digest[:12])
            table.add_row(*where, found.state, waiting_for(found))
    make_console().print(table)


def approve(
    run: Run,
    step: Step,
    why: Why = "",
    digest: Annotated[str | None, typer.Option(help="Of what you have looked at; refused if it is another.")] = None,
) -> None:
    """
    Open a gate: what comes after it goes on. Holds for this commit, this pipeline and what it has built alone.

    Examples:

        penstock approve 19f2a3 release --why "seen in staging"
    """
    settings = load_settings()
    with hosted_database(settings) as database:
        request = gates.find_request(database, run, step)
        digest = request.digest if digest and request.digest.startswith(digest) else digest
        me = system_account()
        said = gates.answer(database, request.id, me, approved=True, how="cli", why=why, digest=digest)
        if said.state == "waiting":
            typer.echo(f"approved; {step} {waiting_for(said)}")
        else:
            typer.echo(f"{step} is approved; {_go_on(settings, database, said)}")


def reject(run: Run, step: Step, why: Why = "") -> None:
    """
    Keep a gate shut for good, for this commit and this pipeline.

    Examples:

        penstock reject 19f2a3 release --why "waits for the security team"
    """
    with hosted_database(load_settings()) as database:
        request = gates.find_request(database, run, step)
        gates.answer(database, request.id, system_account(), approved=False, how="cli", why=why)
        typer.echo(f"{step} is rejected and stays shut for this commit")


def withdraw(run: Run, step: Step, why: Why = "") -> None:
    """
    Take back your approval before it is used; for who wrote the commit, the request itself.

    Examples:

        penstock withdraw 19f2a3 release --why "not before the holiday"
    """
    with hosted_database(load_settings()) as database:
        request = gates.find_request(database, run, step, states=OPEN)
        said = gates.withdraw(database, request.id, system_account(), how="cli", why=why)
        what = "the request is withdrawn" if said.state == "withdrawn" else f"withdrawn; {step} {waiting_for(said)}"
        typer.echo(what)


def _go_on(settings: Settings, database: sa.Engine, request: Request) -> str:
    """Run what is left; the platform may be at it already. Returns: in words where."""
    dagster, deadline = DagsterClient.at(settings.dagster_url), time.monotonic() + _PATIENCE_S
    try:
        while not (again := go_on(database, dagster, request.id, utc_now())):
            if not is_under_way(database, request.id, utc_now()) or time.monotonic() > deadline:
                return "the rest goes on as soon as the run is over and the platform is up"
            time.sleep(0.2)
    except NotFoundError:
        return f"run it again with what comes after it: penstock run --step {request.step} --step …"
    return f"run {again[:8]} goes on from there"
