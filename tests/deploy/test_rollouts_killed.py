"""kill -9 of what drives a rollout, in every phase of every strategy: finished or undone, and traffic throughout."""

import subprocess
import sys

import msgspec
import pytest

from penstock.deploy.rollout import carry, recover
from penstock.deploy.strategies import CanaryStep, Settings
from penstock.pipeline.cancel import CancelToken
from penstock.processes import spawn, wait_until
from tests.deploy.conftest import APP
from tests.deploy.rollout_plans import RECREATE, has_rollout, only_live_runs, plan, rollout, states

DEPLOY = """
import sys
from pathlib import Path
import msgspec
from penstock.deploy.plan import DeploymentPlan, Service, ServiceConfiguration
from penstock.deploy.rollout import deploy
from penstock.pipeline.cancel import CancelToken
from penstock.settings import load_settings
from penstock.state.database import create_engine
name, app, version, configuration = sys.argv[1:5]
settings = load_settings()
plan = DeploymentPlan(Service("shop", "production", name), version, version, "g", "r", Path(app),
    msgspec.json.decode(configuration, type=ServiceConfiguration))
deploy(plan, engine=create_engine(settings), settings=settings, log=print, token=CancelToken())
"""
STEPS = (CanaryStep(weight=30, hold_s=0.5), CanaryStep(weight=70, hold_s=0.5))
PHASES = {
    "rolling": (Settings(name="rolling"), ["is healthy", "1 of 2"]),
    "blue_green": (Settings(name="blue_green", keep_s=2.0), ["switching", "is kept for"]),
    "canary": (Settings(name="canary", steps=STEPS), ["step 1 of 2, 30 %: held", "all steps are done"]),
    "recreate": (RECREATE, ["stopping", "is healthy"]),
}
CASES = [(name, strategy, line) for name, (strategy, lines) in PHASES.items() for line in lines]


def deploying(platform, made):
    """A deployment in a process of its own, which can be killed."""
    configuration = msgspec.json.encode(made.configuration).decode()
    argv = [sys.executable, "-u", "-c", DEPLOY, made.service.name, str(APP), "v2", configuration]
    return spawn(argv, output=subprocess.PIPE, error=subprocess.DEVNULL, env=platform.env)


@pytest.mark.parametrize(("name", "strategy", "line"), CASES, ids=[f"{name}-{line}" for name, _, line in CASES])
def test_driver_killed_in_each_phase(platform, name, strategy, line):
    """As soon as it says so. One live release in its number answers; what was undone says that it was interrupted."""
    service = f"killed-{name}-{line}".replace(" ", "-").replace(",", "").replace(":", "").replace("%", "")
    beside = strategy is not RECREATE
    replicas = 2 if beside else 1
    platform.deploy(plan(platform, service, "v1", strategy, replicas=replicas))
    driver = deploying(platform, plan(platform, service, "v2", strategy, replicas=replicas))
    while (said := driver.stdout.readline().decode()) and line not in said:
        if beside:
            assert platform.get(service) in ("v1", "v2")
    platform.kill(driver)
    driver.stdout.close()
    assert has_rollout(platform, service, 2)
    if beside:
        assert platform.get(service) in ("v1", "v2")  # nobody drives, and it answers
    assert wait_until(lambda: settled(platform, service), limit_s=30)
    assert only_live_runs(platform, service)
    (_, second), (_, first) = states(platform, service)
    assert (second, first) in {("live", "superseded"), ("failed", "live")}
    if second == "failed":
        assert rollout(platform, service).trouble == "the deployment was interrupted"


def settled(platform, service):
    """After `recover`, as at the platform's start, and then a look of the platform's own driver."""
    recover(platform.engine, platform.settings, print, CancelToken())
    carry(platform.engine, platform.settings, print, CancelToken(), rollout(platform, service).service)
    return not rollout(platform, service).is_open
