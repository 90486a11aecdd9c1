"""Where a rollout happens: the database, the service's lock, and the one way in which traffic is changed."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import sqlalchemy as sa

from penstock.deploy import caddy
from penstock.deploy.claims import names_of
from penstock.deploy.draining import drain
from penstock.deploy.plan import Service
from penstock.deploy.releases import Instance, Release, instances_of, of_service, stop_instances
from penstock.deploy.routing import Routing, apply_within, routing_lock
from penstock.deploy.targets import Target, open_target
from penstock.errors import PlatformError
from penstock.pipeline.cancel import CancelToken
from penstock.settings import Settings
from penstock.state.tables import routes

CADDY_LIMIT_S = 15.0


@attrs.frozen
class Site:
    """
    What every part of one rollout needs.

    locked: the connection that holds the service's lock. Whatever must not be done without the lock is done on it.
    """

    service: Service
    engine: sa.Engine
    settings: Settings
    log: Callable[[str], None]
    token: CancelToken
    locked: sa.Connection

    def target(self, release: Release) -> Target:
        """What runs the release's instances."""
        return open_target(release.configuration.target, self.settings)


@contextmanager
def traffic(site: Site, *, at_once: bool = True) -> Iterator[sa.Connection]:
    """
    A transaction whose end changes where requests go.

    Caddy first, then the commit: killed in between, the keeper leads traffic back to what the tables say.
    at_once: whether it may not come to pass later, when Caddy is back.
    Raises: PlatformError when Caddy cannot serve the service; nothing has changed then.
    """
    with routing_lock(site.settings):
        try:
            with site.locked.begin():
                yield site.locked
                routing = apply_within(site.locked, site.settings)
                if at_once:
                    _check_served(site, routing)
        except BaseException:
            with site.engine.begin() as connection:
                apply_within(connection, site.settings)
            raise


def _check_served(site: Site, routing: Routing) -> None:
    if not routing.caddy_answers:
        raise PlatformError("Caddy does not answer", remedy="see that it runs")
    port = site.locked.execute(sa.select(routes.c.port).where(of_service(routes, site.service))).scalar()
    if port in routing.blocked:
        raise PlatformError(f"Caddy cannot serve port {port}", remedy="see who listens on it")
    if routing.front_blocked and (names := names_of(site.locked, site.service)):
        ports = " and ".join(map(str, routing.front_blocked))
        remedy = "see who listens there, and whether Penstock may"
        raise PlatformError(f"Caddy cannot serve {names[0]} on port {ports}", remedy=remedy)


def wait_for_caddy(site: Site) -> None:
    """Raises: PlatformError when it stays away; Cancelled."""
    deadline_s = time.monotonic() + CADDY_LIMIT_S
    while caddy.running_configuration(site.settings) is None:
        if time.monotonic() > deadline_s:
            raise PlatformError("Caddy does not answer", remedy="see that it runs")
        site.token.wait(0.1)
        site.token.raise_if_cancelled()


class Drains:
    """
    Instances whose last requests are waited for, each in a thread of its own; then they are stopped.

    Not ended by a cancelled step: what was asked before is answered, at most for the release's `drain_s`.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._threads: dict[str, threading.Thread] = {}
        self._over: dict[str, tuple[Release, int]] = {}

    def begin(self, release: Release, instance: Instance) -> None:
        """Wait for this one. Harmless when that is under way."""
        if instance.id in self._threads:
            return
        thread = threading.Thread(target=self._drain, args=(release, instance), name="drain", daemon=True)
        self._threads[instance.id] = thread
        thread.start()

    def _drain(self, release: Release, instance: Instance) -> None:
        left = 0
        try:
            if instance.port is not None:
                left = drain(instance.port, release.configuration.drain_s, CancelToken())
        finally:
            self._over[instance.id] = (release, left)

    def stop_drained(self) -> int:
        """Stop those that are quiet by now, or whose time is over. Returns: how many are still waited for."""
        over = {name: self._over.pop(name) for name in list(self._over)}
        if over:
            with self._site.locked.begin():
                stop_instances(self._site.locked, list(over))
        for name, (release, left) in over.items():
            self._threads.pop(name).join()
            if left:
                limit_s = release.configuration.drain_s
                self._site.log(f"{release} is stopped with {left} connections open after {limit_s:g} s of draining")
        return len(self._threads)

    def finish(self) -> None:
        """Wait for all."""
        while self.stop_drained():
            time.sleep(0.02)


def await_stopped(site: Site, release: Release) -> None:
    """Bounded: a keeper that is away stops it as soon as it is back."""
    deadline_s = time.monotonic() + release.configuration.stop_grace_s + 2
    while time.monotonic() < deadline_s:
        with site.engine.begin() as connection:
            if all(one.state == "stopped" for one in instances_of(connection, release.id)):
                return
        time.sleep(0.01)
