"""`penstock environment`: where releases go, and the rules for getting there."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.table import Table
from rich.text import Text

from penstock.cli.show import console as make_console
from penstock.environments import store, waiting
from penstock.environments.applying import apply_environments, read_environments, write_environments
from penstock.environments.model import Environment, NamedRules, Rules
from penstock.environments.rules import allowed, spoken
from penstock.environments.store import Wanted
from penstock.errors import InputError, PlatformError
from penstock.people.audit import list_changes
from penstock.people.users import system_account
from penstock.pipeline.document import SIZE_LIMIT
from penstock.settings import load_settings
from penstock.state.database import hosted_database

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The environment.")]
Version = Annotated[int | None, typer.Option(min=1, help="The version that you have seen; refused if it is another.")]
Why = Annotated[str, typer.Option(help="For the record.")]
Description = Annotated[str | None, typer.Option(help="What it is, in a line.")]
Production = Annotated[bool | None, typer.Option("--production/--not-production", help="Default: by its name.")]
Group = Annotated[str | None, typer.Option(help="What it belongs together with; empty for none.")]
After = Annotated[list[str] | None, typer.Option(help="An environment that a commit must come through; repeatable.")]
Need = Annotated[str | None, typer.Option(help="all of those, or any.")]
Soak = Annotated[str | None, typer.Option(help="For how long it must have been well there, such as 30m.")]
Branch = Annotated[list[str] | None, typer.Option(help="Branches that may be deployed, as a pattern; repeatable.")]
Tag = Annotated[list[str] | None, typer.Option(help="Tags that may be, as a pattern; repeatable.")]
PullRequest = Annotated[list[str] | None, typer.Option(help="Pull requests to these branches may; repeatable.")]
Project = Annotated[list[str] | None, typer.Option(help="Projects that may be, as a pattern; repeatable.")]
Variable = Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE for every service here; repeatable.")]
SecretVariable = Annotated[list[str] | None, typer.Option("--secret-env", help="NAME=SECRET; repeatable.")]
Target = Annotated[str | None, typer.Option(help="process, docker or kubernetes; empty: what the step says.")]
Approvals = Annotated[int | None, typer.Option(min=0, max=20, help="How many people must approve; 0 for none.")]
_LISTS = {"after": "order.after", "branch": "refs.branches", "tag": "refs.tags", "pull_request": "refs.pull_requests"}


@app.callback()
def environment() -> None:
    """
    Where releases go, and the rules for getting there.

    They lie with the platform: an edit to a pipeline cannot change them.

    Examples:

        penstock environment add production --after staging --soak 1h --branch main --approvals 2
        penstock environment show production
        penstock environment apply environments.yaml
    """


@app.command("list")
def list_(
    group: Annotated[str | None, typer.Option(help="Only those of this group.")] = None,
    production: Annotated[bool | None, typer.Option("--production/--not-production", help="Only those.")] = None,
    target: Annotated[str | None, typer.Option(help="Only those with this target.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only those whose names begin so.")] = None,
) -> None:
    """
    List the environments, by name.

    Examples:

        penstock environment list --production
    """
    table = Table("environment", "type", "group", "after", "from", "approvals", "target", "", box=None, pad_edge=False)
    with hosted_database(load_settings()) as database, database.connect() as connection:
        for found in store.list_environments(connection, Wanted(group, production, target, prefix)):
            rules = found.rules
            table.add_row(
                found.name,
                "production" if rules.production else "",
                rules.group or "",
                ", ".join(rules.order.after),
                "" if rules.refs.is_open else allowed(rules.refs),
                str(rules.approval.count) if rules.approval else "",
                rules.target_name or "",
                Text(f"held by {found.hold.by}", style="yellow") if found.hold else "",
            )
    make_console().print(table)


@app.command()
def show(name: Name) -> None:
    """
    Show an environment: its rules, what waits for it, and who changed it last.

    Examples:

        penstock environment show production
    """
    with hosted_database(load_settings()) as database, database.connect() as connection:
        found = store.get_environment(connection, name)
        waits = waiting.list_waits(connection, name)
        changes = list_changes(connection, subject=name, action="environment", limit=5)
    for what, told in _facts(found):
        if told:
            typer.echo(f"{what:<15}{told}")
    for wait in waits:
        typer.echo(f"{'waits':<15}run {wait.run_id[:8]} of {wait.project}/{wait.service}: {wait.reason}")
    for change in changes:
        typer.echo(f"{change.at:%Y-%m-%d %H:%M}  {change.action.removeprefix('environment.')} by {change.actor}")


def _facts(found: Environment) -> Iterator[tuple[str, str]]:
    rules, order, approval = found.rules, found.rules.order, found.rules.approval
    yield "environment", found.name
    yield "version", str(found.version)
    yield "description", rules.description
    yield "type", "production" if rules.production else "not production"
    yield "group", rules.group or ""
    if order.after:
        soak = f", well for {spoken(order.soak)}" if order.soak else ""
        yield "after", f"{order.need} of {', '.join(order.after)}{soak}"
    yield "from", allowed(rules.refs)
    yield "projects", ", ".join(rules.projects) or "all"
    yield "variables", ", ".join(rules.env)
    yield "secrets", ", ".join(f"{variable} from {secret}" for variable, secret in rules.secret_env.items())
    yield "target", rules.target_name or "what the step says"
    if approval:
        people = ", ".join((*approval.users, *(f"group {one}" for one in approval.groups))) or "anybody"
        yield "approval", f"{approval.count} of {people}" + (", not the author" if approval.not_author else "")
        yield "unless", approval.auto or ""
    for freeze in rules.freezes:
        yield "frozen", f"{freeze.name}: {freeze.in_words()}"
    if found.hold:
        yield "held", f"by {found.hold.by}" + (f": {found.hold.why}" if found.hold.why else "")


@app.command()
def add(
    name: Name,
    *,
    description: Description = None,
    production: Production = None,
    group: Group = None,
    after: After = None,
    need: Need = None,
    soak: Soak = None,
    branch: Branch = None,
    tag: Tag = None,
    pull_request: PullRequest = None,
    project: Project = None,
    env: Variable = None,
    secret_env: SecretVariable = None,
    target: Target = None,
    approvals: Approvals = None,
) -> None:
    """
    Make an environment. What has no option here, such as freezes, is written in a file for `apply`.

    Examples:

        penstock environment add staging --env LOG_LEVEL=debug
        penstock environment add production --after staging --soak 1h --branch main --approvals 2
    """
    given = dict(locals())
    values = _merged({"name": given.pop("name")}, _values(given))
    new: NamedRules = store.checked(values, where="environment add")
    with _changing() as connection:
        made = store.add(connection, new, system_account())
    typer.echo(f"{made.name} is made" + ("; it is production" if made.rules.production else ""))


@app.command()
def edit(
    name: Name,
    *,
    version: Version = None,
    description: Description = None,
    production: Production = None,
    group: Group = None,
    after: After = None,
    need: Need = None,
    soak: Soak = None,
    branch: Branch = None,
    tag: Tag = None,
    pull_request: PullRequest = None,
    project: Project = None,
    env: Variable = None,
    secret_env: SecretVariable = None,
    target: Target = None,
    approvals: Approvals = None,
) -> None:
    """
    Change an environment; what is not named stays. A list takes the place of the former; an empty text empties it.

    Examples:

        penstock environment edit production --version 3 --soak 2h
        penstock environment edit staging --env LOG_LEVEL=info --env LOG_LEVEL_SQL=
        penstock environment edit staging --branch ""
    """
    given = {key: value for key, value in locals().items() if key not in ("name", "version")}
    change = _values(given)
    if not change:
        raise InputError("there is nothing to change", remedy="see `penstock environment edit --help`")
    with _changing() as connection:
        before = store.get_environment(connection, name)
        values = _merged(before.rules.model_dump(mode="json"), change)
        rules: Rules = store.checked(values, where="environment edit", model=Rules)
        seen = before.version if version is None else version
        after_it = store.change(connection, name, rules, system_account(), version=seen)
    same = after_it.version == before.version
    typer.echo(f"{name} was so already" if same else f"{name} is changed; it is at version {after_it.version}")


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was named on the command line, by paths of the rules."""
    found: dict[str, Any] = {
        _LISTS.get(key, "projects"): [one for one in given[key] if one]
        for key in ("after", "branch", "tag", "pull_request", "project")
        if given[key] is not None
    }
    direct = {"description": "description", "production": "production", "need": "order.need", "soak": "order.soak"}
    found |= {path: given[key] for key, path in direct.items() if given[key] is not None}
    if given["group"] is not None:
        found["group"] = given["group"] or None
    if given["target"] is not None:
        found["target"] = {"name": given["target"]} if given["target"] else None
    if given["approvals"] is not None:
        found["approval" if given["approvals"] == 0 else "approval.count"] = given["approvals"] or None
    for key in ("env", "secret_env"):
        found |= {f"{key}.{name}": value for name, value in _pairs(given[key] or (), key)}
    return found


def _pairs(texts: list[str] | tuple[str, ...], key: str) -> Iterator[tuple[str, str | None]]:
    """`NAME=VALUE`; nothing after the = takes the variable away."""
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            option = f"--{key.replace('_', '-')}"
            raise InputError(f'"{text[:40]}" sets no variable', where=option, remedy="write NAME=VALUE")
        yield name, value or None


def _merged(values: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The values with those of the paths put in; None takes a variable away."""
    merged = dict(values)
    for path, value in change.items():
        head, _, rest = path.partition(".")
        if rest:
            inner = _merged(merged.get(head) or {}, {rest: value})
            merged[head] = {key: one for key, one in inner.items() if one is not None or head not in _MAPS}
        else:
            merged[head] = value
    return merged


_MAPS = ("env", "secret_env")


@app.command()
def remove(name: Name, version: Version = None) -> None:
    """
    Forget an environment; refused while a release is live there. Its history stays.

    Examples:

        penstock environment remove old-staging --version 4
    """
    with _changing() as connection:
        store.remove(connection, name, system_account(), version=version)
    typer.echo(f"{name} is removed")


@app.command("test")
def try_(name: Name) -> None:
    """
    Really connect to what an environment names, and look for its secrets. Exits with 3 when something is wrong.

    Examples:

        penstock environment test production
    """
    from penstock.environments.testing import try_environment

    settings = load_settings()
    with hosted_database(settings) as database:
        with database.connect() as connection:
            found = store.get_environment(connection, name)
        checks = try_environment(found, settings, database)
    wide = max(len(check.name) for check in checks)
    for check in checks:
        remedy = f"; {check.remedy}" if check.remedy else ""
        typer.echo(f"{'✔' if check.passed else '✘'} {check.name:<{wide}} {check.told}{remedy}")
    if not all(check.passed for check in checks):
        raise typer.Exit(PlatformError.exit_code)


@app.command()
def hold(name: Name, why: Why = "", version: Version = None) -> None:
    """
    Hold an environment: runs that would deploy there wait until it is let go.

    Examples:

        penstock environment hold production --why "the last release was rolled back"
    """
    with _changing() as connection:
        store.hold(connection, name, system_account(), why, version=version)
    typer.echo(f"{name} is held; let it go with `penstock environment release {name}`")


@app.command()
def release(name: Name, version: Version = None) -> None:
    """
    Let an environment go; of what waits for it, the newest of each service goes on.

    Examples:

        penstock environment release production
    """
    with _changing() as connection:
        store.let_go(connection, name, system_account(), version=version)
        waits = waiting.list_waits(connection, name)
    typer.echo(f"{name} is let go" + (f"; {len(waits)} deployments go on" if waits else ""))


@app.command()
def lift(
    name: Name,
    freeze: Annotated[str, typer.Argument(help="The freeze, by its name.")],
    why: Annotated[str, typer.Option(help="Why; it is kept.")],
) -> None:
    """
    Lift a freeze until it would end by itself; only for who is on its list.

    Examples:

        penstock environment lift production weekend --why "the checkout is down"
    """
    with _changing() as connection:
        made = store.lift(connection, name, freeze, system_account(), why=why)
    typer.echo(f"{freeze} is lifted until {made.until:%Y-%m-%d %H:%M} UTC")


@app.command()
def drop(
    name: Name, run: Annotated[str, typer.Argument(help="A run that waits; its first digits are enough.")]
) -> None:
    """
    Let a deployment that waits not be carried out.

    Examples:

        penstock environment drop production 19f2a3
    """
    with hosted_database(load_settings()) as database:
        for wait in waiting.drop(database, name, run, system_account()):
            typer.echo(f"{wait.step} of run {wait.run_id[:8]} is not deployed")


@app.command()
def export(names: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None) -> None:
    """
    Print environments as a file for `apply`.

    Examples:

        penstock environment export > environments.yaml
        penstock environment export staging production
    """
    with hosted_database(load_settings()) as database, database.connect() as connection:
        every = store.list_environments(connection)
        found = [store.get_environment(connection, name) for name in names] if names else every
    typer.echo(write_environments(found), nl=False)


@app.command()
def apply(file: Annotated[Path, typer.Argument(help="A YAML file; - reads standard input.")]) -> None:
    """
    Make and change environments until they are as a file says, all or none; those that it does not name stay.

    Examples:

        penstock environment apply environments.yaml
    """
    wanted = read_environments(_read(file), str(file))
    with _changing() as connection:
        done = apply_environments(connection, wanted, system_account())
    for one in done:
        typer.echo(f"{one.environment.name}: {one.outcome}, version {one.environment.version}")


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(SIZE_LIMIT + 1)
        with file.open("rb") as opened:
            return opened.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}", where=str(file), remedy="name a file") from error


@contextmanager
def _changing() -> Iterator[sa.Connection]:
    """A change, and its row in the audit, both or neither."""
    with hosted_database(load_settings()) as database, database.begin() as connection:
        yield connection
