"""The way back: a release that must not go on, and all that is left of it."""

import time

import attrs
import sqlalchemy as sa

from penstock.deploy import rollouts
from penstock.deploy.probing import Probes, fleet
from penstock.deploy.releases import (
    Instance,
    Release,
    drain_instances,
    fail_release,
    set_ready,
    take_back,
    unrouted_instances,
    want_instance,
    wanted_instances,
)
from penstock.deploy.rollouts import Rollout
from penstock.deploy.routing import set_shares
from penstock.deploy.site import Drains, Site, await_stopped, traffic
from penstock.errors import PenstockError
from penstock.pipeline.cancel import CancelToken

AGAIN_HEALTHY_S = 60.0  # how long instances that are started again are waited for before the others go
LOOK_EVERY_S = 0.05


def undo(site: Site, rollout: Rollout, release: Release, former: Release | None, reason: str) -> None:
    """
    All traffic is at `former`, in its full number; nothing of `release` runs, and it has failed.

    May be done again from wherever it was cut off: the rollout is over when it is done whole.
    """
    site = attrs.evolve(site, token=CancelToken())  # also for who was cancelled
    with traffic(site, at_once=False) as connection:
        take_back(connection, release, former)
        fail_release(connection, release.id, reason)
        if former:
            _restore(connection, former)
        set_shares(connection, site.service, {former.id: 100} if former else {})
    if former:
        _await_healthy(site, former)
    stop_leftovers(site)
    await_stopped(site, release)
    site.target(release).forget([release.id])
    with site.locked.begin():
        rollouts.end(site.locked, rollout.id, "failed", reason)
        rollouts.tell_warehouse(site.locked, release.run_id)
        rollouts.note(site.locked, rollout, f"{release} failed: {reason}")
    site.log(f"{release} failed: {reason}")


def _restore(connection: sa.Connection, former: Release) -> None:
    """As many instances as it was made for. Where none is left, the first one gets traffic as soon as it listens."""
    there = wanted_instances(connection, former.id)
    for _ in range(former.configuration.replicas - len(there)):
        want_instance(connection, former.id)
    there = wanted_instances(connection, former.id)
    if not any(one.ready for one in there):
        set_ready(connection, [one.id for one in there], ready=True)


def _await_healthy(site: Site, former: Release) -> None:
    """Those that were started again get their part of the traffic when they are healthy; the wait has an end."""
    probes, deadline_s = Probes(site.target(former), former, strict=False), time.monotonic() + AGAIN_HEALTHY_S
    try:
        while time.monotonic() < deadline_s and (waiting := _unready(site, former)):
            seen = probes.look(waiting)
            well = [name for name, one in seen.items() if one.condition == "healthy"]
            if well:
                with traffic(site, at_once=False) as connection:
                    set_ready(connection, well, ready=True)
            if fleet(seen).failed == len(seen):
                return
            time.sleep(LOOK_EVERY_S)
    except PenstockError as error:
        site.log(f"{former}: {error}")
    finally:
        probes.close()


def _unready(site: Site, former: Release) -> list[Instance]:
    with site.locked.begin():
        return [one for one in wanted_instances(site.locked, former.id) if not one.ready]


def stop_leftovers(site: Site) -> None:
    """What runs of the service without being live is stopped when its last requests are answered."""
    with site.locked.begin():
        leaving = unrouted_instances(site.locked, site.service)
    if not leaving:
        return
    with traffic(site, at_once=False) as connection:
        drain_instances(connection, [one.id for _, one in leaving])
    drains = Drains(site)
    for release, instance in leaving:
        drains.begin(release, instance)
    drains.finish()
