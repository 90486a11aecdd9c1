"""
What was approved goes on: the run that waited is left, and another takes over what it had not done.

Dagster cannot take up a run that has ended, and a run that waits holds no process, so it has ended: what is left runs
under a new identifier, with everything that passed taken over. The request names the run that went on, and the run that
waited names it too.
"""

import logging
from datetime import datetime, timedelta

import attrs
import sqlalchemy as sa

from penstock.errors import NotFoundError, PlatformError
from penstock.pipeline import records
from penstock.pipeline.approval_rows import OPEN
from penstock.pipeline.approvals import expire
from penstock.pipeline.log import utc_now
from penstock.platform.dagster import DagsterClient
from penstock.rounds import Rounds
from penstock.state.people_tables import approval_requests
from penstock.state.tables import runs

_log = logging.getLogger(__name__)
CLAIMED_FOR = timedelta(seconds=40)
_PARENT = "dagster/parent_run_id"
_BY_HAND = "by hand"
_table = approval_requests


def go_on(database: sa.Engine, dagster: DagsterClient, request_id: int, now: datetime) -> str | None:
    """
    Run what is left after an approval, once, whoever asks how often.

    Returns: the run that goes on; None when there is nothing to do, or not yet: the run is not over, somebody else is
    at it, or Dagster is away. Raises: NotFoundError for a run that no platform runs.
    """
    run_id = _claim(database, request_id, now)
    if run_id is None:
        return _went_on_in(database, request_id)
    try:
        again = take_up(dagster, run_id)
    except NotFoundError:
        _note(database, request_id, _BY_HAND)
        raise
    except PlatformError as error:
        _log.warning("run %s was approved and cannot go on yet: %s", run_id, error)
        with database.begin() as connection:
            connection.execute(_change(request_id).values(claimed_until=None))
        return None
    _note(database, request_id, again)
    _hand_over(database, run_id, again)
    return again


def _hand_over(database: sa.Engine, run_id: str, again: str) -> None:
    """The new run is on record before its process begins, and what else the former asked is asked by it."""
    former = records.load_run(database, run_id)
    info = attrs.evolve(former.info, id=again, trigger="rerun")
    records.create_run(database, info, records.load_graph(database, run_id))
    open_too = (_table.c.run_id == run_id, _table.c.state.in_(OPEN), _table.c.used_at.is_(None))
    with database.begin() as connection:
        connection.execute(sa.update(_table).where(*open_too).values(run_id=again))
    records.leave_waiting(database, run_id, again)


def is_under_way(database: sa.Engine, request_id: int, now: datetime) -> bool:
    """Whether somebody is just about to let it go on."""
    with database.connect() as connection:
        claimed = sa.select(_table.c.id).where(_table.c.id == request_id, _table.c.claimed_until > now)
        return connection.execute(claimed.where(_table.c.went_on_in.is_(None))).first() is not None


def _claim(database: sa.Engine, request_id: int, now: datetime) -> str | None:
    waits = sa.exists(sa.select(runs.c.id).where(runs.c.id == _table.c.run_id, runs.c.state == "waiting"))
    mine = _change(request_id).where(_ready(now), waits)
    with database.begin() as connection:
        return connection.execute(mine.values(claimed_until=now + CLAIMED_FOR).returning(_table.c.run_id)).scalar()


def _ready(now: datetime) -> sa.ColumnElement[bool]:
    free = sa.or_(_table.c.claimed_until.is_(None), _table.c.claimed_until <= now)
    return sa.and_(_table.c.state == "approved", _table.c.used_at.is_(None), _table.c.went_on_in.is_(None), free)


def take_up(dagster: DagsterClient, run_id: str) -> str:
    """
    The run that goes on from one that waited: begun already, by somebody who died before it was on record, or now.

    Raises: NotFoundError for a run that no platform runs; PlatformError when Dagster is away.
    """
    begun = next(iter(dagster.runs_with_tag(_PARENT, run_id)), None)
    return begun or dagster.rerun(run_id)


def _note(database: sa.Engine, request_id: int, run_id: str) -> None:
    with database.begin() as connection:
        connection.execute(_change(request_id).values(went_on_in=run_id))


def _went_on_in(database: sa.Engine, request_id: int) -> str | None:
    with database.connect() as connection:
        found = connection.execute(sa.select(_table.c.went_on_in).where(_table.c.id == request_id)).scalar()
    return None if found == _BY_HAND else found


def _change(request_id: int) -> sa.Update:
    return sa.update(_table).where(_table.c.id == request_id)


def look(database: sa.Engine, dagster: DagsterClient, now: datetime) -> int:
    """End what has expired, and let go on what was approved. Returns: how much of it was done."""
    waits = sa.exists(sa.select(runs.c.id).where(runs.c.id == _table.c.run_id, runs.c.state == "waiting"))
    with database.connect() as connection:
        ready = connection.execute(sa.select(_table.c.id).where(_ready(now), waits)).scalars().all()
    done = expire(database, now)
    for request_id in ready:
        try:
            done += go_on(database, dagster, request_id, now) is not None
        except NotFoundError:
            _log.info("request %s was approved; its run was started by hand, and goes on by hand", request_id)
    return done


def continuer(database: sa.Engine, dagster: DagsterClient) -> Rounds:
    """A thread that looks again and again: nothing that was approved is forgotten, whoever dies."""
    return Rounds("approvals", lambda: look(database, dagster, utc_now()), every_s=2.0)
