"""
A deployment: release placed, instance started and healthy, traffic switched, former instance drained and stopped.

Until the switch the former release serves, whatever happens to the new one. The switch is one
transaction, made on the connection that holds the service's lock, after Caddy has taken the route.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import sqlalchemy as sa

from penstock.deploy import caddy
from penstock.deploy.draining import drain
from penstock.deploy.health import HealthCount, ProbeResult, gap_s
from penstock.deploy.locks import free_service, service_lock
from penstock.deploy.output import tail
from penstock.deploy.plan import DeploymentPlan, Service
from penstock.deploy.releases import (
    Instance,
    Release,
    create_release,
    fail_release,
    instance_log,
    instances_of,
    live_release,
    make_live,
    pending_releases,
    release_history,
    services_with_leftovers,
    stop_instances,
    unrouted_instances,
    want_instance,
)
from penstock.deploy.routing import apply_routes, apply_within, ensure_route, routing_lock
from penstock.deploy.targets import Target, open_target
from penstock.errors import Cancelled, PenstockError, PlatformError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.settings import Settings

CADDY_LIMIT_S = 15.0
DATABASE_LIMIT_S = 10.0
LOG_LINES = 10
KEPT_RELEASES = 5  # superseded ones whose files or images stay, so that there is a way back
INTERRUPTED = "the deployment was interrupted"


@attrs.frozen
class Deployment:
    """What every part of one deployment needs."""

    plan: DeploymentPlan
    engine: sa.Engine
    settings: Settings
    log: Callable[[str], None]
    token: CancelToken
    locked: sa.Connection
    target: Target


def deploy(
    plan: DeploymentPlan, *, engine: sa.Engine, settings: Settings, log: Callable[[str], None], token: CancelToken
) -> Release:
    """
    Make the plan's release live and return it; the same commit, digest and configuration twice is one release.

    log: told in lines what happens. Waits while another deployment of the service is under way.
    Raises: StepFailure when the release crashes or does not become healthy, with the last probe's answer and
    the last lines of its log; Cancelled; PlatformError when keeper, Caddy or database are away. In each case
    the new instance is stopped, the release has failed, and the former one serves.
    """
    with _database_errors(), service_lock(engine, plan.service, log, token) as locked:
        target = open_target(plan.configuration.target, settings)
        this = Deployment(plan, engine, settings, log, token, locked, target)
        _clear(locked, plan.service, log, token)
        with locked.begin():
            former = live_release(locked, plan.service)
        if former and _is_the_same(this, former):
            log(f"{former} is this very one, live and healthy")
            return former
        live = _roll_out(this, former)
        if former:
            _retire(this, former)
        _prune(this)
        return live


def recover(engine: sa.Engine, log: Callable[[str], None], token: CancelToken) -> list[Release]:
    """
    Mark what a deployment that was killed has left as failed and stop it; those under way are left alone.

    Returns: the releases that were marked.
    """
    marked: list[Release] = []
    with engine.begin() as connection:
        services = services_with_leftovers(connection)
    for service in services:
        with free_service(engine, service) as locked:
            if locked is not None:
                marked += _clear(locked, service, log, token)
    return marked


def _clear(locked: sa.Connection, service: Service, log: Callable[[str], None], token: CancelToken) -> list[Release]:
    """Undo or finish what a deployment that was cut off has left. Whoever holds the lock knows that it is over."""
    with locked.begin():
        interrupted = pending_releases(locked, service)
        for release in interrupted:
            fail_release(locked, release.id, INTERRUPTED)
    _drain_and_stop(locked, service, log, token)
    return interrupted


def _is_the_same(this: Deployment, former: Release) -> bool:
    plan = this.plan
    same = (former.commit, former.digest, former.configuration) == (plan.commit, plan.digest, plan.configuration)
    instance = _running_instance(this, former) if same else None
    if instance is None or not this.target.probe(plan.configuration.health, instance).good:
        return False
    return apply_routes(this.engine, this.settings).caddy_answers


def _running_instance(this: Deployment, release: Release) -> Instance | None:
    with this.engine.begin() as connection:
        running = [one for one in instances_of(connection, release.id) if one.desired == one.state == "running"]
    return running[-1] if running else None


def _roll_out(this: Deployment, former: Release | None) -> Release:
    with this.locked.begin():
        release = create_release(this.locked, this.plan, former.id if former else None)
    this.log(f"{release}: commit {release.commit[:12]}, digest {release.digest[:19]}")
    with _undone_on_error(this, release):
        this.target.place(release, this.plan.source, this.token)
        with this.engine.begin() as connection:
            instance_id = want_instance(connection, release.id)
        _wait_until_healthy(this, release, instance_id)
        _wait_for_caddy(this)
        _switch(this, release)
    with this.engine.begin() as connection:
        return live_release(connection, this.plan.service) or release


@contextmanager
def _undone_on_error(this: Deployment, release: Release) -> Iterator[None]:
    """Whatever ends the block early, the release has failed, its instance is stopped and its files are gone."""
    try:
        yield
    except BaseException as error:
        _undo(this, release, _reason(error))
        raise


def _reason(error: BaseException) -> str:
    if isinstance(error, Cancelled):
        return f"cancelled: {error.what}"
    if isinstance(error, sa.exc.DBAPIError):
        return _database_error(error).what
    return error.what if isinstance(error, PenstockError) else f"{type(error).__name__}: {error}"


def _undo(this: Deployment, release: Release, reason: str) -> None:
    """A database that is just being restarted is waited for; one that stays away leaves the rest to `recover`."""
    deadline_s = time.monotonic() + DATABASE_LIMIT_S
    while time.monotonic() < deadline_s:
        try:
            with this.engine.begin() as connection:
                if fail_release(connection, release.id, reason):
                    stop_instances(connection, release.id)
            _await_stopped(this, release)
        except sa.exc.DBAPIError:
            time.sleep(0.2)
            continue
        this.target.forget([release.id])
        this.log(f"{release} failed: {reason}")
        return
    this.log(f"{release}: the database stays away; the release is marked as failed at the next start")


def _wait_until_healthy(this: Deployment, release: Release, instance_id: str) -> None:
    started_s = time.monotonic()
    instance = _wait_for_port(this, release, instance_id)
    this.log(f"instance {instance_id} runs on port {instance.port}")
    port = instance.port
    count, asked, began_s = HealthCount(release.configuration.health), 0, time.monotonic()
    while count.verdict != "healthy":
        result = this.target.probe(count.check, instance)
        age_s = time.monotonic() - began_s
        instance = _instance(this, release, instance_id)
        _fail_if_crashed(this, release, instance)
        if instance.port is not None and instance.port != port:  # a new keeper gave it another one
            port, count, began_s = instance.port, HealthCount(count.check), time.monotonic()
            continue
        count = count.after(result, age_s)
        if count.verdict == "unhealthy" or time.monotonic() - started_s > count.check.limit_s:
            raise _unhealthy(this, release, instance, age_s, result)
        if count.verdict == "waiting":
            this.token.wait(gap_s(count.check, asked))
        this.token.raise_if_cancelled()
        asked += 1
    this.log(f"healthy after {time.monotonic() - started_s:.2f} s: {result.text}")


def _unhealthy(
    this: Deployment, release: Release, instance: Instance, age_s: float, result: ProbeResult
) -> PenstockError:
    if instance.state == "starting" and instance.reason:  # what should run it went away meanwhile
        return PlatformError(instance.reason, where=str(release))
    return _failure(this, release, instance, f"not healthy after {age_s:.1f} s, last answer {result.text}")


def _wait_for_port(this: Deployment, release: Release, instance_id: str) -> Instance:
    deadline_s = time.monotonic() + this.target.start_limit_s
    instance = _instance(this, release, instance_id)
    while time.monotonic() < deadline_s:
        instance = _instance(this, release, instance_id)
        _fail_if_crashed(this, release, instance)
        if instance.state == "running" and instance.port is not None:
            return instance
        this.token.wait(0.01)
        this.token.raise_if_cancelled()
    why = f": {instance.reason}" if instance.reason else ""
    raise PlatformError(f"the keeper has not started {release}{why}", remedy="see that penstock's keeper runs")


def _fail_if_crashed(this: Deployment, release: Release, instance: Instance) -> None:
    if instance.state == "exited" or instance.restarts:
        raise _failure(this, release, instance, f"crashed: {instance.reason}")


def _failure(this: Deployment, release: Release, instance: Instance, what: str) -> StepFailure:
    lines = tail(instance_log(this.settings, instance.id), LOG_LINES)
    for line in lines:
        this.log(f"  | {line}")
    said = "" if "last lines:" in what or not lines else f", last lines: {' | '.join(lines)}"
    serving = "the former release goes on serving" if release.previous else None
    return StepFailure(f"{what}{said}", where=str(release), remedy=serving)


def _instance(this: Deployment, release: Release, instance_id: str) -> Instance:
    with this.engine.begin() as connection:
        return next(one for one in instances_of(connection, release.id) if one.id == instance_id)


def _wait_for_caddy(this: Deployment) -> None:
    deadline_s = time.monotonic() + CADDY_LIMIT_S
    while caddy.running_configuration(this.settings) is None:
        if time.monotonic() > deadline_s:
            raise PlatformError("Caddy does not answer", remedy="see that it runs")
        this.token.wait(0.1)
        this.token.raise_if_cancelled()


def _switch(this: Deployment, release: Release) -> None:
    instance = _running_instance(this, release)
    try:
        port = _lead_traffic_to(this, release)
    except BaseException:
        if instance is not None and instance.port is not None:  # it may have been sent something meanwhile
            drain(instance.port, release.configuration.drain_s, this.token)
        raise
    this.log(f"traffic goes to {release}: http://127.0.0.1:{port}")


def _lead_traffic_to(this: Deployment, release: Release) -> int:
    """Caddy first, then the commit: killed in between, the keeper leads traffic back to what the tables say."""
    with routing_lock(this.settings):
        try:
            with this.locked.begin():
                port = ensure_route(this.locked, release.service, this.settings)
                make_live(this.locked, release)
                routing = apply_within(this.locked, this.settings)
                if port in routing.blocked or not routing.caddy_answers:
                    raise PlatformError(f"Caddy cannot serve port {port}", remedy="see who listens on it")
        except BaseException:
            with this.engine.begin() as connection:
                apply_within(connection, this.settings)
            raise
    return port


def _retire(this: Deployment, former: Release) -> None:
    _drain_and_stop(this.locked, this.plan.service, this.log, this.token)
    _await_stopped(this, former)
    this.log(f"{former} is superseded")


def _drain_and_stop(locked: sa.Connection, service: Service, log: Callable[[str], None], token: CancelToken) -> None:
    """
    What runs of the service without being live is stopped when its last requests are answered.

    That may be an instance of a release that never went live: Caddy was told, the commit did not happen.
    """
    with locked.begin():
        leaving = unrouted_instances(locked, service)
    for release, instance in leaving:
        limit_s = release.configuration.drain_s
        if instance.port is not None and (left := drain(instance.port, limit_s, token)):
            log(f"{release} is stopped with {left} connections open after {limit_s:g} s of draining")
        with locked.begin():
            stop_instances(locked, release.id)


def _await_stopped(this: Deployment, release: Release) -> None:
    """Bounded: a keeper that is away stops it as soon as it is back."""
    deadline_s = time.monotonic() + release.configuration.stop_grace_s + 2
    while time.monotonic() < deadline_s:
        with this.engine.begin() as connection:
            if all(one.state == "stopped" for one in instances_of(connection, release.id)):
                return
        time.sleep(0.01)


def _prune(this: Deployment) -> None:
    """Remove the files and images of releases that nobody will go back to. Their rows stay."""
    ended = [release for release in release_history(this.engine, this.plan.service) if release.ended_at]
    superseded = [release for release in ended if release.state == "superseded"]
    over = [*superseded[KEPT_RELEASES:], *(one for one in ended if one.state == "failed")]
    for name in {release.configuration.target for release in over}:
        target = this.target if name == this.plan.configuration.target else open_target(name, this.settings)
        target.forget([release.id for release in over if release.configuration.target == name])


@contextmanager
def _database_errors() -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _database_error(error) from error


def _database_error(error: sa.exc.DBAPIError) -> PlatformError:
    return PlatformError(f"the database went away: {str(error.orig).splitlines()[0]}")
