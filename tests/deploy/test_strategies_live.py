"""Every strategy on a real platform: forward under load, and back by itself when the new release is broken."""

from urllib.parse import urlsplit

import pytest

from penstock.deploy.strategies import Settings
from penstock.deploy.verification import Check
from penstock.errors import StepFailure
from penstock.processes import wait_until
from tests.deploy.load import Client, Load
from tests.deploy.rollout_plans import (
    BESIDE,
    BLUE_GREEN,
    CANARY,
    RECREATE,
    ROLLING,
    history,
    only_live_runs,
    plan,
    rollout,
    running,
    states,
)

BROKEN = {
    "sick by and by": {"SICK_AFTER_S": "1.2", "watch_s": 3.0},
    "dies by and by": {"DIES_AFTER_S": "1.2", "watch_s": 3.0},
}


LIGHT: tuple[Client, ...] = ((True, "GET", "/"), (False, "GET", "/"), (True, "POST", "/?s=0.3"))


def load(platform, name):
    return Load(urlsplit(platform.url(name)).netloc, LIGHT)


@pytest.mark.parametrize("strategy", BESIDE.values(), ids=BESIDE)
def test_forward_and_back_without_a_failed_request(platform, strategy):
    """Three instances each; the new ones take over, and a broken release leaves the old ones as they were."""
    name = f"forward-{strategy.name}"
    platform.deploy(plan(platform, name, "v1", strategy, replicas=3))
    with load(platform, name) as sent:
        second = platform.deploy(plan(platform, name, "v2", strategy, replicas=3))
        with pytest.raises(StepFailure, match=r"crashed: exit code 7; last lines: .*no config"):
            platform.deploy(plan(platform, name, "v3", strategy, replicas=3, CRASH="no config"))
    assert sent.failures == []
    assert set(sent.answers) == {"v1", "v2"}
    assert states(platform, name) == [(3, "failed"), (2, "live"), (1, "superseded")]
    assert len(running(platform, second)) == 3
    assert only_live_runs(platform, name)


@pytest.mark.parametrize(
    ("strategy", "how"),
    [(ROLLING, "dies by and by"), (BLUE_GREEN, "sick by and by"), (CANARY, "sick by and by")],
    ids=["rolling", "blue_green", "canary"],
)
def test_broken_release_is_taken_back_by_itself(platform, strategy, how):
    """However it breaks: the former one serves, whole, and the message says what the instance said."""
    name = f"broken-{strategy.name}-{how}".replace(" ", "-")
    platform.deploy(plan(platform, name, "v1", strategy, replicas=2))
    with load(platform, name) as sent, pytest.raises(StepFailure) as error:
        platform.deploy(plan(platform, name, "v2", strategy, replicas=2, **BROKEN[how]))
    assert "version v2 starts" in str(error.value)
    assert "the former release goes on serving" in str(error.value)
    assert states(platform, name) == [(2, "failed"), (1, "live")]
    assert history(platform, name)[0].reason == error.value.what
    assert only_live_runs(platform, name)
    if "dies" not in how:  # what was being answered by a process that ends is lost with it
        assert sent.failures == []


def test_slow_starter_takes_over_when_it_is_ready(platform):
    """Its limit has not passed: it is no failure."""
    name = "slow-rolling"
    platform.deploy(plan(platform, name, "v1", replicas=2))
    with load(platform, name) as sent:
        platform.deploy(plan(platform, name, "v2", replicas=2, SLOW_START_S="1"))
    assert sent.failures == []
    assert only_live_runs(platform, name)


def test_recreate_never_runs_two(platform):
    """A service that refuses to run twice is replaced, also when the new release is broken, and then comes back."""
    platform.deploy(plan(platform, "alone", "v1", RECREATE, ALONE="yes"))
    platform.deploy(plan(platform, "alone", "v2", RECREATE, ALONE="yes"))
    assert platform.get("alone") == "v2"
    with pytest.raises(StepFailure, match="no config"):
        platform.deploy(plan(platform, "alone", "v3", RECREATE, ALONE="yes", CRASH="no config"))
    assert wait_until(lambda: platform.answers("alone", "v2"), limit_s=20)
    assert states(platform, "alone") == [(3, "failed"), (2, "live"), (1, "superseded")]
    assert only_live_runs(platform, "alone")
    every = [one for release in history(platform, "alone") for one in instances(platform, release)]
    assert not [one for one in every if "another one runs" in (one.reason or "")]


def instances(platform, release):
    from penstock.deploy.releases import instances_of

    with platform.engine.begin() as connection:
        return instances_of(connection, release.id)


def test_number_of_instances_changes_with_a_release(platform):
    """More, then fewer; each instance gets requests."""
    platform.deploy(plan(platform, "size", "v1", replicas=1))
    more = platform.deploy(plan(platform, "size", "v2", replicas=4))
    assert len(running(platform, more)) == 4
    platform.deploy(plan(platform, "size", "v3", replicas=2))
    assert only_live_runs(platform, "size")


VERIFY = Check(name="greeting", path="/", body="v2")
FILES = Check(name="files", command="test -f service.py")
UNMET = Check(name="greeting", path="/", body="Willkommen")


@pytest.mark.parametrize("strategy", [ROLLING, BLUE_GREEN], ids=["rolling", "blue_green"])
def test_verification_comes_before_traffic(platform, strategy):
    """It asks the new instance itself; who fails it gets no request."""
    name = f"verified-{strategy.name}"
    platform.deploy(plan(platform, name, "v1", strategy))
    platform.deploy(plan(platform, name, "v2", strategy, verify=(VERIFY, FILES)))
    with load(platform, name) as sent, pytest.raises(StepFailure, match=r'greeting: GET .* 200 "v3", expected "Willk'):
        platform.deploy(plan(platform, name, "v3", strategy, verify=(UNMET,)))
    assert set(sent.answers) == {"v2"}
    assert only_live_runs(platform, name)


@pytest.mark.parametrize("strategy", [ROLLING, BLUE_GREEN, RECREATE], ids=["rolling", "blue_green", "recreate"])
def test_smoke_tests_come_after_the_switch_and_take_it_back(platform, strategy):
    """They ask where everybody asks; the former release is there until they have passed."""
    name = f"smoked-{strategy.name}"
    platform.deploy(plan(platform, name, "v1", strategy))
    platform.deploy(plan(platform, name, "v2", strategy, smoke=(VERIFY,)))
    with pytest.raises(StepFailure, match=r'smoke tests failed: greeting: GET .*expected "Willkommen"'):
        platform.deploy(plan(platform, name, "v3", strategy, smoke=(UNMET,)))
    assert states(platform, name) == [(3, "failed"), (2, "live"), (1, "superseded")]
    assert only_live_runs(platform, name)
    assert any("smoke tests: 1 of 1 passed" in event.text for event in rollout_events(platform, name, 2))


def rollout_events(platform, name, number):
    from penstock.deploy.rollouts import rollout_of

    release = next(one for one in history(platform, name) if one.number == number)
    with platform.engine.begin() as connection:
        return rollout_of(connection, release.id).events


def test_first_release_that_fails_its_smoke_tests_leaves_nothing(platform):
    """There is nothing to go back to: no traffic, no instance, no address."""
    with pytest.raises(StepFailure, match="smoke tests failed"):
        platform.deploy(plan(platform, "smoked-first", "v1", smoke=(UNMET,)))
    assert states(platform, "smoked-first") == [(1, "failed")]
    assert running(platform, history(platform, "smoked-first")[0]) == []
    assert not rollout(platform, "smoked-first").is_open


def test_kept_former_release_is_stopped_when_its_time_is_over(platform):
    """Blue/green: both run for a while after the switch."""
    strategy = Settings(name="blue_green", keep_s=0.5)
    platform.deploy(plan(platform, "kept-blue", "v1", strategy))
    platform.deploy(plan(platform, "kept-blue", "v2", strategy))
    assert rollout(platform, "kept-blue").clock_s >= 0.5
    assert only_live_runs(platform, "kept-blue")
