"""What people look at before they go back or forward: who approved, what can be taken up again, what lies between."""

from collections.abc import Iterable, Mapping, Sequence

import attrs
import sqlalchemy as sa

from penstock.deploy.plan import Service
from penstock.deploy.releases import Release, releases_of
from penstock.deploy.rollouts import Rollout, find_rollouts
from penstock.deploy.sources import check_kept
from penstock.errors import ConflictError, NotFoundError, PlatformError
from penstock.pipeline import records
from penstock.pipeline.approval_evidence import environments_after
from penstock.pipeline.approval_rows import Request, read_requests
from penstock.settings import Settings
from penstock.sources.projects import get_project
from penstock.state.people_tables import approval_requests
from penstock.state.rollout_tables import rollouts
from penstock.state.tables import instances

MOST_COMMITS = 500


@attrs.frozen
class Running:
    """Instances of a release that shall run. ready: those that get requests. restarts: of all of them."""

    wanted: int = 0
    ready: int = 0
    restarts: int = 0


def running(connection: sa.Connection, release_ids: Iterable[str]) -> Mapping[str, Running]:
    """Release → its instances; a release without any is left out."""
    query = (
        sa.select(
            instances.c.release_id,
            sa.func.count(),
            sa.func.count().filter(instances.c.ready),
            sa.func.coalesce(sa.func.sum(instances.c.restarts), 0),
        )
        .where(instances.c.release_id.in_(list(release_ids)), instances.c.desired == "running")
        .group_by(instances.c.release_id)
    )
    return {release: Running(*counts) for release, *counts in connection.execute(query)}


def kept(connection: sa.Connection, settings: Settings, history: Iterable[Release]) -> list[Release]:
    """Those that can be gone back to: traffic went to them before, and their files are there."""
    return [one for one in history if one.state == "superseded" and one.live_at and _is_kept(connection, settings, one)]


def _is_kept(connection: sa.Connection, settings: Settings, release: Release) -> bool:
    try:
        check_kept(connection, settings, release)
    except ConflictError:
        return False
    return True


def rollouts_by_release(connection: sa.Connection, service: Service) -> Mapping[str, Rollout]:
    """Release → the rollout by which it came; of an older Penstock there is none."""
    of = {"environment": service.environment, "project": service.project, "service": service.name}
    found = find_rollouts(connection, conditions=[rollouts.c[name] == value for name, value in of.items()], limit=1000)
    return {one.release_id: one for one in found if one.release_id}


def history_of(connection: sa.Connection, service: Service) -> list[Release]:
    """All releases of one service, newest first. Raises: NotFoundError when there is none."""
    if found := releases_of(connection, service):
        return found
    raise NotFoundError(f"there is no release of {service}", remedy="see `penstock release list`")


def approvals_of(database: sa.Engine, history: Sequence[Release]) -> Mapping[str, tuple[str, ...]]:
    """Release → who approved its commit, in its graph, for its environment; releases that nobody approved left out."""
    wanted = (
        approval_requests.c.project.in_({one.service.project for one in history}),
        approval_requests.c.commit.in_({one.commit for one in history}),
        approval_requests.c.used_at.is_not(None),
    )
    with database.connect() as connection:
        asked = read_requests(connection, *wanted)
    aims = {request.id: _environments(database, request) for request in asked}
    found = {
        one.id: _people(one, [each for each in asked if one.service.environment in aims[each.id]]) for one in history
    }
    return {release: people for release, people in found.items() if people}


def _environments(database: sa.Engine, request: Request) -> tuple[str, ...]:
    try:
        return environments_after(records.load_graph(database, request.run_id), request.step)
    except NotFoundError:  # the run was removed by retention
        return ()


def _people(release: Release, asked: Iterable[Request]) -> tuple[str, ...]:
    same = [one for one in asked if (one.commit, one.graph_hash) == (release.commit, release.graph_hash)]
    people = (answer.actor for one in same for answer in one.said if answer.decision == "approved")
    return tuple(dict.fromkeys(people))


def commits_between(
    database: sa.Engine, settings: Settings, project: str, former: str, latter: str
) -> tuple[str, ...] | None:
    """
    First lines of the commits that `latter` has and `former` has not, newest first, at most MOST_COMMITS.

    Returns: None when one of both, or the repository, is not known any more.
    """
    try:
        repository = get_project(database, project).repository(settings)
        told = repository.run("log", "--format=%h %s", f"--max-count={MOST_COMMITS}", f"{former}..{latter}", "--")
    except (NotFoundError, PlatformError):
        return None
    return tuple(line for line in told.decode("utf-8", "replace").splitlines() if line)
