"""`penstock template`: the platform's library of pipeline templates."""

import re
from pathlib import Path
from typing import Annotated

import typer

from penstock.errors import InputError
from penstock.settings import create_home, load_settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def template() -> None:
    """
    The platform's library of pipeline templates.

    Examples:

        penstock template add ci/python.yaml
        penstock template list
    """


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A template.")],
    name: Annotated[str | None, typer.Option(help="Default: the file's name.")] = None,
) -> None:
    """
    Put a template into the library and print the NAME@HASH by which pipelines include it.

    Former versions stay: a pipeline that names one keeps it.

    Examples:

        penstock template add ci/python.yaml
    """
    from penstock.cli.check import read_spec
    from penstock.pipeline.templates import keep_template

    chosen = name or file.stem
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", chosen):
        raise InputError(f'"{chosen}" is no name', where="--name", remedy="use small letters, digits, - and _")
    settings = load_settings()
    create_home(settings)
    typer.echo(keep_template(settings.templates_path, chosen, read_spec(file)))


@app.command("list")
def list_() -> None:
    """
    List the library, every version.

    Examples:

        penstock template list
    """
    from penstock.pipeline.templates import list_templates

    for pinned in list_templates(load_settings().templates_path):
        typer.echo(pinned)
