"""`penstock answers`: what forges are told of runs."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from penstock.answers import connections as connected
from penstock.answers import outbox
from penstock.answers.connections import Options
from penstock.errors import InputError
from penstock.settings import load_settings
from penstock.state.database import hosted_database

app = typer.Typer(no_args_is_help=True)

WIDE = 400  # columns, where the output is no terminal
ProjectName = Annotated[str | None, typer.Option("--project", help="Of this project alone.")]


@app.callback()
def answers() -> None:
    """
    Let forges show how runs stand: statuses, checks, comments, files of releases.

    Examples:

        penstock answers connect shop github --no-comments
        penstock answers list
    """


@app.command()
def connect(
    project: Annotated[str, typer.Argument(help="The project.")],
    forge: Annotated[str, typer.Argument(help="github, gitlab, gitea, forgejo, bitbucket-cloud, …")],
    *,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with the project's new token (- is standard input); default: the one that it has."),
    ] = None,
    api_url: Annotated[str | None, typer.Option(help="Where the forge's API begins; default: by its address.")] = None,
    repository: Annotated[str | None, typer.Option(help="The forge's name for it; default: by its address.")] = None,
    context: Annotated[str, typer.Option(help="The first part of every status's name.")] = "penstock",
    steps: Annotated[
        bool | None, typer.Option("--steps/--no-steps", help="Show each step too; default: on GitHub.")
    ] = None,
    comments: Annotated[
        bool, typer.Option("--comments/--no-comments", help="Write the finding difference to pull requests.")
    ] = True,
    skipped: Annotated[
        bool, typer.Option("--skipped/--no-skipped", help="An event that the triggers leave out is a success.")
    ] = False,
    asset: Annotated[
        list[str] | None, typer.Option(help="Put artifacts with this key to a tag's release; * is any; repeat it.")
    ] = None,
) -> None:
    """
    Choose what a forge is told of a project's runs. `penstock project add` has begun it, where it was given a token.

    What the token needs to be allowed is in docs/answers.md.

    Examples:

        penstock answers connect shop gitlab --skipped --asset 'dist*'

        penstock answers connect shop gitea --api-url https://git.example.com/forge/api/v1 --repository shop/api
    """
    from penstock.forges.clients import Link
    from penstock.vault import open_vault
    from penstock.webhooks.addresses import allowed_hosts

    settings = load_settings()
    options = Options(context, steps, comments, skipped, tuple(asset or ()))
    with hosted_database(settings) as database:
        made = connected.connect(
            database,
            open_vault(settings),
            project,
            forge,
            secret=_read(token_file) if token_file else None,
            url=api_url,
            repository=repository,
            options=options,
            link=Link(allowed_hosts(settings)),
        )
    typer.echo(f"{made.forge} is told of {made.project}: {made.repository} at {made.url}")


@app.command()
def disconnect(project: Annotated[str, typer.Argument(help="The project.")]) -> None:
    """
    Tell a project's forge nothing more. The project keeps its token.

    Examples:

        penstock answers disconnect shop
    """
    from penstock.vault import open_vault

    settings = load_settings()
    with hosted_database(settings) as database:
        connected.disconnect(database, open_vault(settings), project)
    typer.echo(f"nobody is told of {project} any more")


@app.command()
def test(project: Annotated[str, typer.Argument(help="The project.")]) -> None:
    """
    Ask the forge for the repository, with the token.

    Examples:

        penstock answers test shop
    """
    from penstock.forges.clients import Link, open_client
    from penstock.vault import open_vault
    from penstock.webhooks.addresses import allowed_hosts

    settings = load_settings()
    with hosted_database(settings) as database:
        found = connected.get_connection(database, project)
        secret = connected.read_token(database, open_vault(settings), found)
    client = open_client(found.place, secret, Link(allowed_hosts(settings)))
    try:
        typer.echo(f"the token sees {client.check()}")
    finally:
        client.close()


@app.command("list")
def list_(
    project: ProjectName = None,
    state: Annotated[str | None, typer.Option(help="waiting, sent or failed.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
) -> None:
    """
    List what forges were told, what waits and what failed, the newest change first.

    Examples:

        penstock answers list
        penstock answers list --project shop --state failed
    """
    if state not in (None, "waiting", "sent", "failed"):
        raise InputError(f'no answer is "{state}"', where="--state", remedy="use waiting, sent or failed")
    table = Table("answer", "project", "what", "of", "says", "state", "tried", "reason", box=None, pad_edge=False)
    with hosted_database(load_settings()) as database:
        resting = [found for found in connected.list_connections(database) if project in (None, found.project)]
        for item in outbox.list_items(database, project=project, state=state, limit=limit):
            of = item.target[:12] if item.kind == "status" else item.target
            says = str(item.wanted.get("line") or item.wanted.get("name") or "")
            tried = str(item.attempts)
            table.add_row(str(item.id), item.project, item.context, of, says, item.state, tried, item.reason or "")
    _print(table)
    for found in resting:
        if found.reason:
            until = f" until {found.again_at:%Y-%m-%d %H:%M:%S}" if found.again_at else ""
            typer.echo(f"{found.project}: {found.forge} is left alone{until}: {found.reason}", err=True)


@app.command()
def retry(
    answer: Annotated[int | None, typer.Argument(help="Its number; default: all that failed or wait.")] = None,
    *,
    project: ProjectName = None,
) -> None:
    """
    Try again at once what failed or waits.

    Examples:

        penstock answers retry
        penstock answers retry 17
        penstock answers retry --project shop
    """
    with hosted_database(load_settings()) as database:
        count = outbox.retry(database, datetime.now(UTC), project=project, item_id=answer)
    typer.echo(f"{count} to be told again, as soon as Penstock is up")


def _read(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the token cannot be read", where=str(path), remedy="name a readable file") from error


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
