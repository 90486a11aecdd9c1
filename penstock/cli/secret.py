"""`penstock secret`: what steps are granted and nobody should see."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from penstock.errors import InputError
from penstock.settings import load_settings
from penstock.vault import LARGEST_BYTES, SHARED, Vault, open_vault
from penstock.vault.variants import SHORTEST_BYTES

app = typer.Typer(no_args_is_help=True)

Project = Annotated[str | None, typer.Option("--project", help="The project; default: the platform's own.")]
Name = Annotated[str, typer.Argument(help="A letter, then letters, digits, - and _.")]
EVERYWHERE = "all projects"
WIDE = 400  # columns, where the output is no terminal


@app.callback()
def secret() -> None:
    """
    Keep the secrets that steps are granted.

    A secret belongs to the project that --project names, or to all projects. A project's own wins.

    Examples:

        penstock secret set DEPLOY_TOKEN --project shop
        penstock secret list
    """


@app.command("set")
def set_(
    name: Name,
    project: Project = None,
    from_file: Annotated[Path | None, typer.Option(help="Read the value from this file, as it is.")] = None,
) -> None:
    """
    Keep a secret. The value comes from a prompt, from standard input or from a file, never from the command line.

    One newline at the end of what is piped in is left out; a file is kept byte for byte.

    Examples:

        penstock secret set DEPLOY_TOKEN --project shop
        penstock secret set DEPLOY_TOKEN < token.txt
        penstock secret set SSH_KEY --project shop --from-file ~/.ssh/deploy
    """
    vault, owner = _opened(project)
    value = _from_file(from_file) if from_file else _from_input(name)
    vault.write(owner, name, value)
    typer.echo(f"{name} is set for {owner or EVERYWHERE}")
    if len(value) < SHORTEST_BYTES:
        typer.echo(f"penstock: {name} has fewer than {SHORTEST_BYTES} bytes: logs will not mask it", err=True)


@app.command("list")
def list_(project: Project = None) -> None:
    """
    List secrets by name, never their values: those of all projects, and a project's own.

    Examples:

        penstock secret list
        penstock secret list --project shop
    """
    vault, owner = _opened(project)
    table = Table("secret", "for", "set at", box=None, pad_edge=False)
    for found in (*(vault.names(owner) if owner else ()), *vault.names(SHARED)):
        table.add_row(found.name, found.project or EVERYWHERE, f"{found.updated_at:%Y-%m-%d %H:%M} UTC")
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="The secret.")], project: Project = None) -> None:
    """
    Forget a secret. Steps that name it are refused from then on.

    Examples:

        penstock secret remove DEPLOY_TOKEN --project shop
    """
    vault, owner = _opened(project)
    vault.remove(owner, name)
    typer.echo(f"{name} of {owner or EVERYWHERE} is removed")


@app.command()
def check() -> None:
    """
    Open the vault and say what answers, or what is wrong.

    Examples:

        penstock secret check
    """
    typer.echo(open_vault(load_settings()).check())


def _opened(project: str | None) -> tuple[Vault, str]:
    return open_vault(load_settings()), project or SHARED


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror}", where=str(path)) from error


def _from_input(name: str) -> bytes:
    if sys.stdin.isatty():
        typed: str = typer.prompt(f"Value of {name}", hide_input=True, err=True)
        return typed.encode()
    piped = sys.stdin.buffer.read(LARGEST_BYTES + 2)
    return piped.removesuffix(b"\n").removesuffix(b"\r") if piped.endswith(b"\n") else piped
