"""`penstock project`: connect repositories."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from penstock.errors import InputError, PlatformError
from penstock.settings import Settings, load_settings, require_git
from penstock.sources.projects import get_project, list_projects
from penstock.state.database import hosted_database

if TYPE_CHECKING:
    from penstock.connecting.connect import Connected

app = typer.Typer(no_args_is_help=True)
WIDE = 400  # columns, where the output is no terminal
SIGNS = {"ok": "✔", "missing": "–", "wrong": "✘"}

Name = Annotated[str, typer.Argument(help="The project.")]
LoginFile = Annotated[
    Path | None,
    typer.Option(help="Git's login: a file with user:token, a token, or an SSH key; - reads standard input."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="A file with the token for the forge's API. Default: the login's token. It serves for hooks and answers."
    ),
]
PublicUrl = Annotated[
    str | None, typer.Option(help="Where the forge reaches this Penstock's API, such as https://ci.example.org.")
]


@app.callback()
def project() -> None:
    """
    Connect repositories.

    Examples:

        penstock project add https://git.example/team/shop.git
        penstock project test shop
    """


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="What git can fetch from: https://, ssh:// or a path.")],
    *,
    name: Annotated[str | None, typer.Option(help="Default: the repository's name.")] = None,
    hook: Annotated[
        bool, typer.Option(help="Let the forge, or a bare repository on this machine, tell of pushes.")
    ] = True,
    forge: Annotated[
        str | None, typer.Option(help="github, gitlab, gitea, …; default: found out; git for none.")
    ] = None,
    login_file: LoginFile = None,
    token_file: TokenFile = None,
    public_url: PublicUrl = None,
    api_url: Annotated[
        str | None, typer.Option(help="Where the forge's API begins, with --forge; default: by the address.")
    ] = None,
    answers: Annotated[bool, typer.Option(help="Tell the forge how runs stand, where there is a token.")] = True,
) -> None:
    """
    Connect a repository: find out its forge, keep its login in the vault, make the hook where the token may.

    What is left to do by hand is printed. A running platform polls it every 30 s; a hook makes its pushes run at once.

    Examples:

        penstock project add https://git.example/team/shop.git
        penstock project add /srv/git/shop.git --name shop
        penstock project add https://github.com/team/shop.git --login-file token.txt
        penstock project add git@git.example:team/shop.git --login-file ~/.ssh/deploy_key
    """
    from penstock.connecting.connect import Wanted, connect, connecting

    require_git()
    settings = load_settings()
    token = _given(token_file)
    given = (_given(login_file), token.decode("utf-8", "replace") if token else None)
    wanted = Wanted(url, name, forge, *given, hook, public_url, api_url, answers)
    with hosted_database(settings) as database:
        _say(connect(connecting(settings, database), wanted))
    _warn_of_platform(settings)


@app.command("list")
def list_() -> None:
    """
    List the connected repositories.

    Examples:

        penstock project list
    """
    table = Table("project", "repository", "default branch", "forge", "login", "hook", box=None, pad_edge=False)
    with hosted_database(load_settings()) as database:
        for known in list_projects(database):
            at = known.connection
            hook = "made" if at.forge_hook else "by hand" if at.hook else ""
            login = "vault" if at.login else ""
            table.add_row(known.name, known.url, known.default_branch, at.forge or "git", login, hook)
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


@app.command()
def show(name: Name) -> None:
    """
    Show how a repository is connected.

    Examples:

        penstock project show shop
    """
    from penstock.answers.connections import list_connections
    from penstock.webhooks.hooks import list_hooks

    settings = load_settings()
    with hosted_database(settings) as database:
        known = get_project(database, name)
        hooks = list_hooks(database, name)
        answered = {found.project: found.forge for found in list_connections(database)}.get(name)
    at = known.connection
    facts = {
        "project": known.name,
        "repository": known.url,
        "default branch": known.default_branch,
        "forge": at.forge or "git",
        "API": at.api_url,
        "login": "in the vault" if at.login else "none: as whoever runs Penstock",
        "token": "in the vault" if at.token else "the login's" if at.login else "none",
        "answers": f"{answered} is told how runs stand" if answered else "none",
        "polled": "every 30 s" if known.polled else "no",
        "hook": at.forge_hook and f"{at.forge_hook}, made by Penstock",
    }
    for what, told in facts.items():
        if told:
            typer.echo(f"{what:<15}{told}")
    for hook in hooks:
        typer.echo(f"{'address':<15}{settings.api_url}{hook.path}")


@app.command()
def edit(
    name: Name,
    *,
    login_file: LoginFile = None,
    token_file: TokenFile = None,
    forget_login: Annotated[bool, typer.Option("--forget-login", help="Remove the login from the vault.")] = False,
    default_branch: Annotated[str | None, typer.Option(help="The branch whose pipeline is the project's.")] = None,
    polled: Annotated[bool | None, typer.Option("--polled/--not-polled", help="Whether it is polled.")] = None,
    hook: Annotated[bool, typer.Option("--hook", help="Make the hook at the forge.")] = False,
    public_url: PublicUrl = None,
) -> None:
    """
    Change how a repository is connected; what is not named stays.

    Examples:

        penstock project edit shop --default-branch trunk
        penstock project edit shop --login-file token.txt --hook --public-url https://ci.example.org
    """
    from penstock.connecting.connect import change, connecting

    settings = load_settings()
    login, token = _given(login_file), _given(token_file)
    with hosted_database(settings) as database:
        made = change(
            connecting(settings, database),
            name,
            login=b"" if forget_login else login,
            token=token.decode("utf-8", "replace") if token else None,
            default=default_branch,
            polled=polled,
            hook=hook,
            public_url=public_url,
        )
        _say(made)


@app.command("test")
def try_(
    name: Name,
    ping: Annotated[bool, typer.Option(help="Let the forge send a trial delivery.")] = True,
) -> None:
    """
    Really try a connection: git, the token's rights, the hook, a trial delivery.

    Exits with 3 when something is wrong.

    Examples:

        penstock project test shop
    """
    from penstock.connecting.connect import connecting
    from penstock.connecting.trying import try_connection

    settings = load_settings()
    with hosted_database(settings) as database:
        checks = try_connection(connecting(settings, database), name, ping=ping)
    for check in checks:
        typer.echo(f"{SIGNS[check.verdict]} {check.name:<6} {check.told}")
    _warn_of_platform(settings)
    if any(check.verdict == "wrong" for check in checks):
        raise typer.Exit(PlatformError.exit_code)


@app.command()
def remove(name: Name) -> None:
    """
    Disconnect a repository and remove its hook; what it did stays in the warehouse.

    Examples:

        penstock project remove shop
    """
    from penstock.connecting.connect import connecting, disconnect

    settings = load_settings()
    with hosted_database(settings) as database:
        _say(disconnect(connecting(settings, database), name))


def _say(made: "Connected") -> None:
    for line in made.done:
        typer.echo(line)
    for line in made.left:
        typer.echo(f"  {line}")


def _given(path: Path | None) -> bytes | None:
    """What a file or standard input holds, without its last newline."""
    if path is None:
        return None
    from penstock.vault import LARGEST_BYTES

    try:
        if str(path) == "-":
            given = sys.stdin.buffer.read(LARGEST_BYTES + 1)
        else:
            with path.expanduser().open("rb") as file:
                given = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}", where=str(path), remedy="name a file") from error
    if len(given) > LARGEST_BYTES or not given.strip():
        raise InputError("it is empty" if not given.strip() else "it is too large", where=str(path))
    return given.removesuffix(b"\n").removesuffix(b"\r")


def _warn_of_platform(settings: Settings) -> None:
    """A project that is added to a home that no platform serves starts nothing; that is easily overlooked."""
    if told := platform_told(settings):
        typer.echo(f"penstock: {told}", err=True)


def platform_told(settings: Settings) -> str | None:
    """What is wrong with the platform that serves these settings' home; None when it is up."""
    import httpx

    from penstock.api.tokens import token_file

    try:
        token = token_file(settings).read_text()
        headers = {"Authorization": f"Bearer {token}"}
        verify = str(settings.tls_cert) if settings.tls_cert else True
        answer = httpx.get(
            f"{settings.api_url}/api/v1/projects", headers=headers, timeout=5, trust_env=False, verify=verify
        )
    except (OSError, httpx.HTTPError):
        return (
            f"no platform is running for PENSTOCK_HOME {settings.home}: nothing starts until `penstock up` runs there; "
            "if yours runs elsewhere, set PENSTOCK_HOME to its folder"
        )
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return (
            f"the platform at {settings.api_url} has another PENSTOCK_HOME than {settings.home}: it does not know this "
            "project; set PENSTOCK_HOME to its folder and add it there"
        )
    return None
