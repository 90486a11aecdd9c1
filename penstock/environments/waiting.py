"""
Deployments that wait for a time: for the end of a freeze, for a soak, for an environment to be let go.

A wait is a row, its run has ended and holds nothing. When the rules let it through, what is left of the run goes on
in a new one, as after an approval. Of the deployments of one service that wait, only the one that was asked for last
goes on: the others would bring back what is older.
"""

import logging
from datetime import datetime, timedelta

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.environments.facts import Deploying, facts_of
from penstock.environments.rules import Admission, judge
from penstock.environments.store import find_environment
from penstock.errors import NotFoundError, PlatformError
from penstock.people.audit import record_in
from penstock.pipeline import records
from penstock.pipeline.approvals import shut
from penstock.pipeline.continuing import take_up
from penstock.pipeline.log import utc_now
from penstock.platform.dagster import DagsterClient
from penstock.rounds import Rounds
from penstock.state.environment_tables import deployment_waits, environments
from penstock.state.tables import runs, steps
from penstock.steps.context import RunInfo

_log = logging.getLogger(__name__)
CLAIMED_FOR = timedelta(seconds=40)
AGAIN_AFTER = timedelta(seconds=5)
BY_HAND, NOWHERE = "by hand", "nowhere"
_table = deployment_waits


@attrs.frozen
class Wait:
    """One deployment that waits. look_at: when the rules are asked again; None: when the environment is let go."""

    run_id: str
    step: str
    environment: str
    project: str
    service: str
    target: str
    reason: str
    since: datetime
    look_at: datetime | None


def begin_waiting(database: sa.Engine, what: Deploying, step: str, admission: Admission) -> None:
    """Wait, in the place of what waits of the same service."""
    row = {
        **{"run_id": what.info.id, "step": step, "environment": what.environment, "project": what.info.project},
        **{"service": what.service, "target": what.target, "reason": str(admission), "look_at": admission.at},
    }
    with database.begin() as connection:
        _take_place(connection, what)
        put = insert(_table).values(**row, went_on_in=None)
        again = put.on_conflict_do_update(index_elements=["run_id", "step"], set_={**row, "went_on_in": None})
        connection.execute(again)


def take_place(database: sa.Engine, what: Deploying) -> None:
    """A deployment begins: what waits of the same service would bring back what is older."""
    with database.begin() as connection:
        _take_place(connection, what)


def _take_place(connection: sa.Connection, what: Deploying) -> None:
    # Of two that come at the same time one is the second, and sees the first.
    connection.execute(sa.select(environments.c.name).where(environments.c.name == what.environment).with_for_update())
    mine = (
        _table.c.environment == what.environment,
        _table.c.project == what.info.project,
        _table.c.service == what.service,
    )
    others = (*mine, _table.c.run_id != what.info.id, _table.c.went_on_in.is_(None))
    left = sa.update(_table).where(*others).values(went_on_in=what.info.id).returning(_table.c.run_id, _table.c.step)
    for row in connection.execute(left).all():
        _leave(connection, row.run_id, row.step, what.info)


def _leave(connection: sa.Connection, run_id: str, step: str, newer: RunInfo) -> None:
    """A run waits at a step no more; when it waits at none, it is over."""
    same = sa.select(runs.c.commit == newer.commit).where(runs.c.id == run_id)
    if connection.execute(same).scalar():
        _close(connection, run_id, step, "skipped", f"goes on in run {newer.id[:8]}")
    else:
        why = f"run {newer.id[:8]} of commit {newer.partition} is deployed in its place"
        _close(connection, run_id, step, "cancelled", why)


def _close(connection: sa.Connection, run_id: str, step: str, state: str, reason: str) -> bool:
    waits = (steps.c.run_id == run_id, steps.c.state == "waiting")
    closed = sa.update(steps).where(*waits, steps.c.step == step).values(state=state, reason=reason)
    done = connection.execute(closed).rowcount
    nowhere = ~sa.exists(sa.select(steps.c.step).where(*waits))
    over = sa.update(runs).where(runs.c.id == run_id, runs.c.state == "waiting", nowhere)
    connection.execute(over.values(state=state, reason=f"{step}: {reason}", ingested_at=None))
    return bool(done)


def list_waits(connection: sa.Connection, environment: str | None = None) -> tuple[Wait, ...]:
    """What waits, the oldest first."""
    wanted = sa.select(_table).where(_table.c.went_on_in.is_(None)).order_by(_table.c.since, _table.c.run_id)
    wanted = wanted if environment is None else wanted.where(_table.c.environment == environment)
    names = [field.name for field in attrs.fields(Wait)]
    return tuple(Wait(**{name: row[name] for name in names}) for row in connection.execute(wanted).mappings())


def drop(database: sa.Engine, environment: str, run_id: str, by: str) -> tuple[Wait, ...]:
    """
    A deployment waits no more, and is not carried out.

    run_id: or its beginning. Raises: NotFoundError when it does not wait there.
    """
    with database.begin() as connection:
        found = [one for one in list_waits(connection, environment) if one.run_id.startswith(run_id)]
        if not found or not run_id:
            what = f'no deployment of a run "{run_id[:40]}" waits for {environment[:80]}'
            raise NotFoundError(what, remedy=f"see `penstock environment show {environment[:80]}`")
        for one in found:
            same = (_table.c.run_id == one.run_id, _table.c.step == one.step)
            connection.execute(sa.update(_table).where(*same).values(went_on_in=NOWHERE))
            _close(connection, one.run_id, one.step, "cancelled", f"cancelled by {by}")
            record_in(connection, by, "environment.drop", environment, run=one.run_id, step=one.step)
    return tuple(found)


def look(database: sa.Engine, dagster: DagsterClient, now: datetime) -> int:
    """Let go on what need not wait any more. Returns: how much went on, or will not."""
    done = _close_leftovers(database)
    for wait in _due(database, now):
        done += _look_at(database, dagster, wait, now)
    return done


def _due(database: sa.Engine, now: datetime) -> tuple[Wait, ...]:
    """Those whose runs have come to their end: before that, what else they do goes on."""
    ended = sa.exists(sa.select(runs.c.id).where(runs.c.id == _table.c.run_id, runs.c.state == "waiting"))
    wanted = sa.select(_table).where(_table.c.went_on_in.is_(None), _table.c.look_at <= now, ended)
    names = [field.name for field in attrs.fields(Wait)]
    with database.connect() as connection:
        rows = connection.execute(wanted.order_by(_table.c.look_at)).mappings().all()
    return tuple(Wait(**{name: row[name] for name in names}) for row in rows)


def _look_at(database: sa.Engine, dagster: DagsterClient, wait: Wait, now: datetime) -> bool:
    with database.begin() as connection:
        if not _claim(connection, wait, now):
            return False
        admission = _judged(connection, wait, now)
        if admission is not None and admission.verdict == "later":
            _wait_on(connection, wait, admission)
            return False
        if admission is not None and admission.verdict == "refused":
            connection.execute(_change(wait).values(went_on_in=NOWHERE))
            return shut(connection, wait.run_id, wait.step, str(admission))
    return _go_on(database, dagster, wait, now)


def _judged(connection: sa.Connection, wait: Wait, now: datetime) -> Admission | None:
    """None for an environment that is not there any more: the run that goes on finds that out."""
    environment = find_environment(connection, wait.environment)
    if environment is None:
        return None
    row = connection.execute(sa.select(runs).where(runs.c.id == wait.run_id)).mappings().one()
    info = RunInfo(**{field.name: row[field.name] for field in attrs.fields(RunInfo)})
    what = Deploying(info, wait.environment, wait.service, wait.target)
    return judge(environment, facts_of(connection, environment, what, now, approved=True), now)


def _claim(connection: sa.Connection, wait: Wait, now: datetime) -> bool:
    """Whoever is first has it for a while; after a `kill -9` somebody else has."""
    free = _change(wait).where(_table.c.went_on_in.is_(None), _table.c.look_at <= now)
    return bool(connection.execute(free.values(look_at=now + CLAIMED_FOR)).rowcount)


def _wait_on(connection: sa.Connection, wait: Wait, admission: Admission) -> None:
    connection.execute(_change(wait).values(look_at=admission.at, reason=str(admission)))
    of_step = (steps.c.run_id == wait.run_id, steps.c.step == wait.step, steps.c.state == "waiting")
    connection.execute(sa.update(steps).where(*of_step).values(reason=in_words(admission)))


def _go_on(database: sa.Engine, dagster: DagsterClient, wait: Wait, now: datetime) -> bool:
    try:
        again = take_up(dagster, wait.run_id)
    except NotFoundError:
        _log.info("run %s could go on; it was started by hand, and goes on by hand", wait.run_id)
        _note(database, wait, BY_HAND)
        return False
    except PlatformError as error:
        _log.warning("run %s cannot go on yet: %s", wait.run_id, error)
        with database.begin() as connection:
            connection.execute(_change(wait).values(look_at=now + AGAIN_AFTER))
        return False
    _note(database, wait, again)
    records.leave_waiting(database, wait.run_id, again)
    return True


def _note(database: sa.Engine, wait: Wait, run_id: str) -> None:
    with database.begin() as connection:
        connection.execute(_change(wait).values(went_on_in=run_id))


def _change(wait: Wait) -> sa.Update:
    return sa.update(_table).where(_table.c.run_id == wait.run_id, _table.c.step == wait.step)


def _close_leftovers(database: sa.Engine) -> int:
    """What was left while its step was just ending, or by somebody who died in between."""
    waits = sa.and_(steps.c.run_id == _table.c.run_id, steps.c.step == _table.c.step, steps.c.state == "waiting")
    wanted = (
        sa.select(_table.c.run_id, _table.c.step, _table.c.went_on_in)
        .join(steps, waits)
        .join(runs, runs.c.id == _table.c.run_id)
        .where(_table.c.went_on_in.is_not(None), _table.c.went_on_in != BY_HAND, runs.c.state == "waiting")
    )
    with database.begin() as connection:
        return sum(_close_leftover(connection, *row) for row in connection.execute(wanted).all())


def _close_leftover(connection: sa.Connection, run_id: str, step: str, went_on_in: str) -> bool:
    row = connection.execute(sa.select(runs).where(runs.c.id == went_on_in)).mappings().first()
    if went_on_in == NOWHERE:
        return _close(connection, run_id, step, "cancelled", "cancelled")
    if row is None:
        return _close(connection, run_id, step, "skipped", f"goes on in run {went_on_in[:8]}")
    newer = RunInfo(**{field.name: row[field.name] for field in attrs.fields(RunInfo)})
    _leave(connection, run_id, step, newer)
    return True


def in_words(admission: Admission) -> str:
    """Until when it waits, and why."""
    until = f"waits until {admission.at:%Y-%m-%d %H:%M} UTC" if admission.at else "waits until it is let go"
    return f"{until}: {admission}"


def watcher(database: sa.Engine, dagster: DagsterClient) -> Rounds:
    """A thread that looks again and again: no time that comes is missed, whoever dies."""
    return Rounds("waits", lambda: look(database, dagster, utc_now()), every_s=2.0)
