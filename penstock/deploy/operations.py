"""
What people do to releases by hand: go back, go forward, hold, and what they say to a rollout on its way.

Each is a row that says who and why, audited in the same transaction. The platform carries it out; it outlives a
restart of everything.
"""

from typing import Literal

import msgspec
import sqlalchemy as sa

from penstock.deploy import pins, rollouts
from penstock.deploy.pins import Pin
from penstock.deploy.plan import Service
from penstock.deploy.releases import Release, live_release, release_by_number, releases_of
from penstock.deploy.rollouts import Kind, Rollout, get_rollout
from penstock.deploy.sources import check_kept
from penstock.deploy.strategies import Settings as StrategySettings
from penstock.errors import ConflictError, NotFoundError
from penstock.people.audit import record_in
from penstock.settings import Settings

Order = Literal["pause", "resume", "promote", "abort"]
_LIST = "see `penstock release list`"


def ask_rollback(
    database: sa.Engine, settings: Settings, service: Service, *, number: int | None, same: bool, actor: str, why: str
) -> Rollout:
    """
    Have a former release made live again, by default the one before what is live.

    number: of the release that is taken up again. same: by the strategy that the release itself has; otherwise as
    quickly as it can be: all instances beside the present ones, then the switch.
    Raises: NotFoundError; ConflictError when it cannot be gone back to.
    """
    with database.begin() as connection:
        live = _live(connection, service)
        source = release_by_number(connection, service, number) if number else _before(connection, live)
        return _ask(connection, settings, live, source, "rollback", same=same, actor=actor, why=why)


def ask_roll_forward(
    database: sa.Engine, settings: Settings, service: Service, *, same: bool, actor: str, why: str
) -> Rollout:
    """
    Have the newest release made live again that was before somebody went back.

    Raises: NotFoundError; ConflictError when nothing newer than what is live was ever live.
    """
    with database.begin() as connection:
        live = _live(connection, service)
        here = _origin(connection, live).number
        newer = [one for one in releases_of(connection, service) if _can_return(one) and one.number > here]
        newest = next((one for one in newer if one.rollback_of is None), None)
        if newest is None:
            raise ConflictError("nothing newer than what is live was ever live", where=str(service), remedy=_LIST)
        return _ask(connection, settings, live, newest, "roll_forward", same=same, actor=actor, why=why)


def _live(connection: sa.Connection, service: Service) -> Release:
    live = live_release(connection, service)
    if live is None:
        raise NotFoundError(f"nothing is live of {service}", remedy=_LIST)
    return live


def _can_return(release: Release) -> bool:
    return release.state == "superseded" and release.live_at is not None


def _origin(connection: sa.Connection, release: Release) -> Release:
    """The release that was built, behind one or several that took it up again."""
    known = {one.id: one for one in releases_of(connection, release.service)}
    while release.rollback_of in known:
        release = known[release.rollback_of]
    return release


def _before(connection: sa.Connection, live: Release) -> Release:
    here = _origin(connection, live).number
    former = [one for one in releases_of(connection, live.service) if _can_return(one) and one.rollback_of is None]
    found = next((one for one in former if one.number < here), None)
    if found is None:
        raise ConflictError("there is no former release to go back to", where=str(live.service), remedy=_LIST)
    return found


def _ask(
    connection: sa.Connection,
    settings: Settings,
    live: Release,
    source: Release,
    kind: Kind,
    *,
    same: bool,
    actor: str,
    why: str,
) -> Rollout:
    if source.id == live.id:
        raise ConflictError("it is live", where=str(source), remedy="name another")
    if not _can_return(source):
        raise ConflictError(f"it is {source.state}, and was not in use before", where=str(source), remedy=_LIST)
    check_kept(connection, settings, source)
    rollout = rollouts.open_rollout(
        connection,
        live.service,
        source.configuration.strategy if same else _quickest(live, source),
        kind=kind,
        source_id=source.id,
        actor=actor,
        why=why,
    )
    told = {"to": source.number, "from": live.number, "rollout": rollout.id, "why": why}
    record_in(connection, actor, f"release.{kind}", str(live.service), **told)
    return rollout


def _quickest(live: Release, source: Release) -> StrategySettings:
    """Beside the present one, unless one of both cannot run twice."""
    if "recreate" in (live.configuration.strategy.name, source.configuration.strategy.name):
        return StrategySettings(name="recreate")
    return StrategySettings(name="blue_green")


def hold(database: sa.Engine, service: Service, *, actor: str, why: str) -> Pin:
    """Hold the service at what is live: no run deploys it. Raises: NotFoundError, ConflictError."""
    with database.begin() as connection:
        number = _live(connection, service).number
        made = pins.pin(connection, service, number, actor, why)
        record_in(connection, actor, "release.pin", str(service), number=number, why=why)
        return made


def let_go(database: sa.Engine, service: Service, *, actor: str, why: str) -> Pin:
    """Runs deploy the service again. Raises: NotFoundError when it was not held."""
    with database.begin() as connection:
        held = pins.unpin(connection, service)
        record_in(connection, actor, "release.unpin", str(service), number=held.number, why=why)
        return held


def tell(database: sa.Engine, rollout_id: str, order: Order, *, actor: str, why: str) -> Rollout:
    """
    Say something to a rollout on its way. It obeys at its next look, within a second.

    pause holds it where it is; what fails is undone all the same. promote goes on to its next stage, abort back.
    Raises: NotFoundError; ConflictError when it is over.
    """
    with database.begin() as connection:
        rollout = get_rollout(connection, rollout_id)
        if order == "abort" and rollouts.withdraw(connection, rollout, _by(order, actor, why)):
            changed = get_rollout(connection, rollout_id)
        elif order in ("promote", "abort"):
            changed = rollouts.give_command(connection, rollout, order, _by("", actor, why))
        else:
            changed = rollouts.set_paused(connection, rollout, order == "pause")
        rollouts.note(connection, rollout, _by(order, actor, why))
        record_in(connection, actor, f"rollout.{order}", rollout_id, service=str(rollout.service), why=why)
        return changed


def _by(order: str, actor: str, why: str) -> str:
    """`pause by alice: looks odd`."""
    return f"{order} by {actor}".strip() + (f": {why}" if why else "")


def difference(one: Release, other: Release) -> dict[str, tuple[str, str]]:
    """Where two releases differ: field → how it is in each. Variables are named, secrets only by their names."""
    left, right = _flat(one), _flat(other)
    names = sorted(left.keys() | right.keys())
    return {name: (left.get(name, ""), right.get(name, "")) for name in names if left.get(name) != right.get(name)}


def _flat(release: Release) -> dict[str, str]:
    own = {name: str(getattr(release, name)) for name in ("commit", "digest", "graph_hash", "run_id")}
    return {**own, **_leaves("", msgspec.to_builtins(release.configuration))}


def _leaves(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {name: str(value)}
    found: dict[str, str] = {}
    for key, inner in value.items():
        found |= _leaves(f"{name}.{key}" if name else str(key), inner)
    return found
