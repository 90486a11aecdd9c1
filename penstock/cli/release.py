"""`penstock release` and `penstock rollout`: what is live where, going back and forth, and rollouts on their way."""

import time
from collections.abc import Iterable
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.table import Table
from rich.text import Text

from penstock.cli.show import console as make_console
from penstock.deploy import operations
from penstock.deploy.operations import Order
from penstock.deploy.pins import Pin, list_pins
from penstock.deploy.plan import Service
from penstock.deploy.releases import Release, find_releases, live_release, release_by_number, releases_of
from penstock.deploy.rollouts import OPEN, Rollout, find_rollouts, get_rollout, open_rollouts
from penstock.errors import Cancelled, InputError, NotFoundError, PlatformError, StepFailure
from penstock.people.users import system_account
from penstock.settings import load_settings
from penstock.state.database import hosted_database
from penstock.state.rollout_tables import rollouts
from penstock.state.tables import releases

LOOK_EVERY_S = 0.2
UNANSWERED_S = 10.0
app = typer.Typer(no_args_is_help=True)
rollout_app = typer.Typer(no_args_is_help=True)

ServiceName = Annotated[str, typer.Argument(help="A service, as SERVICE or PROJECT/SERVICE.")]
Environment = Annotated[str | None, typer.Option("--environment", "-e", help="Where; needed if it is in several.")]
Why = Annotated[str, typer.Option(help="For the record.")]
Wait = Annotated[bool, typer.Option(help="Follow it to its end.")]
Own = Annotated[bool, typer.Option(help="By the release's own strategy, in place of the quickest way.")]
Id = Annotated[str, typer.Argument(help="A rollout; its first digits are enough.")]


@app.callback()
def _releases() -> None:
    """
    What is live where, and what was: look, go back, go forward, hold.

    Examples:

        penstock release list --environment production
        penstock release rollback shop --why "orders fail"
    """


@app.command("list")
def list_(
    environment: Environment = None,
    project: Annotated[str | None, typer.Option(help="Only this project's.")] = None,
    service: Annotated[str | None, typer.Option(help="Only this service's.")] = None,
    state: Annotated[str | None, typer.Option(help="pending, live, superseded or failed.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
) -> None:
    """
    List releases, newest first.

    Examples:

        penstock release list
        penstock release list --environment production --state live
    """
    if state not in (None, "pending", "live", "superseded", "failed"):
        remedy = "use pending, live, superseded or failed"
        raise InputError(f'no release is "{state}"', where="--state", remedy=remedy)
    given = {"environment": environment, "project": project, "service": service, "state": state}
    wanted = [releases.c[name] == value for name, value in given.items() if value is not None]
    with hosted_database(load_settings()) as database, database.connect() as connection:
        found, held = find_releases(connection, wanted, limit), list_pins(connection)
    make_console().print(_release_table(found, held))


@app.command()
def show(
    service: ServiceName,
    number: Annotated[int | None, typer.Argument(min=1, help="Default: what is live.")] = None,
    environment: Environment = None,
) -> None:
    """
    Show a release: what it is made of, how it runs, how it came.

    Examples:

        penstock release show shop
        penstock release show shop 7 --environment staging
    """
    with hosted_database(load_settings()) as database, database.connect() as connection:
        release = _release(connection, _service(connection, service, environment), number)
        came = find_rollouts(connection, conditions=[rollouts.c.release_id == release.id], limit=1)
        by_id = {one.id: one.number for one in releases_of(connection, release.service)}
    console = make_console()
    console.print(_facts(release, by_id))
    for rollout in came:
        console.print(_rollout_facts(rollout))


@app.command()
def diff(
    service: ServiceName,
    left: Annotated[int, typer.Argument(min=1, help="The number of a release.")],
    right: Annotated[int | None, typer.Argument(min=1, help="Another; default: what is live.")] = None,
    environment: Environment = None,
) -> None:
    """
    Show in what two releases differ.

    Examples:

        penstock release diff shop 7
        penstock release diff shop 7 9
    """
    with hosted_database(load_settings()) as database, database.connect() as connection:
        place = _service(connection, service, environment)
        one, other = release_by_number(connection, place, left), _release(connection, place, right)
    table = Table("", f"release {one.number}", f"release {other.number}", box=None, pad_edge=False)
    for name, (before, after) in operations.difference(one, other).items():
        table.add_row(name, before, after)
    make_console().print(table if table.row_count else "they differ in nothing but their number")


@app.command()
def rollback(
    service: ServiceName,
    to: Annotated[int | None, typer.Option(min=1, help="A release's number; default: the one before.")] = None,
    environment: Environment = None,
    why: Why = "",
    *,
    own_strategy: Own = False,
    pin: Annotated[bool, typer.Option(help="Let no run deploy the service until it is unpinned.")] = False,
    wait: Wait = True,
) -> None:
    """
    Make a former release live again, as a release with a number of its own.

    Examples:

        penstock release rollback shop --why "orders fail"
        penstock release rollback shop --to 7 --environment production --pin
    """
    settings = load_settings()
    with hosted_database(settings) as database:
        with database.connect() as connection:
            place = _service(connection, service, environment)
        rollout = operations.ask_rollback(
            database, settings, place, number=to, same=own_strategy, actor=system_account(), why=why
        )
        _asked(database, rollout, pin=pin, wait=wait, why=why)


@app.command("roll-forward")
def roll_forward(
    service: ServiceName,
    environment: Environment = None,
    why: Why = "",
    *,
    own_strategy: Own = False,
    wait: Wait = True,
) -> None:
    """
    Make the newest release live again that was before somebody went back.

    Examples:

        penstock release roll-forward shop --why "the database is mended"
    """
    settings = load_settings()
    with hosted_database(settings) as database:
        with database.connect() as connection:
            place = _service(connection, service, environment)
        rollout = operations.ask_roll_forward(
            database, settings, place, same=own_strategy, actor=system_account(), why=why
        )
        _asked(database, rollout, pin=False, wait=wait, why=why)


def _asked(database: sa.Engine, rollout: Rollout, *, pin: bool, wait: bool, why: str) -> None:
    if pin:
        operations.hold(database, rollout.service, actor=system_account(), why=why)
    typer.echo(f"rollout {rollout.id} of {rollout.service}")
    if wait:
        _follow(database, rollout.id)


@app.command()
def pin(service: ServiceName, environment: Environment = None, why: Why = "") -> None:
    """
    Hold a service at what is live: runs that deploy it fail, and say why. People still can.

    Examples:

        penstock release pin shop --why "until Monday"
    """
    with hosted_database(load_settings()) as database:
        with database.connect() as connection:
            place = _service(connection, service, environment)
        held = operations.hold(database, place, actor=system_account(), why=why)
    typer.echo(f"{held.service} is held at release {held.number}")


@app.command()
def unpin(service: ServiceName, environment: Environment = None, why: Why = "") -> None:
    """
    Let runs deploy a service again.

    Examples:

        penstock release unpin shop
    """
    with hosted_database(load_settings()) as database:
        with database.connect() as connection:
            place = _service(connection, service, environment)
        held = operations.let_go(database, place, actor=system_account(), why=why)
    typer.echo(f"runs deploy {held.service} again; it was pinned to {held}")


@rollout_app.callback()
def _rollouts() -> None:
    """
    Rollouts: watch how a release takes over. Hold it, hurry it, take it back.

    Examples:

        penstock rollout list
        penstock rollout pause 3f9a --why "the graph looks odd"
    """


@rollout_app.command("list")
def list_rollouts(
    every: Annotated[bool, typer.Option("--all", help="Those that are over too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
) -> None:
    """
    List rollouts, newest first.

    Examples:

        penstock rollout list
        penstock rollout list --all
    """
    wanted = [] if every else [rollouts.c.state.in_(OPEN)]
    with hosted_database(load_settings()) as database, database.connect() as connection:
        found = find_rollouts(connection, conditions=wanted, limit=limit)
    table = Table(
        "rollout", "service", "environment", "kind", "strategy", "state", "weight", "", box=None, pad_edge=False
    )
    for one in found:
        place = f"{one.service.project}/{one.service.name}"
        state = f"{one.state}, paused" if one.paused else one.state
        words = (one.id[:8], place, one.service.environment, one.kind, one.strategy.name, state, f"{one.weight} %")
        table.add_row(*words, one.trouble or one.why)
    make_console().print(table)


@rollout_app.command("show")
def show_rollout(rollout: Id) -> None:
    """
    Show a rollout: where it stands, and what happened on the way.

    Examples:

        penstock rollout show 3f9a
    """
    with hosted_database(load_settings()) as database:
        found = _find(database, rollout)
    console = make_console()
    console.print(_rollout_facts(found))
    for event in found.events:
        console.print(Text(f"{event.at:%H:%M:%S} {event.text}"))


@rollout_app.command()
def watch(rollout: Id) -> None:
    """
    Follow a rollout to its end; Ctrl-C ends the watching alone.

    Examples:

        penstock rollout watch 3f9a
    """
    with hosted_database(load_settings()) as database:
        _follow(database, _find(database, rollout).id)


@rollout_app.command()
def pause(rollout: Id, why: Why = "") -> None:
    """
    Hold a rollout where it is. If the new release fails, it is taken back all the same.

    Examples:

        penstock rollout pause 3f9a --why "the graph looks odd"
    """
    _tell(rollout, "pause", why, "is held at")


@rollout_app.command()
def resume(rollout: Id, why: Why = "") -> None:
    """
    Let a paused rollout go on.

    Examples:

        penstock rollout resume 3f9a
    """
    _tell(rollout, "resume", why, "goes on from")


@rollout_app.command()
def promote(rollout: Id, why: Why = "") -> None:
    """
    Have a rollout go on to its next stage now.

    Examples:

        penstock rollout promote 3f9a --why "seen in the shop"
    """
    _tell(rollout, "promote", why, "is promoted from")


@rollout_app.command()
def abort(rollout: Id, why: Why = "") -> None:
    """
    Go back to the former release.

    Examples:

        penstock rollout abort 3f9a --why "orders fail"
    """
    _tell(rollout, "abort", why, "goes back from")


def _tell(name: str, order: Order, why: str, words: str) -> None:
    with hosted_database(load_settings()) as database:
        told = operations.tell(database, _find(database, name).id, order, actor=system_account(), why=why)
    typer.echo(f"the rollout of {told.service} {words} {told.weight} % of the traffic")


def _follow(database: sa.Engine, rollout_id: str) -> None:
    """Print what happens. Raises: StepFailure when it failed; PlatformError when nobody begins."""
    shown, said, began_s = 0, "", time.monotonic()
    while True:
        with database.connect() as connection:
            found = get_rollout(connection, rollout_id)
            others = [one for one in open_rollouts(connection, found.service) if one.state == "going"]
        for event in found.events[shown:]:
            typer.echo(f"{event.at:%H:%M:%S} {event.text}")
        shown = len(found.events)
        if not found.is_open:
            break
        if found.state == "requested" and others and not said:
            typer.echo(said := "waits for the rollout that is under way")
        if found.state == "requested" and not others and time.monotonic() - began_s > UNANSWERED_S:
            raise PlatformError("nobody has begun", where=rollout_id, remedy="it is carried out once Penstock is up")
        _pause()
    if found.state == "failed":
        raise StepFailure(found.trouble or "the rollout failed", where=f"rollout {rollout_id}")
    typer.echo("done")


def _pause() -> None:
    try:
        time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt as error:
        raise Cancelled("watched no longer; the rollout goes on") from error


def _find(database: sa.Engine, prefix: str) -> Rollout:
    """Raises: NotFoundError when none begins so, or more than one."""
    condition = rollouts.c.id.startswith(prefix, autoescape=True)
    with database.connect() as connection:
        found = find_rollouts(connection, conditions=[condition], limit=2)
    if len(found) != 1:
        what = "no rollout begins" if not found else "more than one rollout begins"
        raise NotFoundError(f'{what} with "{prefix}"', remedy="list them with `penstock rollout list --all`")
    return found[0]


def _service(connection: sa.Connection, name: str, environment: str | None) -> Service:
    """Raises: NotFoundError; InputError when there are several."""
    project, _, service = name.rpartition("/")
    wanted = sa.select(releases.c.project, releases.c.environment, releases.c.service).distinct()
    wanted = wanted.where(releases.c.service == service)
    wanted = wanted.where(releases.c.project == project) if project else wanted
    wanted = wanted.where(releases.c.environment == environment) if environment else wanted
    rows = connection.execute(wanted.order_by(*wanted.selected_columns)).all()
    found = [Service(row.project, row.environment, row.service) for row in rows]
    if not found:
        raise NotFoundError(f'there is no service "{name}"', remedy="list them with `penstock release list`")
    if len(found) > 1:
        there = "; ".join(map(str, found[:5]))
        raise InputError(f'"{name}" may be {there}', remedy="write PROJECT/SERVICE and --environment")
    return found[0]


def _release(connection: sa.Connection, service: Service, number: int | None) -> Release:
    if number is not None:
        return release_by_number(connection, service, number)
    live = live_release(connection, service)
    if live is None:
        raise NotFoundError(f"nothing is live of {service}", remedy="name the number of a release")
    return live


def _release_table(found: Iterable[Release], held: Iterable[Pin]) -> Table:
    pinned = {(one.service, one.number) for one in held}
    words = ("service", "environment", "number", "state", "commit", "digest", "since", "")
    table = Table(*words, box=None, pad_edge=False)
    for one in found:
        place = f"{one.service.project}/{one.service.name}"
        since = one.live_at or one.created_at
        mark = "pinned" if (one.service, one.number) in pinned else one.reason or ""
        numbers = (str(one.number), one.state, one.commit[:12], one.digest.removeprefix("sha256:")[:12])
        table.add_row(place, one.service.environment, *numbers, f"{since:%Y-%m-%d %H:%M}", mark)
    return table


def _facts(release: Release, numbers: dict[str, int]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    configuration = release.configuration
    words = {
        "release": str(release),
        "state": release.state,
        "commit": release.commit,
        "digest": release.digest,
        "run": release.run_id,
        "strategy": f"{configuration.strategy.name}, {configuration.replicas} × {configuration.target}",
        "before it": str(numbers.get(release.previous or "", "")),
        "takes up": str(numbers.get(release.rollback_of or "", "")),
        "reason": release.reason or "",
    }
    for name, value in words.items():
        if value:
            table.add_row(name, value)
    return table


def _rollout_facts(rollout: Rollout) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    words = {
        "rollout": rollout.id,
        "kind": f"{rollout.kind}, {rollout.strategy.name}",
        "state": f"{rollout.state}, paused" if rollout.paused else rollout.state,
        "traffic": f"{rollout.weight} % at the new release",
        "asked by": " ".join((rollout.actor, rollout.asked_why)).strip(),
        "now": rollout.why,
        "last probe": rollout.probe,
        "trouble": rollout.trouble or "",
    }
    for name, value in words.items():
        if value:
            table.add_row(name, value)
    return table
