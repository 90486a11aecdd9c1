"""Polling: compare a repository's heads with those that were accepted, and accept what is new."""

from collections.abc import Iterator

import sqlalchemy as sa

from penstock.errors import PenstockError
from penstock.events.inbox import Push, accept
from penstock.sources.git import ls_remote
from penstock.sources.projects import Project, known_heads, list_projects


def poll_all(database: sa.Engine) -> Iterator[str]:
    """Poll every polled project. Yields: a line for each that cannot be reached."""
    for project in list_projects(database):
        if project.polled:
            try:
                poll(database, project)
            except PenstockError as error:
                yield f"{project.name}: {error}"


def poll(database: sa.Engine, project: Project) -> int:
    """Accept every branch and tag that moved. Returns: how many there were."""
    known = known_heads(database, project.name)
    moved = [(ref, commit) for ref, commit in ls_remote(project.url, tags=True).items() if known.get(ref) != commit]
    pushes = (Push(project.name, ref, commit, known.get(ref), source="poll") for ref, commit in moved)
    return sum(accept(database, push) is not None for push in pushes)
