"""Releases and their instances as rows: written by a deployment, read by everyone."""

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

import attrs
import msgspec
import sqlalchemy as sa

from penstock.deploy.plan import DeploymentPlan, Service, ServiceConfiguration
from penstock.errors import NotFoundError
from penstock.settings import Settings
from penstock.state.tables import instances, releases, routes

CHANNEL = "penstock_instances"


@attrs.frozen
class Release:
    """
    One release. All but `state`, `reason` and the times never change.

    number: counts up from 1 per service.
    state: pending, live, superseded or failed.
    previous: the id of the release that was live when this one was made.
    rollback_of: the id of the release that this one takes up again.
    """

    id: str
    service: Service
    number: int
    commit: str
    digest: str
    graph_hash: str
    run_id: str
    configuration: ServiceConfiguration
    previous: str | None
    state: str
    reason: str | None
    rollback_of: str | None
    created_at: datetime
    live_at: datetime | None
    ended_at: datetime | None

    def __str__(self) -> str:
        return f"release {self.number} of {self.service}"


@attrs.frozen
class Instance:
    """
    What is wanted of one instance and what it is; `port` and `pid` are those of its newest start.

    desired: running, draining (it gets no new requests, and is stopped when the last is answered) or stopped.
    ready: it answered its health check, and gets its part of the release's traffic.
    """

    id: str
    release_id: str
    desired: str
    state: str
    pid: int | None
    port: int | None
    restarts: int
    reason: str | None
    ready: bool


def release_folder(settings: Settings, release_id: str) -> Path:
    """Where a release's files lie."""
    return settings.home / "releases" / release_id


def instance_log(settings: Settings, instance_id: str) -> Path:
    """Where an instance's output goes."""
    return settings.home / "logs" / "instances" / f"{instance_id}.log"


def live_releases(engine: sa.Engine) -> list[Release]:
    """Everything that traffic goes to, one per service, by environment, project and service."""
    query = sa.select(releases).where(releases.c.state == "live")
    order = (releases.c.environment, releases.c.project, releases.c.service)
    with engine.begin() as connection:
        return [_release(row) for row in connection.execute(query.order_by(*order))]


def release_history(engine: sa.Engine, service: Service) -> list[Release]:
    """All releases of one service, newest first."""
    with engine.begin() as connection:
        return releases_of(connection, service)


def releases_of(connection: sa.Connection, service: Service) -> list[Release]:
    """All releases of one service, newest first."""
    query = sa.select(releases).where(of_service(releases, service)).order_by(releases.c.number.desc())
    return [_release(row) for row in connection.execute(query)]


def release_by_number(connection: sa.Connection, service: Service, number: int) -> Release:
    """Raises: NotFoundError."""
    query = sa.select(releases).where(of_service(releases, service), releases.c.number == number)
    row = connection.execute(query).first()
    if row is None:
        remedy = "list them with `penstock release list`"
        raise NotFoundError(f"{service} has no release {number}", remedy=remedy)
    return _release(row)


def find_releases(connection: sa.Connection, conditions: Sequence[sa.ColumnElement[bool]], limit: int) -> list[Release]:
    """The newest that meet all conditions."""
    order = (releases.c.created_at.desc(), releases.c.id.desc())
    query = sa.select(releases).where(*conditions).order_by(*order).limit(limit)
    return [_release(row) for row in connection.execute(query)]


def service_url(engine: sa.Engine, service: Service) -> str | None:
    """Where the service answers, without a trailing slash; None before its first live release."""
    query = sa.select(routes.c.port).where(of_service(routes, service), routes.c.release_id.is_not(None))
    with engine.begin() as connection:
        port = connection.execute(query).scalar()
    return None if port is None else f"http://127.0.0.1:{port}"


def live_release(connection: sa.Connection, service: Service) -> Release | None:
    """The one release of `service` that traffic goes to."""
    row = connection.execute(
        sa.select(releases).where(of_service(releases, service), releases.c.state == "live")
    ).first()
    return None if row is None else _release(row)


def pending_releases(connection: sa.Connection, service: Service | None = None) -> list[Release]:
    """Releases that a deployment is, or was, working on."""
    query = sa.select(releases).where(releases.c.state == "pending")
    rows = connection.execute(query if service is None else query.where(of_service(releases, service)))
    return [_release(row) for row in rows]


def create_release(connection: sa.Connection, plan: DeploymentPlan, previous: str | None) -> Release:
    """The next release of the plan's service, pending. The caller holds the service's lock."""
    newest = sa.select(sa.func.coalesce(sa.func.max(releases.c.number), 0)).where(of_service(releases, plan.service))
    row = connection.execute(
        sa.insert(releases)
        .values(
            id=uuid.uuid4().hex[:16],
            project=plan.service.project,
            environment=plan.service.environment,
            service=plan.service.name,
            number=newest.scalar_subquery() + 1,
            commit=plan.commit,
            digest=plan.digest,
            graph_hash=plan.graph_hash,
            run_id=plan.run_id,
            configuration=msgspec.to_builtins(plan.configuration),
            previous=previous,
            rollback_of=plan.rollback_of,
            state="pending",
        )
        .returning(*releases.c)
    ).one()
    return _release(row)


def fail_release(connection: sa.Connection, release_id: str, reason: str) -> bool:
    """
    A pending release has failed. Its instances are stopped by whoever knows that nobody talks to them.

    Returns: False when it was not pending any more, and nothing changed.
    """
    change = sa.update(releases).where(releases.c.id == release_id, releases.c.state == "pending")
    done = connection.execute(change.values(state="failed", reason=reason, ended_at=sa.func.now()))
    return done.rowcount == 1


def get_release(connection: sa.Connection, release_id: str) -> Release:
    """Raises: NotFoundError."""
    row = connection.execute(sa.select(releases).where(releases.c.id == release_id)).first()
    if row is None:
        raise NotFoundError(f'there is no release "{release_id}"', remedy="list them with `penstock release list`")
    return _release(row)


def take_back(connection: sa.Connection, release: Release, former: Release | None) -> None:
    """`former`, if there is one, is live again, and `release` on its way as before, both or neither."""
    this = sa.update(releases).where(releases.c.id == release.id, releases.c.state == "live")
    if not connection.execute(this.values(state="pending")).rowcount:
        return
    if former:
        again = sa.update(releases).where(releases.c.id == former.id)
        connection.execute(again.values(state="live", ended_at=None))
    route = sa.update(routes).where(of_service(routes, release.service))
    connection.execute(route.values(release_id=former.id if former else None))


def make_live(connection: sa.Connection, release: Release) -> None:
    """`release` is live and the one before is superseded, both or neither."""
    former = sa.update(releases).where(of_service(releases, release.service), releases.c.state == "live")
    connection.execute(former.values(state="superseded", ended_at=sa.func.now()))
    this = sa.update(releases).where(releases.c.id == release.id)
    connection.execute(this.values(state="live", live_at=sa.func.now()))
    route = sa.update(routes).where(of_service(routes, release.service))
    connection.execute(route.values(release_id=release.id))


def want_instance(connection: sa.Connection, release_id: str) -> str:
    """One more instance of the release, for the keeper to start. Returns: its id."""
    instance_id = uuid.uuid4().hex[:16]
    values = {"id": instance_id, "release_id": release_id, "desired": "running", "state": "starting", "ready": False}
    connection.execute(sa.insert(instances).values(values))
    _ring(connection)
    return instance_id


def set_ready(connection: sa.Connection, instance_ids: Collection[str], *, ready: bool) -> None:
    """Whether these get their part of the release's traffic."""
    if instance_ids:
        change = sa.update(instances).where(instances.c.id.in_(instance_ids))
        connection.execute(change.values(ready=ready))


def drain_instances(connection: sa.Connection, instance_ids: Collection[str]) -> None:
    """These get no new requests, as soon as the routes say so."""
    if instance_ids:
        change = sa.update(instances).where(instances.c.id.in_(instance_ids), instances.c.desired == "running")
        connection.execute(change.values(desired="draining", ready=False))


def stop_instances(connection: sa.Connection, instance_ids: Collection[str]) -> None:
    """These are wanted no more."""
    if instance_ids:
        change = sa.update(instances).where(instances.c.id.in_(instance_ids), instances.c.desired != "stopped")
        connection.execute(change.values(desired="stopped", ready=False))
        _ring(connection)


def wanted_instances(connection: sa.Connection, release_id: str) -> list[Instance]:
    """Those of the release that shall run, oldest first."""
    return [one for one in instances_of(connection, release_id) if one.desired == "running"]


def draining_instances(connection: sa.Connection, service: Service) -> list[tuple[Release, Instance]]:
    """Those that are to be stopped when their last requests are answered, with their releases."""
    return _instances_where(connection, service, instances.c.desired == "draining")


def unrouted_instances(connection: sa.Connection, service: Service) -> list[tuple[Release, Instance]]:
    """Instances that run though their releases are over, or that are being drained, with their releases."""
    over = sa.and_(releases.c.state.in_(("superseded", "failed")), instances.c.desired == "running")
    return _instances_where(connection, service, sa.or_(over, instances.c.desired == "draining"))


def _instances_where(
    connection: sa.Connection, service: Service, condition: sa.ColumnElement[bool]
) -> list[tuple[Release, Instance]]:
    found = sa.select(instances).join(releases).where(of_service(releases, service), condition)
    rows = [_instance(row) for row in connection.execute(found.order_by(instances.c.created_at))]
    wanted = sa.select(releases).where(releases.c.id.in_({one.release_id for one in rows}))
    by_id = {release.id: release for release in map(_release, connection.execute(wanted))}
    return [(by_id[one.release_id], one) for one in rows]


def services_with_leftovers(connection: sa.Connection) -> list[Service]:
    """Services with a pending release, or an instance that runs without being live."""
    of_no_live_one = sa.and_(releases.c.state != "live", instances.c.desired != "stopped")
    running = sa.or_(of_no_live_one, instances.c.desired == "draining")
    query = sa.select(releases.c.project, releases.c.environment, releases.c.service).distinct()
    query = query.outerjoin(instances, instances.c.release_id == releases.c.id)
    rows = connection.execute(query.where(sa.or_(releases.c.state == "pending", running)))
    return [Service(row.project, row.environment, row.service) for row in rows]


def instances_of(connection: sa.Connection, release_id: str) -> list[Instance]:
    """All instances of the release, oldest first."""
    query = sa.select(instances).where(instances.c.release_id == release_id).order_by(instances.c.created_at)
    return [_instance(row) for row in connection.execute(query)]


def _ring(connection: sa.Connection) -> None:
    """Wakes the keeper when the transaction commits."""
    connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))


def of_service(table: sa.Table, service: Service) -> sa.ColumnElement[bool]:
    """The condition that a row of `releases` or `routes` belongs to `service`."""
    return sa.and_(
        table.c.environment == service.environment,
        table.c.project == service.project,
        table.c.service == service.name,
    )


def _release(row: sa.Row[tuple[object, ...]]) -> Release:
    values = dict(row._mapping)
    service = Service(values.pop("project"), values.pop("environment"), values.pop("service"))
    configuration = msgspec.convert(values.pop("configuration"), ServiceConfiguration)
    return Release(service=service, configuration=configuration, **values)


def _instance(row: sa.Row[tuple[object, ...]]) -> Instance:
    names = (field.name for field in attrs.fields(Instance))
    return Instance(**{name: row._mapping[name] for name in names})
