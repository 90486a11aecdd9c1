"""`penstock project`: connect repositories."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from penstock.settings import load_settings, require_git
from penstock.sources.projects import add_project, list_projects, remove_project
from penstock.state.database import hosted_database

app = typer.Typer(no_args_is_help=True)


@app.callback()
def project() -> None:
    """
    Connect repositories.

    Examples:

        penstock project add https://git.example/team/shop.git
        penstock project list
    """


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="What git can fetch from: https://, ssh:// or a path.")],
    name: Annotated[str | None, typer.Option(help="Default: the repository's name.")] = None,
    hook: Annotated[
        bool, typer.Option(help="For a bare repository on this machine: write its post-receive hook.")
    ] = True,
) -> None:
    """
    Connect a repository. A running platform polls it every 30 s; a hook makes its pushes run at once.

    Examples:

        penstock project add https://git.example/team/shop.git
        penstock project add /srv/git/shop.git --name shop
    """
    from penstock.platform.example import write_hook

    require_git()
    settings = load_settings()
    local = Path(url).absolute() if Path(url).is_dir() else None
    chosen = name or Path(url.rstrip("/")).name.removesuffix(".git").lower()
    with hosted_database(settings) as database:
        added = add_project(database, chosen, str(local) if local else url)
    typer.echo(f"{added.name}: {added.url}, default branch {added.default_branch}")
    if hook and local and (local / "HEAD").is_file():
        write_hook(settings, local, added.name)
        typer.echo(f"wrote {local / 'hooks' / 'post-receive'}")


@app.command("list")
def list_() -> None:
    """
    List the connected repositories.

    Examples:

        penstock project list
    """
    table = Table("project", "repository", "default branch", box=None, pad_edge=False)
    with hosted_database(load_settings()) as database:
        for known in list_projects(database):
            table.add_row(known.name, known.url, known.default_branch)
    Console().print(table)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="The project.")]) -> None:
    """
    Disconnect a repository; what it did stays in the warehouse.

    Examples:

        penstock project remove shop
    """
    with hosted_database(load_settings()) as database:
        remove_project(database, name)
    typer.echo(f"{name} is disconnected")
