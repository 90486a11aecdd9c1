"""From the tables `routes` and `instances` to what Caddy does."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import sqlalchemy as sa

from penstock.deploy import caddy
from penstock.deploy.caddy import Upstream
from penstock.deploy.plan import Service
from penstock.deploy.releases import of_service
from penstock.errors import PlatformError
from penstock.settings import Settings
from penstock.state.tables import instances, routes

ALLOCATION_LOCK = 7_036_872  # an advisory lock's number: any, but always the same
PORTS_TRIED = 1000


@attrs.frozen
class Routing:
    """What applying came to: `blocked` are service ports that somebody else listens on."""

    caddy_answers: bool
    blocked: tuple[int, ...] = ()


@contextmanager
def routing_lock(settings: Settings) -> Iterator[None]:
    """Whoever changes routes holds this from before reading the tables until after the commit."""
    with (caddy.caddy_folder(settings) / "routes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def apply_routes(engine: sa.Engine, settings: Settings) -> Routing:
    """Make Caddy do what the tables say. Idempotent. Raises: PlatformError when Caddy refuses."""
    with routing_lock(settings), engine.begin() as connection:
        return apply_within(connection, settings)


def apply_within(connection: sa.Connection, settings: Settings) -> Routing:
    """`apply_routes` for who holds the routing lock: as this connection's transaction sees the tables."""
    folder = caddy.caddy_folder(settings)
    upstreams = _upstreams(connection)
    caddy.write_upstreams(folder, upstreams)
    running = caddy.running_configuration(settings)
    if running is None:
        return Routing(caddy_answers=False)
    served = caddy.served_ports(running)
    wanted = {upstream.port for upstream in upstreams}
    blocked = {port for port in wanted - served if not caddy.is_free(port)}
    configuration = caddy.render(wanted - blocked)
    if configuration != running:
        caddy.load_configuration(settings, configuration)
    return Routing(caddy_answers=True, blocked=tuple(sorted(blocked)))


def _upstreams(connection: sa.Connection) -> list[Upstream]:
    """A service port and the newest port of its live release's wanted instance, per service that has both."""
    query = (
        sa.select(routes.c.port, instances.c.port.label("instance_port"))
        .join(instances, instances.c.release_id == routes.c.release_id)
        .where(instances.c.desired == "running", instances.c.port.is_not(None))
        .order_by(instances.c.created_at)
    )
    newest = {row.port: row.instance_port for row in connection.execute(query)}
    return [Upstream(port, instance_port) for port, instance_port in sorted(newest.items())]


def ensure_route(connection: sa.Connection, service: Service, settings: Settings) -> int:
    """
    The port on which `service` answers; a first one gets the next from PENSTOCK_APPS_PORT that nobody has.

    Raises: PlatformError when there is none.
    """
    known: int | None = connection.execute(sa.select(routes.c.port).where(of_service(routes, service))).scalar()
    if known is not None:
        return known
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ALLOCATION_LOCK)))
    others = {port for name, port in settings.ports.items() if name != "apps"}
    taken = others.union(connection.execute(sa.select(routes.c.port)).scalars())
    port = _next_port(settings.ports["apps"], taken)
    key = {"environment": service.environment, "project": service.project, "service": service.name}
    connection.execute(sa.insert(routes).values(port=port, **key))
    return port


def _next_port(first: int, taken: set[int]) -> int:
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        if port not in taken and caddy.is_free(port):
            return port
    raise PlatformError(f"no free port for a service from {first} on", where="PENSTOCK_APPS_PORT", remedy="move it")
