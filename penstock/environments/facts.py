"""What the rules are asked about, read from the database."""

from collections.abc import Iterable
from datetime import datetime

import attrs
import sqlalchemy as sa

from penstock.environments.model import Environment
from penstock.environments.rules import Facts, Origin, Standing
from penstock.environments.store import lifted
from penstock.pipeline.live import healthy_since
from penstock.state.tables import releases
from penstock.steps.context import RunInfo

_TAGS = "refs/tags/"


@attrs.frozen
class Deploying:
    """What a run is about to deploy. target: what its step asks for."""

    info: RunInfo
    environment: str
    service: str
    target: str


def origin_of(info: RunInfo) -> Origin:
    """From where a run comes; a run by hand of a pull request's ref is one of the pull request."""
    if request := info.about.get("pull_request"):
        return Origin("pull_request", str(request.get("target") or ""), info.from_fork)
    if info.ref.startswith("refs/pull/"):
        return Origin("pull_request", "", fork=True)  # whose it is and where it goes nobody has said
    if info.ref.startswith(_TAGS):
        return Origin("tag", info.ref.removeprefix(_TAGS))
    return Origin("branch", info.branch)


def facts_of(
    connection: sa.Connection, environment: Environment, what: Deploying, now: datetime, *, approved: bool
) -> Facts:
    """Everything that the rules ask."""
    after = environment.rules.order.after
    return Facts(
        project=what.info.project,
        origin=origin_of(what.info),
        target=what.target,
        standings={name: standing_in(connection, what, name, now) for name in after},
        lifted=lifted(connection, environment.name, now),
        approved=approved,
    )


def standing_in(connection: sa.Connection, what: Deploying, environment: str, now: datetime) -> Standing:
    """
    How the commit stands in another environment: by the newest of its releases of the same service there.

    Where no service there is called like that, by those of the project: every one must be well.
    """
    of = (releases.c.project == what.info.project, releases.c.environment == environment)
    known = set(connection.execute(sa.select(releases.c.service).where(*of).distinct()).scalars())
    names = {what.service} if what.service in known else known
    found = [_standing_of_service(connection, what, environment, name, now) for name in names]
    return min(found, key=_worth, default=Standing("never"))


def _worth(standing: Standing) -> tuple[int, float]:
    return ("never", "undone", "unwell", "former", "live").index(standing.state), standing.healthy_s


def _standing_of_service(
    connection: sa.Connection, what: Deploying, environment: str, service: str, now: datetime
) -> Standing:
    of = (
        releases.c.project == what.info.project,
        releases.c.environment == environment,
        releases.c.service == service,
        releases.c.commit == what.info.commit,
        releases.c.live_at.is_not(None),
    )
    rows = connection.execute(sa.select(releases).where(*of).order_by(releases.c.number.desc())).all()
    if not rows:
        return Standing("never")
    if rows[0].state == "live":
        return _live(connection, rows[0], now)
    if _was_undone(connection, rows[0].id):
        return Standing("undone")
    spans = [(row.ended_at - row.live_at).total_seconds() for row in _ended_well(rows)]
    return Standing("former", max(spans, default=0.0))


def _live(connection: sa.Connection, row: "sa.Row[tuple[object, ...]]", now: datetime) -> Standing:
    since = healthy_since(connection, row.id, row.live_at)
    return Standing("unwell") if since is None else Standing("live", max(0.0, (now - since).total_seconds()))


def _was_undone(connection: sa.Connection, release_id: str) -> bool:
    """Whether what came after a release was a way back."""
    back = sa.select(releases.c.id).where(releases.c.previous == release_id, releases.c.rollback_of.is_not(None))
    return connection.execute(back.where(releases.c.live_at.is_not(None)).limit(1)).first() is not None


def _ended_well(rows: Iterable["sa.Row[tuple[object, ...]]"]) -> Iterable["sa.Row[tuple[object, ...]]"]:
    return (row for row in rows if row.state == "superseded" and row.ended_at and row.live_at)
