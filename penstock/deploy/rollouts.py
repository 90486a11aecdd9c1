"""Rollouts as rows: how a release takes over, what was asked of that on the way, and what became of it."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import attrs
import msgspec
import sqlalchemy as sa

from penstock.deploy.plan import Service
from penstock.deploy.releases import of_service
from penstock.deploy.strategies import Command, Progress
from penstock.deploy.strategies import Settings as StrategySettings
from penstock.errors import ConflictError, NotFoundError
from penstock.state.rollout_tables import rollouts
from penstock.state.tables import runs

Kind = Literal["deployment", "rollback", "roll_forward"]
State = Literal["requested", "going", "succeeded", "failed"]
OPEN: tuple[State, ...] = ("requested", "going")
CHANNEL = "penstock_rollouts"


class Event(msgspec.Struct, frozen=True):
    """Something that happened on the way, in one line."""

    at: datetime
    text: str


@attrs.frozen
class Rollout:
    """
    One rollout.

    kind: `deployment` is of a run, whose step carries it out; the others somebody asked for, and the platform does.
    release_id: what takes over; None until it has begun. source_id: the release that a rollback takes up again.
    former_id: what it takes over from.
    clock_s: seconds that it was driven, without pauses. weight: per cent of the traffic that the release has.
    verified, smoked: what the questions before and after the switch said; None while they were not asked.
    live_s: when, by its clock, all traffic went to the release.
    command: what somebody asked for and was not obeyed yet. why: what the strategy says. trouble: why it failed.
    """

    id: str
    service: Service
    kind: Kind
    release_id: str | None
    source_id: str | None
    former_id: str | None
    strategy: StrategySettings
    actor: str
    asked_why: str
    state: State
    progress: Progress
    clock_s: float
    weight: int
    verified: bool | None
    smoked: bool | None
    live_s: float | None
    paused: bool
    command: Command | None
    command_why: str
    why: str
    probe: str
    trouble: str | None
    events: tuple[Event, ...] = attrs.field(repr=False)
    created_at: datetime
    began_at: datetime | None
    seen_at: datetime | None
    ended_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether something is still to be done."""
        return self.state in OPEN


def open_rollout(
    connection: sa.Connection,
    service: Service,
    strategy: StrategySettings,
    *,
    kind: Kind,
    release_id: str | None = None,
    former_id: str | None = None,
    source_id: str | None = None,
    actor: str = "",
    why: str = "",
) -> Rollout:
    """A rollout that begins now, of a release; or one that is asked for, of a source. The caller says who and why."""
    begun = release_id is not None
    row = connection.execute(
        sa.insert(rollouts)
        .values(
            id=uuid.uuid4().hex[:16],
            environment=service.environment,
            project=service.project,
            service=service.name,
            kind=kind,
            release_id=release_id,
            former_id=former_id,
            source_id=source_id,
            strategy=msgspec.to_builtins(strategy),
            actor=actor,
            asked_why=why,
            state="going" if begun else "requested",
            began_at=sa.func.now() if begun else None,
            seen_at=sa.func.now() if begun else None,
        )
        .returning(*rollouts.c)
    ).one()
    _ring(connection)
    return _rollout(row)


def begin(connection: sa.Connection, rollout_id: str, release_id: str, former_id: str | None) -> Rollout:
    """What was asked for begins, with a release of its own."""
    values = {"release_id": release_id, "former_id": former_id, "state": "going"}
    change = sa.update(rollouts).where(rollouts.c.id == rollout_id, rollouts.c.state == "requested")
    times = {"began_at": sa.func.now(), "seen_at": sa.func.now()}
    return _rollout(connection.execute(change.values(**values, **times).returning(*rollouts.c)).one())


def get_rollout(connection: sa.Connection, rollout_id: str) -> Rollout:
    """Raises: NotFoundError."""
    row = connection.execute(sa.select(rollouts).where(rollouts.c.id == rollout_id)).first()
    if row is None:
        raise NotFoundError(f'there is no rollout "{rollout_id}"', remedy="list them with `penstock rollout list`")
    return _rollout(row)


def rollout_of(connection: sa.Connection, release_id: str) -> Rollout | None:
    """That by which the release came, or comes, to its traffic; None for one of an older Penstock."""
    row = connection.execute(sa.select(rollouts).where(rollouts.c.release_id == release_id)).first()
    return None if row is None else _rollout(row)


def open_rollouts(connection: sa.Connection, service: Service | None = None) -> list[Rollout]:
    """All that are not over, those that have begun first, the oldest first."""
    query = sa.select(rollouts).where(rollouts.c.state.in_(OPEN))
    if service is not None:
        query = query.where(of_service(rollouts, service))
    order = (sa.case((rollouts.c.state == "going", 0), else_=1), rollouts.c.created_at, rollouts.c.id)
    return [_rollout(row) for row in connection.execute(query.order_by(*order))]


def save(connection: sa.Connection, rollout: Rollout, told: Sequence[str] = ()) -> None:
    """Write what the driver changed, and more events. What others write is left alone: pauses and commands."""
    names = ("clock_s", "weight", "verified", "smoked", "live_s", "why", "probe", "trouble")
    values: dict[str, Any] = {name: getattr(rollout, name) for name in names}
    values |= {"progress": msgspec.to_builtins(rollout.progress), "seen_at": sa.func.now()}
    if told:
        values["events"] = _more_events(told)
    connection.execute(sa.update(rollouts).where(rollouts.c.id == rollout.id).values(**values))


def _more_events(told: Sequence[str]) -> sa.ColumnElement[Any]:
    more = msgspec.to_builtins([Event(datetime.now(UTC), text) for text in told])
    return rollouts.c.events.op("||")(sa.cast(more, rollouts.c.events.type))


def obeyed(connection: sa.Connection, rollout: Rollout) -> None:
    """The command was carried out, and is asked for no more."""
    change = sa.update(rollouts).where(rollouts.c.id == rollout.id, rollouts.c.command == rollout.command)
    connection.execute(change.values(command=None))


def end(connection: sa.Connection, rollout_id: str, state: State, trouble: str | None) -> None:
    """It is over."""
    change = sa.update(rollouts).where(rollouts.c.id == rollout_id, rollouts.c.state.in_(OPEN))
    connection.execute(change.values(state=state, trouble=trouble, paused=False, command=None, ended_at=sa.func.now()))


def tell_warehouse(connection: sa.Connection, run_id: str) -> None:
    """The run by which the release was made is brought there once more, with the newest releases and rollouts."""
    connection.execute(sa.update(runs).where(runs.c.id == run_id).values(ingested_at=None))


def set_paused(connection: sa.Connection, rollout: Rollout, paused: bool) -> Rollout:
    """Hold it where it is, or let it go on. Raises: ConflictError when it is over."""
    return _change(connection, rollout, {"paused": paused})


def give_command(connection: sa.Connection, rollout: Rollout, command: Command, why: str) -> Rollout:
    """
    Have the driver obey; one that is paused goes on for it.

    Raises: ConflictError when it is over, or has not begun.
    """
    if rollout.state == "requested" and command == "promote":
        raise ConflictError("the rollout has not begun", where=rollout.id, remedy="wait until it has")
    return _change(connection, rollout, {"command": command, "command_why": why, "paused": False})


def note(connection: sa.Connection, rollout: Rollout, text: str) -> None:
    """One more event."""
    connection.execute(sa.update(rollouts).where(rollouts.c.id == rollout.id).values(events=_more_events([text])))


def _change(connection: sa.Connection, rollout: Rollout, values: Mapping[str, Any]) -> Rollout:
    change = sa.update(rollouts).where(rollouts.c.id == rollout.id, rollouts.c.state.in_(OPEN))
    row = connection.execute(change.values(**values).returning(*rollouts.c)).first()
    if row is None:
        raise ConflictError("the rollout is over", where=rollout.id, remedy="see `penstock rollout show`")
    _ring(connection)
    return _rollout(row)


def withdraw(connection: sa.Connection, rollout: Rollout, trouble: str) -> bool:
    """Take back what was asked for and has not begun. Returns: False when it has begun meanwhile."""
    change = sa.update(rollouts).where(rollouts.c.id == rollout.id, rollouts.c.state == "requested")
    done = connection.execute(change.values(state="failed", trouble=trouble, ended_at=sa.func.now()))
    return done.rowcount == 1


def find_rollouts(
    connection: sa.Connection, *, conditions: Sequence[sa.ColumnElement[bool]] = (), limit: int = 50
) -> list[Rollout]:
    """The newest that meet all conditions."""
    order = (rollouts.c.created_at.desc(), rollouts.c.id.desc())
    return [
        _rollout(row)
        for row in connection.execute(sa.select(rollouts).where(*conditions).order_by(*order).limit(limit))
    ]


def _ring(connection: sa.Connection) -> None:
    """Wakes whoever drives when the transaction commits."""
    connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))


def _rollout(row: sa.Row[tuple[object, ...]]) -> Rollout:
    values = dict(row._mapping)
    service = Service(values.pop("project"), values.pop("environment"), values.pop("service"))
    strategy = msgspec.convert(values.pop("strategy"), StrategySettings)
    progress = msgspec.convert(values.pop("progress"), Progress)
    events = msgspec.convert(values.pop("events"), tuple[Event, ...])
    return Rollout(service=service, strategy=strategy, progress=progress, events=events, **values)
