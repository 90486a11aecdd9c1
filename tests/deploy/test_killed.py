"""kill -9 of each part: what was live answers again, what was under way is undone, nothing is left over."""

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from penstock.deploy.plan import Service
from penstock.deploy.releases import instances_of, live_release, release_history
from penstock.deploy.rollout import INTERRUPTED, recover
from penstock.pipeline.cancel import CancelToken
from penstock.processes import spawn, stop_group, wait_until
from penstock.state.embedded import EmbeddedPostgres
from tests.deploy.conftest import running_platform

DEPLOY = """
import sys
from pathlib import Path
from penstock.deploy.plan import DeploymentPlan, Service, ServiceConfiguration
from penstock.deploy.health import HealthCheck
from penstock.deploy.rollout import deploy
from penstock.pipeline.cancel import CancelToken
from penstock.settings import load_settings
from penstock.state.database import create_engine
name, app, version, unhealthy = sys.argv[1:5]
settings = load_settings()
env = {"VERSION": version} | ({"UNHEALTHY": unhealthy} if unhealthy else {})
plan = DeploymentPlan(Service("shop", "production", name), version, version, "g", "r", Path(app), ServiceConfiguration(
    command=(sys.executable, "service.py"), env=env, health=HealthCheck(path="/health", start_period_s=120)))
deploy(plan, engine=create_engine(settings), settings=settings, log=print, token=CancelToken())
"""
APP = Path(__file__).parent / "app"


def killed_database(platform):
    """Its server, which is gone."""
    server = EmbeddedPostgres(platform.settings.home)
    os.kill(int((server.data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)
    assert wait_until(lambda: not server.answers(), limit_s=20)
    return server


def restart(server):
    """As a supervisor does, again and again: at first, processes of the killed one may still be in the way."""

    def started():
        process = server.spawn(die_with_parent=False)
        return wait_until(lambda: server.answers() or process.poll() is not None, limit_s=20) and server.answers()

    assert wait_until(started, limit_s=30)


def alive(pids):
    """Those that still run; an orphan that nobody has reaped does not."""
    found = [process for process in psutil.process_iter(["status"]) if process.pid in pids]
    return [process.pid for process in found if process.info["status"] != psutil.STATUS_ZOMBIE]


def deploying(platform, name, version, unhealthy="", output=subprocess.DEVNULL):
    """A deployment in a process of its own, which can be killed."""
    argv = [sys.executable, "-u", "-c", DEPLOY, name, str(APP), version, unhealthy]
    return spawn(argv, output=output, error=subprocess.DEVNULL, env=platform.env)


def newest(platform, name):
    return release_history(platform.engine, Service("shop", "production", name))[0]


def instance(platform, release):
    with platform.engine.begin() as connection:
        return instances_of(connection, release.id)[-1]


def has_instance(platform, name, state):
    with platform.engine.begin() as connection:
        found = instances_of(connection, newest(platform, name).id)
    return bool(found) and found[-1].state == state


def test_killed_instance_comes_back_and_says_why(platform):
    """It is started again on its port; the row says how often and how it ended."""
    release = platform.deploy(platform.plan("instance", "v1"))
    before = instance(platform, release)
    os.kill(before.pid, signal.SIGKILL)
    assert wait_until(lambda: instance(platform, release).restarts == 1, limit_s=20)
    assert wait_until(lambda: platform.answers("instance", "v1"), limit_s=20)
    after = instance(platform, release)
    assert after.port == before.port
    assert after.pid != before.pid
    assert after.reason == "killed by SIGKILL; last lines: version v1 starts"


def test_instance_that_keeps_ending_comes_back_each_time(platform):
    """The request that ended it is not tried on the next one; those that come meanwhile wait instead of failing."""
    release = platform.deploy(platform.plan("ending", "v1"))
    for ends in (1, 2):
        with pytest.raises(urllib.error.HTTPError, match="502"):
            platform.get("ending", "/end?code=3")
        assert wait_until(lambda ends=ends: instance(platform, release).restarts == ends, limit_s=20)
        assert platform.get("ending") == "v1"
    assert instance(platform, release).reason.startswith("exit code 3;")


def test_killed_caddy_serves_everything_again_when_restarted(platform):
    """The routes are there as soon as it is, also without a keeper."""
    platform.deploy(platform.plan("caddy", "v1"))
    platform.kill(platform.caddy)
    assert not platform.answers("caddy", "v1")
    platform.start_caddy()
    assert platform.answers("caddy", "v1")


def test_port_that_was_taken_meanwhile_keeps_no_other_service_down(platform):
    """The others are served, and this one too as soon as its port is free again."""
    for name in ("robbed", "unharmed"):
        platform.deploy(platform.plan(name, "v1"))
    platform.kill(platform.caddy)
    with socket.create_server(("127.0.0.1", urlsplit(platform.url("robbed")).port)):
        platform.start_caddy()
        assert platform.answers("unharmed", "v1")
    assert wait_until(lambda: platform.answers("robbed", "v1"), limit_s=20)


def test_deployment_waits_for_a_caddy_that_is_being_restarted(platform):
    """Healthy, but nobody to lead traffic to it: it waits, then switches."""
    platform.kill(platform.caddy)
    deployment = threading.Thread(target=lambda: platform.deploy(platform.plan("patient", "v1")))
    deployment.start()
    assert wait_until(lambda: has_instance_row(platform, "patient"), limit_s=20)
    platform.start_caddy()
    deployment.join()
    assert platform.get("patient") == "v1"


def has_instance_row(platform, name):
    history = release_history(platform.engine, Service("shop", "production", name))
    return bool(history) and has_instance(platform, name, "running")


def test_second_keeper_is_refused(platform):
    """Two would start everything twice."""
    argv = [sys.executable, "-m", "penstock.deploy.keeper"]
    second = subprocess.run(argv, env=platform.env, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 3
    assert second.stderr.startswith("another keeper runs for ")


@pytest.mark.parametrize("bwrap", [True, False], ids=["bwrap", "plain"])
def test_killed_keeper_takes_its_instances_along_and_the_next_starts_them(bwrap):
    """No instance runs twice, also when it had children of its own; the service answers again."""
    with running_platform(bwrap=bwrap) as platform:
        release = platform.deploy(platform.plan("kept", "v1", CHILD="yes"))
        before = [process.pid for process in platform.processes() if "service.py" in " ".join(process.cmdline())]
        platform.kill(platform.keeper)
        assert wait_until(lambda: not alive([instance(platform, release).pid]), limit_s=20)
        platform.start_keeper()
        assert wait_until(lambda: platform.answers("kept", "v1"), limit_s=20)
        assert not alive(before)
        assert instance(platform, release).restarts == 0


@pytest.mark.parametrize("bwrap", [True, False], ids=["bwrap", "plain"])
def test_terminated_platform_leaves_no_process(bwrap):
    """SIGTERM to keeper and Caddy: instances, their children, everything is gone; wanted is what was wanted."""
    with running_platform(bwrap=bwrap) as platform:
        release = platform.deploy(platform.plan("ended", "v1", CHILD="yes"))
        stop_group(platform.keeper, grace_s=15)
        stop_group(platform.caddy, grace_s=15)
        assert platform.processes() == []
        one = instance(platform, release)
        assert (one.desired, one.state, one.pid) == ("running", "stopped", None)
        platform.start()
        assert wait_until(lambda: platform.answers("ended", "v1"), limit_s=20)


def test_services_answer_while_the_database_is_away(own_platform):
    """Killed, it takes no service along; back, the keeper goes on and deployments work."""
    platform = own_platform
    release = platform.deploy(platform.plan("database", "v1"))
    url, pid = platform.url("database"), instance(platform, release).pid
    server = killed_database(platform)
    running = psutil.Process(pid).children(recursive=True)
    os.kill(pid, signal.SIGKILL)  # is restarted from what the keeper remembers
    psutil.wait_procs(running, timeout=20)
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.read() == b"v1"
    restart(server)
    assert wait_until(lambda: instance(platform, release).restarts == 1, limit_s=20)
    platform.deploy(platform.plan("database", "v2"))
    assert platform.get("database") == "v2"


def test_database_that_is_killed_during_a_deployment(own_platform):
    """The lock is lost with it, so nothing is switched: the former serves, the release has failed and says why."""
    platform = own_platform
    platform.deploy(platform.plan("torn", "v1"))
    deployment = deploying(platform, "torn", "v2", unhealthy="not yet")
    assert wait_until(
        lambda: has_instance(platform, "torn", "running") and newest(platform, "torn").number == 2, limit_s=20
    )
    server = killed_database(platform)
    restart(server)
    assert deployment.wait(60) != 0
    failed = newest(platform, "torn")
    assert failed.state == "failed"
    assert failed.reason.startswith("the database went away: ")
    assert platform.get("torn") == "v1"


def test_killed_deployment_is_undone_by_recover(platform):
    """Killed while it waited: failed as interrupted, its instance stopped, the former serves, the next one works."""
    platform.deploy(platform.plan("undone", "v1"))
    deployment = deploying(platform, "undone", "v2", unhealthy="not yet")
    assert wait_until(lambda: newest(platform, "undone").number == 2, limit_s=20)
    assert wait_until(lambda: has_instance(platform, "undone", "running"), limit_s=20)
    assert recover(platform.engine, platform.settings, print, CancelToken()) == []  # under way: left alone
    platform.kill(deployment)
    assert wait_until(
        lambda: [one.number for one in recover(platform.engine, platform.settings, print, CancelToken())] == [2],
        limit_s=20,
    )
    failed = newest(platform, "undone")
    assert (failed.state, failed.reason) == ("failed", INTERRUPTED)
    assert wait_until(lambda: has_instance(platform, "undone", "stopped"), limit_s=20)
    assert platform.get("undone") == "v1"
    assert platform.deploy(platform.plan("undone", "v3")).number == 3
    assert platform.get("undone") == "v3"


@pytest.mark.parametrize("phase", ["release", "instance", "healthy", "traffic", "superseded"])
def test_deployment_killed_in_each_phase_leaves_one_live_version(platform, phase):
    """Killed as soon as it says so: what is live answers, alone, and the next deployment works."""
    name = f"phase-{phase}"
    platform.deploy(platform.plan(name, "v1"))
    deployment = deploying(platform, name, "v2", output=subprocess.PIPE)
    while (line := deployment.stdout.readline()) and phase.encode() not in line:
        assert platform.answers(name, "v1") or platform.answers(name, "v2")
    platform.kill(deployment)
    deployment.stdout.close()
    assert wait_until(lambda: settled(platform, name), limit_s=20)
    platform.deploy(platform.plan(name, "v3"))
    assert platform.get(name) == "v3"
    assert wait_until(lambda: settled(platform, name), limit_s=20)


def settled(platform, name):
    """Nothing is pending, and exactly the live release has an instance, which answers."""
    recover(platform.engine, platform.settings, print, CancelToken())
    history = release_history(platform.engine, Service("shop", "production", name))
    running = [release for release in history if has_running(platform, release)]
    live = [release for release in history if release.state == "live"]
    answering = [release for release in live if platform.answers(name, release.configuration.env["VERSION"])]
    return running == live == answering and len(live) == 1


def has_running(platform, release):
    with platform.engine.begin() as connection:
        return any(one.state != "stopped" for one in instances_of(connection, release.id))


def test_next_deployment_clears_up_after_a_killed_one(platform):
    """Also without a restart of the platform."""
    deployment = deploying(platform, "cleared", "v1", unhealthy="not yet")
    assert wait_until(lambda: has_instance_row(platform, "cleared"), limit_s=20)
    platform.kill(deployment)
    platform.deploy(platform.plan("cleared", "v2"))
    states = [one.state for one in release_history(platform.engine, Service("shop", "production", "cleared"))]
    assert states == ["live", "failed"]


def test_deployment_killed_after_its_switch_is_finished_by_recover(platform):
    """The new release stays live; the former instance answers what it began, then it is stopped."""
    former = platform.deploy(platform.plan("switched", "v1"))
    answers = []
    slow = threading.Thread(target=lambda: answers.append(platform.get("switched", "/?s=4")))
    slow.start()
    deployment = deploying(platform, "switched", "v2")
    assert wait_until(
        lambda: newest(platform, "switched").state == "live" and newest(platform, "switched").number == 2, limit_s=20
    )
    platform.kill(deployment)
    assert instance(platform, former).desired in ("running", "draining")  # its request is not answered yet
    assert wait_until(
        lambda: (
            recover(platform.engine, platform.settings, print, CancelToken()) == []
            and instance(platform, former).desired == "stopped"
        ),
        limit_s=20,
    )
    assert wait_until(lambda: instance(platform, former).state == "stopped", limit_s=20)
    slow.join()
    assert answers == ["v1"]
    with platform.engine.begin() as connection:
        live = live_release(connection, Service("shop", "production", "switched"))
    assert live is not None
    assert live.number == 2
    assert platform.get("switched") == "v2"


def test_keeper_that_is_restarted_during_a_deployment_does_not_fail_it(own_platform):
    """The instance is started again and becomes healthy."""
    platform = own_platform
    deployment = threading.Thread(target=lambda: platform.deploy(platform.plan("carried", "v1", SLOW_START_S="1")))
    deployment.start()
    assert wait_until(lambda: has_instance_row(platform, "carried"), limit_s=20)
    platform.kill(platform.keeper)
    platform.start_keeper()
    deployment.join()
    assert platform.get("carried") == "v1"


def finished(platform, former):
    """Recovering marked nothing as failed and stopped the former instance."""
    assert recover(platform.engine, platform.settings, print, CancelToken()) == []
    return instance(platform, former).desired == "stopped"
