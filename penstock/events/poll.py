"""Polling: compare a repository's heads with those that were accepted, and accept what is new."""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import PenstockError
from penstock.events.inbox import Push, accept, forget_head
from penstock.settings import Settings
from penstock.sources.git import RemoteHead, list_remote
from penstock.sources.projects import Project, known_heads, list_projects
from penstock.state.tables import polls

FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 1800.0


def poll_all(database: sa.Engine, settings: Settings, luck: Callable[[], float] = random.random) -> Iterator[str]:
    """
    Poll every polled project whose time has come. Yields: a line for each that cannot be reached.

    One that fails is asked less and less often, every half hour in the end. luck: 0 to 1, spreads those that fail
    alike.
    """
    resting = _resting(database)
    for project in list_projects(database):
        if not project.polled or project.name in resting:
            continue
        try:
            poll(database, settings, project)
        except PenstockError as error:
            _note(database, project, reason=str(error), luck=luck())
            yield f"{project.name}: {error}"
        else:
            _note(database, project)


def poll(database: sa.Engine, settings: Settings, project: Project) -> int:
    """Accept every branch and tag that moved, forget those that are gone. Returns: how many moved."""
    with database.connect() as connection:
        asked_at = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    known = known_heads(database, project.name)
    found = list_remote(project.remote(settings))
    # A repository without any ref is one that is being restored rather than one that lost them all.
    for ref in known.keys() - found.keys() if found else ():
        with database.begin() as connection:
            forget_head(connection, project.name, ref, known[ref], seen_until=asked_at)
    moved = [(ref, head.commit) for ref, head in found.items() if _has_moved(known.get(ref), head)]
    pushes = (Push(project.name, ref, commit, known.get(ref), source="poll") for ref, commit in moved)
    return sum(accept(database, push) is not None for push in pushes)


def _has_moved(known: str | None, head: RemoteHead) -> bool:
    """Some forges tell the object of an annotated tag, some its commit."""
    return known not in (head.commit, head.object)


def pause_s(failures: int, luck: float) -> float:
    """Seconds until a project that failed so often in a row is asked again: doubled each time, give or take a fifth."""
    pause = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16), LONGEST_PAUSE_S)
    return pause * (0.8 + 0.4 * luck)


def _resting(database: sa.Engine) -> frozenset[str]:
    wanted = sa.select(polls.c.project).where(polls.c.next_at > sa.func.now())
    with database.connect() as connection:
        return frozenset(connection.execute(wanted).scalars())


def _note(database: sa.Engine, project: Project, *, reason: str | None = None, luck: float = 0.0) -> None:
    with database.begin() as connection:
        former = connection.execute(sa.select(polls.c.failures).where(polls.c.project == project.name)).scalar()
        failures = (former or 0) + 1 if reason else 0
        next_at = sa.func.now() + timedelta(seconds=pause_s(failures, luck)) if reason else None
        values = {"failures": failures, "reason": reason, "next_at": next_at, "polled_at": sa.func.now()}
        row = insert(polls).values(project=project.name, **values)
        connection.execute(row.on_conflict_do_update(index_elements=["project"], set_=values))
