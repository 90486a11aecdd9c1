"""`penstock hook`: the addresses at which forges tell of projects, and what they told."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from penstock.errors import InputError
from penstock.settings import Settings, is_loopback, load_settings
from penstock.state.database import hosted_database
from penstock.webhooks import deliveries as delivered
from penstock.webhooks import hooks
from penstock.webhooks.hooks import Hook, Pins

app = typer.Typer(no_args_is_help=True)

WIDE = 400  # columns, where the output is no terminal
ProjectName = Annotated[str | None, typer.Option("--project", help="Of this project alone.")]
HookId = Annotated[str, typer.Argument(help="The hook, as `penstock hook list` shows it.")]
SecretFile = Annotated[
    Path | None,
    typer.Option(help="Take the forge's own secret from this file (- is standard input); default: make one."),
]
Signing = Annotated[bool, typer.Option("--signing", help="GitLab 19 and later: make a signing token (whsec_…).")]


@app.callback()
def hook() -> None:
    """
    Let forges tell of pushes, tags, pull requests and releases.

    Examples:

        penstock hook add shop github
        penstock hook deliveries --project shop
    """


@app.command()
def add(
    project: Annotated[str, typer.Argument(help="The project.")],
    forge: Annotated[str, typer.Argument(help="github, gitlab, gitea, forgejo, bitbucket-cloud, …")],
    *,
    repository: Annotated[
        str | None,
        typer.Option(help="The forge's name for it, such as shop/api; default: from the address; '' for any."),
    ] = None,
    secret_file: SecretFile = None,
    signing: Signing = False,
    username: Annotated[str, typer.Option(help="Azure DevOps: of the basic authentication.")] = "penstock",
    subscription: Annotated[str | None, typer.Option(help="Azure DevOps: the subscription's id.")] = None,
    azure_project: Annotated[str | None, typer.Option(help="Azure DevOps: the project's id.")] = None,
    topic_arn: Annotated[str | None, typer.Option(help="CodeCommit: the SNS topic that is believed.")] = None,
    queue_url: Annotated[str | None, typer.Option(help="CodeCommit: the SQS queue that is read.")] = None,
) -> None:
    """
    Make an address for a forge, and a secret that is shown this once.

    Examples:

        penstock hook add shop github

        penstock hook add shop gitlab --signing

        penstock hook add shop azure-devops --subscription ID --azure-project ID

        penstock hook add shop aws-codecommit --topic-arn arn:aws:sns:eu-central-1:123456789012:pushes

        penstock hook add shop aws-codecommit --queue-url https://sqs.eu-central-1.amazonaws.com/123456789012/pushes
    """
    from penstock.vault import open_vault

    settings = load_settings()
    secret = None if forge in hooks.WITHOUT_SECRET else _given(secret_file) or hooks.new_secret(signing=signing)
    pins = Pins(username, subscription, azure_project, topic_arn, queue_url)
    with hosted_database(settings) as database:
        made = hooks.add_hook(
            database, open_vault(settings), project, forge, secret=secret, repository=repository, pins=pins
        )
    _show(settings, made, None if secret_file else secret)


def _show(settings: Settings, made: Hook, secret: str | None) -> None:
    typer.echo(f"hook     {made.id}")
    if made.pins.queue_url and not made.pins.topic_arn:
        typer.echo(f"queue    {made.pins.queue_url}")
        typer.echo("It is read while Penstock is up, with the project's AWS key.", err=True)
        return
    typer.echo(f"address  {settings.api_url}{made.path}")
    if made.forge == "azure-devops":
        typer.echo(f"user     {made.pins.username}")
    if secret:
        typer.echo(f"secret   {secret}")
        typer.echo("The secret is in the vault and is not shown again.", err=True)
    if is_loopback(settings.host):
        typer.echo("The API listens on this machine alone: give the forge the address of your own proxy.", err=True)


@app.command("list")
def list_(project: ProjectName = None) -> None:
    """
    List the addresses, and how many deliveries were not believed.

    Examples:

        penstock hook list
    """
    table = Table("hook", "project", "forge", "repository", "secrets", "refused", box=None, pad_edge=False)
    with hosted_database(load_settings()) as database:
        for found in hooks.list_hooks(database, project):
            refused = f"{found.refused}: {found.refused_reason}" if found.refused_reason else str(found.refused)
            named = found.repository or "any"
            table.add_row(found.id, found.project, found.forge, named, str(len(found.secrets)), refused)
    _print(table)


@app.command()
def rotate(
    hook_id: HookId,
    secret_file: SecretFile = None,
    signing: Signing = False,
    finish: Annotated[bool, typer.Option("--finish", help="Forget the former secret.")] = False,
) -> None:
    """
    Give a hook another secret: this command, then the forge, then --finish. Both are believed in between.

    Examples:

        penstock hook rotate hk0123456789abcdef0123456789abcdef
        penstock hook rotate hk0123456789abcdef0123456789abcdef --finish
    """
    from penstock.vault import open_vault

    settings = load_settings()
    vault = open_vault(settings)
    with hosted_database(settings) as database:
        if finish:
            hooks.end_rotation(database, vault, hook_id)
            typer.echo("only the newest secret is believed")
            return
        secret = _given(secret_file) or hooks.new_secret(signing=signing)
        made = hooks.rotate(database, vault, hook_id, secret)
    _show(settings, made, None if secret_file else secret)


@app.command()
def remove(hook_id: HookId) -> None:
    """
    Take an address away; its deliveries go with it, events and runs stay.

    Examples:

        penstock hook remove hk0123456789abcdef0123456789abcdef
    """
    from penstock.vault import open_vault

    settings = load_settings()
    with hosted_database(settings) as database:
        gone = hooks.remove_hook(database, open_vault(settings), hook_id)
    typer.echo(f"{gone.forge} no longer tells of {gone.project}")


@app.command()
def deliveries(
    project: ProjectName = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
) -> None:
    """
    List what came in, newest first, and what became of it.

    Examples:

        penstock hook deliveries
        penstock hook deliveries --project shop --limit 100
    """
    table = Table("delivery", "project", "forge", "at", "state", "events", "reason", box=None, pad_edge=False)
    with hosted_database(load_settings()) as database:
        for found in delivered.list_deliveries(database, project=project, limit=limit):
            events = ", ".join(f"{one['became']} {one.get('event') or one['kind']}" for one in found.events)
            at = f"{found.received_at:%Y-%m-%d %H:%M:%S}"
            table.add_row(str(found.id), found.project, found.forge, at, found.state, events, found.reason or "")
    _print(table)


@app.command()
def replay(delivery: Annotated[int, typer.Argument(help="The delivery's number.")]) -> None:
    """
    Work on a delivery once more; its events run again.

    Examples:

        penstock hook replay 17
    """
    with hosted_database(load_settings()) as database:
        again = delivered.replay(database, delivery)
    typer.echo(f"delivery {again.id} of {again.project} is worked on again as soon as Penstock is up")


@app.command()
def approve(event: Annotated[int, typer.Argument(help="The event's number.")]) -> None:
    """
    Let the first pull request of a stranger's fork start; later ones of the same author start by themselves.

    Examples:

        penstock hook approve 42
    """
    import getpass

    from penstock.events.inbox import let_start

    with hosted_database(load_settings()) as database:
        started = let_start(database, event, getpass.getuser())
    typer.echo(f"{started.ref} of {started.project} at {started.commit[:12]} may start")


def _given(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        given = sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the secret cannot be read", where=str(path), remedy="name a readable file") from error
    return given.strip()


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
