"""Releases and rollouts as rows of the warehouse."""

from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from penstock import warehouse
from penstock.deploy.releases import Release, find_releases
from penstock.deploy.rollouts import find_rollouts
from penstock.state.people_tables import approval_answers, approval_requests
from penstock.state.rollout_tables import rollouts
from penstock.state.tables import releases

NEWEST = 20
_SAME = ("number", "commit", "state", "created_at", "run_id", "graph_hash", "live_at", "ended_at", "reason")


def newest_rows(database: sa.Engine, project: str) -> Iterator[warehouse.Release | warehouse.Rollout]:
    """The newest of a project: a new release also changes the state of the former."""
    with database.connect() as connection:
        found = find_releases(connection, [releases.c.project == project], NEWEST)
        numbers = _numbers(connection, project)
        for release in found:
            yield _release_row(release, numbers, _approved_by(connection, release))
        yield from _rollout_rows(connection, project, numbers)


def _numbers(connection: sa.Connection, project: str) -> Mapping[str, int]:
    rows = connection.execute(sa.select(releases.c.id, releases.c.number).where(releases.c.project == project))
    return {row.id: row.number for row in rows}


def _release_row(release: Release, numbers: Mapping[str, int], approved_by: str | None) -> warehouse.Release:
    service, configuration = release.service, release.configuration
    return warehouse.Release(
        project=service.project,
        environment=service.environment,
        service=service.name,
        artifact_digest=release.digest,
        strategy=configuration.strategy.name,
        replicas=configuration.replicas,
        previous_number=numbers.get(release.previous or ""),
        rollback_of=numbers.get(release.rollback_of or ""),
        approved_by=approved_by,
        **{name: getattr(release, name) for name in _SAME},
    )


def _approved_by(connection: sa.Connection, release: Release) -> str | None:
    """Who let its commit and graph pass, by name; None when nobody was asked."""
    query = (
        sa.select(approval_answers.c.person)
        .join(approval_requests, approval_requests.c.id == approval_answers.c.request_id)
        .where(
            approval_requests.c.project == release.service.project,
            approval_requests.c.commit == release.commit,
            approval_requests.c.graph_hash == release.graph_hash,
            approval_requests.c.state == "approved",
            approval_answers.c.decision == "approved",
            approval_answers.c.at <= release.created_at,
        )
    )
    people = sorted(set(connection.execute(query).scalars()))
    return ", ".join(people) or None


def _rollout_rows(connection: sa.Connection, project: str, numbers: Mapping[str, int]) -> Iterator[warehouse.Rollout]:
    for one in find_rollouts(connection, conditions=[rollouts.c.project == project], limit=NEWEST):
        yield warehouse.Rollout(
            rollout=one.id,
            project=project,
            environment=one.service.environment,
            service=one.service.name,
            kind=one.kind,
            strategy=one.strategy.name,
            state=one.state,
            number=numbers.get(one.release_id or ""),
            from_number=numbers.get(one.former_id or ""),
            source_number=numbers.get(one.source_id or ""),
            actor=one.actor or None,
            why=one.asked_why or None,
            reason=one.trouble,
            seconds=one.clock_s,
            created_at=one.created_at,
            began_at=one.began_at,
            ended_at=one.ended_at,
        )
