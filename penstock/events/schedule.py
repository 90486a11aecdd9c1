"""Runs that the clock starts: `on: schedule` of the newest commit of a project's default branch."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa

from penstock.errors import PenstockError
from penstock.events import inbox
from penstock.pipeline.plan import read_graph
from penstock.pipeline.spec import Schedule
from penstock.settings import Settings
from penstock.sources.git import Repository
from penstock.sources.projects import Project, known_heads, list_projects

LATE = timedelta(minutes=15)  # a time that passed while Penstock was away longer ago than this is let go


def ask_when_due(database: sa.Engine, settings: Settings, now: datetime) -> int:
    """Store an event for every schedule whose time has come; each time is one event. Returns: how many were new."""
    return sum(_ask(database, settings, project, now) for project in list_projects(database))


def _ask(database: sa.Engine, settings: Settings, project: Project, now: datetime) -> int:
    heads = known_heads(database, project.name)
    newest = heads.get(f"refs/heads/{project.default_branch}")
    if newest is None:
        return 0
    asked = 0
    for schedule in _schedules(project.mirror_folder(settings), newest, settings.templates_path):
        ref = f"refs/heads/{schedule.branch or project.default_branch}"
        at = last_time(schedule.cron, now)
        if ref in heads and now - at < LATE:
            key = f"{project.name}:schedule:{schedule.cron}:{ref}:{at:%Y-%m-%dT%H:%MZ}"
            asked += bool(
                inbox.ask_for_run(database, project.name, ref, heads[ref], actor="schedule", kind="schedule", key=key)
            )
    return asked


@lru_cache(maxsize=256)
def _schedules(mirror: Path, commit: str, templates: Path) -> tuple[Schedule, ...]:
    """Those of a commit's pipeline; none while it cannot be read (its own run says why)."""
    try:
        return read_graph(Repository(mirror), commit, templates).triggers.schedule
    except PenstockError:
        return ()


def last_time(cron: str, now: datetime) -> datetime:
    """The newest time of a schedule that is not after `now`, UTC."""
    from croniter import croniter

    found: datetime = croniter(cron, now.astimezone(UTC) + timedelta(seconds=1)).get_prev(datetime)
    return found
