"""
Deployments: a release made, rolled out, and undone when it fails; and what was cut off, gone on with.

Until all traffic is at the new release the former one can serve, whatever happens. Each change of traffic is one
transaction, made on the connection that holds the service's lock, after Caddy has taken it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import sqlalchemy as sa

from penstock.deploy import rollouts
from penstock.deploy.claims import check_claims
from penstock.deploy.driving import Drive
from penstock.deploy.locks import free_service, service_lock
from penstock.deploy.pins import check_unpinned, follow
from penstock.deploy.plan import DeploymentPlan, Service, Source
from penstock.deploy.releases import (
    Release,
    create_release,
    fail_release,
    get_release,
    live_release,
    pending_releases,
    release_history,
    services_with_leftovers,
    wanted_instances,
)
from penstock.deploy.rollouts import Rollout
from penstock.deploy.routing import apply_routes
from penstock.deploy.site import Site, await_stopped
from penstock.deploy.sources import kept_source, plan_again
from penstock.deploy.strategies.way_back import is_back
from penstock.deploy.targets import open_target
from penstock.deploy.undoing import stop_leftovers, undo
from penstock.errors import Cancelled, PenstockError, PlatformError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.settings import Settings

DATABASE_LIMIT_S = 10.0
KEPT_RELEASES = 5  # superseded ones whose files or images stay, so that there is a way back
INTERRUPTED = "the deployment was interrupted"


def deploy(
    plan: DeploymentPlan,
    *,
    engine: sa.Engine,
    settings: Settings,
    log: Callable[[str], None],
    token: CancelToken,
    actor: str = "",
) -> Release:
    """
    Make the plan's release live and return it; the same commit, digest and configuration twice is one release.

    log: told in lines what happens. Waits while another deployment of the service is under way.
    Raises: StepFailure when the release crashes, does not become or stay healthy, or does not stand its verification,
    with the last probe's answer and the last lines of its log, when somebody pinned the service, and when one of its
    domains is another's or cannot be served; Cancelled;
    PlatformError when keeper, Caddy or database are away. In each case the new instances are stopped, the release has
    failed, and the former one serves.
    """
    with _database_errors(), service_lock(engine, plan.service, log, token) as locked:
        site = Site(plan.service, engine, settings, log, token, locked)
        _go_on_with_open_ones(site)
        _clear(site)
        with locked.begin():
            former = live_release(locked, plan.service)
            check_unpinned(locked, plan.service)
        if former and _is_the_same(site, plan, former):
            log(f"{former} is this very one, live and healthy")
            return former
        with locked.begin():
            check_claims(locked, plan, settings)
            release = create_release(locked, plan, former.id if former else None)
            rollout = _opened(locked, release, former, actor)
        return _roll_out(site, rollout, release, former, plan.source)


def recover(engine: sa.Engine, settings: Settings, log: Callable[[str], None], token: CancelToken) -> list[Release]:
    """
    Undo or finish what deployments that were killed have left; those under way are left alone.

    What somebody asked for by hand, and what still has to be watched, is carried on by the platform (`carry`).
    Returns: the releases that have failed by that.
    """
    failed: list[Release] = []
    with engine.begin() as connection:
        services = services_with_leftovers(connection)
        services += [one.service for one in rollouts.open_rollouts(connection) if one.state == "going"]
    for service in dict.fromkeys(services):
        with free_service(engine, service) as locked:
            if locked is not None:
                failed += _recovered(Site(service, engine, settings, log, token, locked))
    return failed


def _recovered(site: Site) -> list[Release]:
    """One service that cannot be mended now keeps no other from it."""
    try:
        return _clear(site)
    except PenstockError as error:
        site.log(f"{site.service} is mended later: {error}")
        return []


def carry(
    engine: sa.Engine, settings: Settings, log: Callable[[str], None], token: CancelToken, service: Service
) -> None:
    """
    Carry out what is open of a service, if nobody does: begin what was asked for, go on with or undo what was cut off.

    token: when it is cancelled, what is under way stays as it is, for the next one.
    Raises: what a rollout fails with; it is undone then.
    """
    with free_service(engine, service) as locked:
        if locked is None:
            return
        site = Site(service, engine, settings, log, token, locked)
        _go_on_with_open_ones(site)
        _clear(site)
        with locked.begin():
            asked = [one for one in rollouts.open_rollouts(locked, service) if one.state == "requested"]
        for rollout in asked[:1]:
            _begin_asked(site, rollout)


def _opened(locked: sa.Connection, release: Release, former: Release | None, actor: str) -> Rollout:
    return rollouts.open_rollout(
        locked,
        release.service,
        release.configuration.strategy,
        kind="deployment",
        release_id=release.id,
        former_id=former.id if former else None,
        actor=actor,
    )


def _begin_asked(site: Site, rollout: Rollout) -> None:
    """A release of its own for what somebody asked for, made of what the source was made of."""
    with site.locked.begin():
        if rollouts.get_rollout(site.locked, rollout.id).state != "requested":
            return
        source = get_release(site.locked, rollout.source_id or "")
        former = live_release(site.locked, site.service)
        plan = plan_again(source, rollout)
        try:
            check_claims(site.locked, plan, site.settings)
        except StepFailure as error:
            rollouts.withdraw(site.locked, rollout, str(error))
            return
        release = create_release(site.locked, plan, former.id if former else None)
        rollout = rollouts.begin(site.locked, rollout.id, release.id, former.id if former else None)
    _roll_out(site, rollout, release, former, kept_source(site.settings, source))


def _go_on_with_open_ones(site: Site) -> None:
    """What was cut off and is not to be undone: asked for by hand, or past its switch."""
    with site.locked.begin():
        going = [one for one in rollouts.open_rollouts(site.locked, site.service) if one.state == "going"]
    for rollout in going:
        release, former = _sides(site, rollout)
        if release.state == "live" or (release.state == "pending" and rollout.kind != "deployment"):
            _carry_on(site, rollout, release, former)


def _carry_on(site: Site, rollout: Rollout, release: Release, former: Release | None) -> None:
    """What it fails with is in its row: whoever comes by is not to fail with it."""
    site.log(f"going on with {release}")
    try:
        _roll_out(site, rollout, release, former, _source_of(site, rollout), own=False)
    except Cancelled:  # of whoever came by: the next one goes on
        raise
    except PenstockError as error:
        site.log(str(error))


def _source_of(site: Site, rollout: Rollout) -> Source | None:
    if rollout.source_id is None:
        return None
    with site.locked.begin():
        return kept_source(site.settings, get_release(site.locked, rollout.source_id))


def _sides(site: Site, rollout: Rollout) -> tuple[Release, Release | None]:
    with site.locked.begin():
        release = get_release(site.locked, rollout.release_id or "")
        return release, get_release(site.locked, rollout.former_id) if rollout.former_id else None


def _clear(site: Site) -> list[Release]:
    """Undo or finish what a deployment that was cut off has left. Whoever holds the lock knows that it is over."""
    failed: list[Release] = []
    with site.locked.begin():
        going = [one for one in rollouts.open_rollouts(site.locked, site.service) if one.state == "going"]
    busy = False
    for rollout in going:
        release, former = _sides(site, rollout)
        if release.state == "failed" or (release.state == "pending" and rollout.kind == "deployment"):
            failed += [release] if release.state == "pending" else []
            undo(site, rollout, release, former, release.reason or INTERRUPTED)
        elif release.state == "live" and not _waits(rollout, release):
            _carry_on(site, rollout, release, former)
        else:
            busy = True
    if not busy:
        failed += _clear_without_rollout(site)
    return failed


def _waits(rollout: Rollout, release: Release) -> bool:
    """Whether something is still to be seen after the switch, or it is on its way back."""
    configuration = release.configuration
    after = configuration.watch_s or configuration.smoke or rollout.strategy.keep_s
    return is_back(rollout.progress) or bool(after)


def _clear_without_rollout(site: Site) -> list[Release]:
    """What runs and belongs to nothing that is going on."""
    with site.locked.begin():
        interrupted = pending_releases(site.locked, site.service)
        for release in interrupted:
            fail_release(site.locked, release.id, INTERRUPTED)
    stop_leftovers(site)
    return interrupted


def _is_the_same(site: Site, plan: DeploymentPlan, former: Release) -> bool:
    same = (former.commit, former.digest, former.configuration) == (plan.commit, plan.digest, plan.configuration)
    if not same:
        return False
    with site.locked.begin():
        running = [one for one in wanted_instances(site.locked, former.id) if one.state == "running"]
    target, health = site.target(former), plan.configuration.health
    if len(running) < plan.configuration.replicas or not all(target.probe(health, one).good for one in running):
        return False
    return apply_routes(site.engine, site.settings).caddy_answers


def _roll_out(
    site: Site, rollout: Rollout, release: Release, former: Release | None, source: Source | None, *, own: bool = True
) -> Release:
    """own: whether whoever may be cancelled asked for it. Who only carries it on for others lets it be."""
    site.log(f"{release}: commit {release.commit[:12]}, digest {release.digest[:19]}")
    with _undone_on_error(site, rollout, release, former, own=own):
        if release.state == "pending":
            site.target(release).place(release, source, site.token)
        Drive(site, rollout, release, former).run()
    with site.locked.begin():
        rollouts.end(site.locked, rollout.id, "succeeded", None)
        follow(site.locked, site.service, release.number)
        rollouts.tell_warehouse(site.locked, release.run_id)
    if former:
        await_stopped(site, former)
        site.log(f"{former} is superseded")
    _prune(site)
    with site.engine.begin() as connection:
        return get_release(connection, release.id)


@contextmanager
def _undone_on_error(
    site: Site, rollout: Rollout, release: Release, former: Release | None, *, own: bool
) -> Iterator[None]:
    """Whatever ends the block early, the release has failed, its instances are stopped and its files are gone."""
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, Cancelled) and (isinstance(site.token, LettingGo) or not own)):
            _undo(site, rollout, release, former, _reason(error))
        raise


class LettingGo(CancelToken):
    """Of a driver that may end at any time: what it drives goes on where it is, with the next one."""


def _reason(error: BaseException) -> str:
    if isinstance(error, Cancelled):
        return f"cancelled: {error.what}"
    if isinstance(error, sa.exc.DBAPIError):
        return _database_error(error).what
    return error.what if isinstance(error, PenstockError) else f"{type(error).__name__}: {error}"


def _undo(site: Site, rollout: Rollout, release: Release, former: Release | None, reason: str) -> None:
    """
    A database that is just being restarted is waited for; one that stays away leaves the rest to `recover`.

    With it the lock is gone; if somebody else has it now, the rest is theirs.
    """
    deadline_s = time.monotonic() + DATABASE_LIMIT_S
    try:
        undo(site, rollout, release, former, reason)
        return
    except sa.exc.DBAPIError:
        pass
    while time.monotonic() < deadline_s:
        try:
            with free_service(site.engine, site.service) as locked:
                if locked is not None:
                    undo(attrs.evolve(site, locked=locked), rollout, release, former, reason)
                return
        except sa.exc.DBAPIError:
            time.sleep(0.2)
    site.log(f"{release}: the database stays away; the release is marked as failed at the next start")


def _prune(site: Site) -> None:
    """Remove the files and images of releases that nobody will go back to. Their rows stay."""
    ended = [release for release in release_history(site.engine, site.service) if release.ended_at]
    superseded = [release for release in ended if release.state == "superseded"]
    over = [*superseded[KEPT_RELEASES:], *(one for one in ended if one.state == "failed")]
    for name in {release.configuration.target for release in over}:
        target = open_target(name, site.settings)
        target.forget([release.id for release in over if release.configuration.target == name])


@contextmanager
def _database_errors() -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _database_error(error) from error


def _database_error(error: sa.exc.DBAPIError) -> PlatformError:
    return PlatformError(f"the database went away: {str(error.orig).splitlines()[0]}")
