"""Plans of every strategy, and what can be asked of a rollout: shared by the tests of rollouts."""

import attrs
import msgspec

from penstock.deploy.health import HealthCheck
from penstock.deploy.plan import DeploymentPlan, Service
from penstock.deploy.releases import Instance, Release, instances_of, release_history
from penstock.deploy.rollouts import Rollout, find_rollouts
from penstock.deploy.strategies import CanaryStep, Settings
from penstock.processes import wait_until
from penstock.state.rollout_tables import rollouts
from tests.deploy.conftest import Platform

QUICK = HealthCheck(path="/health", interval_s=0.1, timeout_s=2.0, unhealthy_after=3, start_period_s=20.0)
ROLLING = Settings(name="rolling", max_surge=1, max_unavailable=0)
BLUE_GREEN = Settings(name="blue_green")
CANARY = Settings(name="canary", steps=(CanaryStep(weight=20, hold_s=0.3), CanaryStep(weight=60, hold_s=0.3)))
BY_HAND = Settings(name="canary", steps=(CanaryStep(weight=30, hold_s=None),))
RECREATE = Settings(name="recreate")
BESIDE = {"rolling": ROLLING, "blue_green": BLUE_GREEN, "canary": CANARY}


def plan(platform: Platform, name: str, version: str, strategy: Settings = ROLLING, **given: object) -> DeploymentPlan:
    """given: fields of ServiceConfiguration in lower case, variables of the service in upper case."""
    env = {key: str(value) for key, value in given.items() if key.isupper()}
    fields = {key: value for key, value in given.items() if not key.isupper()}
    made = platform.plan(name, version, health=fields.pop("health", QUICK), **env)
    configuration = msgspec.structs.replace(made.configuration, strategy=strategy, **fields)
    return attrs.evolve(made, configuration=configuration)


def service(name: str) -> Service:
    return Service("shop", "production", name)


def history(platform: Platform, name: str) -> list[Release]:
    return release_history(platform.engine, service(name))


def states(platform: Platform, name: str) -> list[tuple[int, str]]:
    return [(one.number, one.state) for one in history(platform, name)]


def running(platform: Platform, release: Release) -> list[Instance]:
    with platform.engine.begin() as connection:
        return [one for one in instances_of(connection, release.id) if one.state != "stopped"]


def only_live_runs(platform: Platform, name: str) -> bool:
    """Exactly the live release has instances, in its number, and it answers; nothing is pending or open, soon."""
    return wait_until(lambda: _only_live_runs(platform, name), limit_s=20)


def _only_live_runs(platform: Platform, name: str) -> bool:
    found = history(platform, name)
    live = [one for one in found if one.state == "live"]
    if len(live) != 1 or any(one.state == "pending" for one in found) or rollout(platform, name).is_open:
        return False
    counts = {one.id: len(running(platform, one)) for one in found}
    wanted = {one.id: one.configuration.replicas if one == live[0] else 0 for one in found}
    return counts == wanted and platform.answers(name, live[0].configuration.env["VERSION"])


def rollout(platform: Platform, name: str) -> Rollout:
    """The newest of the service."""
    with platform.engine.begin() as connection:
        return find_rollouts(connection, conditions=[rollouts.c.service == name], limit=1)[0]


def has_rollout(platform: Platform, name: str, number: int) -> bool:
    """Whether release `number` is on its way, or was."""
    return any(one.number == number for one in history(platform, name))


def wait_for_weight(platform: Platform, name: str, number: int, weight: int) -> None:
    def reached() -> bool:
        return has_rollout(platform, name, number) and rollout(platform, name).weight == weight

    assert wait_until(reached, limit_s=20)
