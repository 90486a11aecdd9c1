"""From the tables `routes`, `shares` and `instances` to what Caddy does."""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import attrs
import sqlalchemy as sa

from penstock.deploy import caddy
from penstock.deploy.caddy import Upstream
from penstock.deploy.claims import live_names
from penstock.deploy.front import blocked_ports, front_ports, keep_names, running_front
from penstock.deploy.plan import Service
from penstock.deploy.releases import of_service
from penstock.deploy.slots import NOWHERE, Candidate, spread
from penstock.errors import InputError, PlatformError
from penstock.settings import Settings
from penstock.state.rollout_tables import shares
from penstock.state.tables import instances, releases, routes

ALLOCATION_LOCK = 7_036_872  # an advisory lock's number: any, but always the same
PORTS_TRIED = 1000

Key = tuple[str, str, str]  # environment, project, service


@attrs.frozen
class Routing:
    """
    What applying came to.

    blocked: service ports that somebody else listens on. front_blocked: such ports of those that names need, which are
    not served then.
    """

    caddy_answers: bool
    blocked: tuple[int, ...] = ()
    front_blocked: tuple[int, ...] = ()


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
    led = upstreams(connection)
    caddy.write_upstreams(folder, led)
    front = running_front(folder, settings)
    names = live_names(connection) if front else {}
    keep_names(folder, names)
    running = caddy.running_configuration(settings)
    if running is None:
        return Routing(caddy_answers=False)
    served = caddy.served_ports(running)
    wanted = {upstream.port for upstream in led}
    blocked = {port for port in wanted - served if not caddy.is_free(port)}
    front_blocked = blocked_ports(front, wanted, front_ports(running)) if front and names else ()
    configuration = caddy.render(wanted - blocked, front=front, names={} if front_blocked else names)
    if configuration != running:
        caddy.load_configuration(settings, configuration)
    return Routing(caddy_answers=True, blocked=tuple(sorted(blocked)), front_blocked=front_blocked)


def upstreams(connection: sa.Connection) -> list[Upstream]:
    """The slots of each service that has, or had, an instance for its traffic."""
    shared = _all_shares(connection)
    wanted = _candidates(connection)
    found = []
    for route in connection.execute(sa.select(routes).order_by(routes.c.port)):
        here = wanted.get((route.environment, route.project, route.service), [])
        slots = spread(shared.get((route.environment, route.project, route.service), {}), route.release_id, here)
        if not slots and route.release_id is not None:  # what cannot run twice: requests wait for the next one
            slots = NOWHERE
        found += [Upstream(route.port, instance_port, number) for instance_port, number in slots.items()]
    return found


def _all_shares(connection: sa.Connection) -> dict[Key, dict[str, int]]:
    found: dict[Key, dict[str, int]] = {}
    for row in connection.execute(sa.select(shares)):
        found.setdefault((row.environment, row.project, row.service), {})[row.release_id] = row.weight
    return found


def _candidates(connection: sa.Connection) -> dict[Key, list[Candidate]]:
    key = (releases.c.environment, releases.c.project, releases.c.service)
    query = (
        sa.select(*key, instances.c.release_id, instances.c.port, instances.c.ready, instances.c.state)
        .join(releases, releases.c.id == instances.c.release_id)
        .where(instances.c.desired == "running", instances.c.port.is_not(None))
        .order_by(instances.c.created_at, instances.c.id)
    )
    found: dict[Key, list[Candidate]] = {}
    for row in connection.execute(query):
        one = Candidate(row.release_id, row.port, ready=row.ready, running=row.state == "running")
        found.setdefault((row.environment, row.project, row.service), []).append(one)
    return found


def shares_of(connection: sa.Connection, service: Service) -> dict[str, int]:
    """Release → per cent of the service's requests; empty when the live release has them all."""
    rows = connection.execute(sa.select(shares).where(of_service(shares, service)))
    return {row.release_id: row.weight for row in rows}


def set_shares(connection: sa.Connection, service: Service, weights: Mapping[str, int]) -> None:
    """
    From the next `apply_within` on, requests go to releases by these weights; by none: all to the live one.

    weights: release → per cent, together 100. The caller holds the routing lock.
    Raises: InputError when they are not.
    """
    if weights and (sum(weights.values()) != 100 or min(weights.values()) < 0):
        given = ", ".join(str(weight) for weight in weights.values())
        raise InputError(f"weights of {given} are not 100 together", where=str(service), remedy="give per cent")
    connection.execute(sa.delete(shares).where(of_service(shares, service)))
    key = {"environment": service.environment, "project": service.project, "service": service.name}
    for release_id, weight in weights.items():
        connection.execute(sa.insert(shares).values(release_id=release_id, weight=weight, **key))


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
    front = running_front(caddy.caddy_folder(settings), settings)
    others |= set(front.ports) if front else set()
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
