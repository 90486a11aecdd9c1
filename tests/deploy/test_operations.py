"""What people do by hand: go back and forth, hold, pause, promote, abort; durable, audited, done by the platform."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from penstock.deploy import operations
from penstock.deploy.carrying import Carrier
from penstock.deploy.releases import release_folder
from penstock.deploy.rollouts import get_rollout
from penstock.errors import ConflictError, NotFoundError, StepFailure
from penstock.people.audit import list_changes
from penstock.processes import spawn, wait_until
from tests.deploy.rollout_plans import (
    BY_HAND,
    RECREATE,
    has_rollout,
    history,
    only_live_runs,
    plan,
    rollout,
    service,
    states,
    wait_for_weight,
)

CARRY = """
import sys, time
from penstock.deploy.carrying import Carrier
from penstock.settings import load_settings
from penstock.state.database import create_engine
settings = load_settings()
Carrier(create_engine(settings), settings).start()
time.sleep(600)
"""


@pytest.fixture
def carrier(platform) -> Iterator[Carrier]:
    """The platform's driver, as the API runs it."""
    made = Carrier(platform.engine, platform.settings)
    made.start()
    yield made
    made.stop()


def ask_rollback(platform, name, number=None, same=False):
    return operations.ask_rollback(
        platform.engine, platform.settings, service(name), number=number, same=same, actor="ada", why="orders fail"
    )


def ended(platform, asked):
    def is_over() -> bool:
        with platform.engine.begin() as connection:
            return not get_rollout(connection, asked.id).is_open

    assert wait_until(is_over, limit_s=30)
    with platform.engine.begin() as connection:
        return get_rollout(connection, asked.id)


def versions(platform, name, *names, **given):
    return [platform.deploy(plan(platform, name, version, **given)) for version in names]


def test_rollback_is_a_release_of_its_own(platform, carrier):
    """The same digest and configuration, a new number; then forward again; each with who and why in the audit."""
    first, second, third = versions(platform, "back", "v1", "v2", "v3")
    asked = ask_rollback(platform, "back")
    done = ended(platform, asked)
    assert (done.state, done.trouble) == ("succeeded", None)
    made = history(platform, "back")[0]
    assert (made.number, made.state, made.rollback_of, made.previous) == (4, "live", second.id, third.id)
    assert (made.digest, made.commit, made.configuration.env) == (
        second.digest,
        second.commit,
        second.configuration.env,
    )
    assert platform.get("back") == "v2"
    assert ended(platform, ask_rollback(platform, "back")).state == "succeeded"
    assert platform.get("back") == "v1"
    assert history(platform, "back")[0].rollback_of == first.id
    forward = operations.ask_roll_forward(
        platform.engine, platform.settings, service("back"), same=True, actor="ada", why="mended"
    )
    assert ended(platform, forward).strategy == third.configuration.strategy
    assert platform.get("back") == "v3"
    assert only_live_runs(platform, "back")
    with platform.engine.begin() as connection:
        told = list_changes(connection, subject=str(service("back")))
    assert [(one.actor, one.action) for one in told] == [
        ("ada", "release.roll_forward"),
        ("ada", "release.rollback"),
        ("ada", "release.rollback"),
    ]
    assert told[-1].detail["why"] == "orders fail"


def test_rollback_of_what_cannot_run_twice(platform, carrier):
    """The quickest way is still one at a time."""
    versions(platform, "back-alone", "v1", "v2", strategy=RECREATE, ALONE="yes")
    assert ended(platform, ask_rollback(platform, "back-alone")).state == "succeeded"
    assert platform.get("back-alone") == "v1"


def test_rollback_to_what_is_broken_by_now(platform, carrier):
    """It fails, says why, and what is live stays so."""
    first, _ = versions(platform, "back-broken", "v1", "v2")
    (release_folder(platform.settings, first.id) / "service.py").unlink()
    done = ended(platform, ask_rollback(platform, "back-broken", 1))
    assert done.state == "failed"
    assert "crashed: exit code 2" in done.trouble
    assert only_live_runs(platform, "back-broken")
    assert platform.get("back-broken") == "v2"


def test_what_cannot_be_gone_back_to(platform):
    """What is live, what failed, what is not there, what is not kept."""
    first, _ = versions(platform, "nowhere", "v1", "v2")
    with pytest.raises(ConflictError, match=r"release 2 .* it is live"):
        ask_rollback(platform, "nowhere", 2)
    with pytest.raises(NotFoundError, match="has no release 7"):
        ask_rollback(platform, "nowhere", 7)
    with pytest.raises(StepFailure):
        platform.deploy(plan(platform, "nowhere", "v3", CRASH="x"))
    with pytest.raises(ConflictError, match=r"release 3 .* it is failed"):
        ask_rollback(platform, "nowhere", 3)
    shutil.rmtree(release_folder(platform.settings, first.id))
    with pytest.raises(ConflictError, match="files are not kept any more"):
        ask_rollback(platform, "nowhere", 1)
    with pytest.raises(NotFoundError, match="nothing is live"):
        ask_rollback(platform, "unheard-of")
    with pytest.raises(ConflictError, match="nothing newer"):
        operations.ask_roll_forward(
            platform.engine, platform.settings, service("nowhere"), same=False, actor="ada", why=""
        )


def test_pinned_service_is_not_deployed(platform, carrier):
    """A run that would fails and says who holds it and why; people can; unpinned it goes on."""
    versions(platform, "pinned", "v1", "v2")
    operations.hold(platform.engine, service("pinned"), actor="ada", why="until Monday")
    with pytest.raises(StepFailure, match=r"is pinned to release 2, by ada: until Monday; `penstock release unpin`"):
        platform.deploy(plan(platform, "pinned", "v3"))
    with pytest.raises(ConflictError, match="pinned to release 2"):
        operations.hold(platform.engine, service("pinned"), actor="bob", why="")
    assert ended(platform, ask_rollback(platform, "pinned")).state == "succeeded"
    assert operations.let_go(platform.engine, service("pinned"), actor="ada", why="").number == 3
    assert platform.deploy(plan(platform, "pinned", "v3")).number == 4
    with pytest.raises(NotFoundError, match="is not pinned"):
        operations.let_go(platform.engine, service("pinned"), actor="ada", why="")


def deploying(platform, name, version, **given):
    """In a thread; what it failed with is in the list."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            platform.deploy(plan(platform, name, version, **given))
        except StepFailure as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, failures


def tell(platform, name, order, why=""):
    return operations.tell(platform.engine, rollout(platform, name).id, order, actor="ada", why=why)


def test_canary_waits_for_a_person(platform):
    """Held at its weight, paused and resumed without a change, then promoted to the end."""
    versions(platform, "by-hand", "v1")
    thread, failures = deploying(platform, "by-hand", "v2", strategy=BY_HAND, replicas=2)
    wait_for_weight(platform, "by-hand", 2, 30)
    assert wait_until(lambda: "promote" in rollout(platform, "by-hand").why, limit_s=20)
    assert wait_until(lambda: {platform.get("by-hand") for _ in range(30)} == {"v1", "v2"}, limit_s=20)
    assert tell(platform, "by-hand", "pause").paused
    assert not tell(platform, "by-hand", "resume").paused
    tell(platform, "by-hand", "promote", "seen in the shop")
    thread.join()
    assert failures == []
    assert only_live_runs(platform, "by-hand")
    assert "promote by ada: seen in the shop" in [event.text for event in rollout(platform, "by-hand").events]
    with pytest.raises(ConflictError, match="the rollout is over"):
        tell(platform, "by-hand", "pause")


def test_aborted_rollout_goes_back(platform):
    """The step fails with who said so and why."""
    versions(platform, "aborted", "v1")
    thread, failures = deploying(platform, "aborted", "v2", strategy=BY_HAND)
    wait_for_weight(platform, "aborted", 2, 30)
    tell(platform, "aborted", "abort", "looks odd")
    thread.join()
    assert "aborted: by ada: looks odd" in str(failures[0])
    assert only_live_runs(platform, "aborted")
    assert platform.get("aborted") == "v1"


def test_release_that_fails_while_paused_is_taken_back(platform):
    """A pause holds people's decisions, not the platform's care."""
    versions(platform, "paused", "v1")
    thread, failures = deploying(platform, "paused", "v2", strategy=BY_HAND, SICK_AFTER_S="2")
    wait_for_weight(platform, "paused", 2, 30)
    tell(platform, "paused", "pause")
    thread.join()
    assert "sick by now" in str(failures[0])
    assert only_live_runs(platform, "paused")


def carrying(platform):
    return spawn([sys.executable, "-c", CARRY], output=subprocess.DEVNULL, error=subprocess.DEVNULL, env=platform.env)


def test_rollback_outlives_its_driver(platform):
    """kill -9 of the platform's driver at 30 %: the next one goes on from there."""
    versions(platform, "carried-on", "v1", strategy=BY_HAND)
    versions(platform, "carried-on", "v2")
    asked = ask_rollback(platform, "carried-on", same=True)
    first = carrying(platform)
    wait_for_weight(platform, "carried-on", 3, 30)
    platform.kill(first)
    second = carrying(platform)
    try:
        tell(platform, "carried-on", "promote")
        assert ended(platform, asked).state == "succeeded"
    finally:
        platform.kill(second)
    assert only_live_runs(platform, "carried-on")
    assert platform.get("carried-on") == "v1"


def test_platform_that_stops_leaves_a_rollback_where_it_is(platform):
    """Told to stop in an orderly way, it undoes nothing; the next one ends it."""
    versions(platform, "let-go", "v1", strategy=BY_HAND)
    versions(platform, "let-go", "v2")
    asked = ask_rollback(platform, "let-go", same=True)
    first = Carrier(platform.engine, platform.settings)
    first.start()
    wait_for_weight(platform, "let-go", 3, 30)
    first.stop()
    assert has_rollout(platform, "let-go", 3)
    assert rollout(platform, "let-go").weight == 30
    second = Carrier(platform.engine, platform.settings)
    second.start()
    try:
        tell(platform, "let-go", "abort")
        assert ended(platform, asked).state == "failed"
    finally:
        second.stop()
    assert states(platform, "let-go") == [(3, "failed"), (2, "live"), (1, "superseded")]
    assert only_live_runs(platform, "let-go")


def test_what_has_not_begun_can_be_withdrawn(platform):
    """Nobody drives: it is taken back at once."""
    versions(platform, "withdrawn", "v1", "v2")
    asked = ask_rollback(platform, "withdrawn")
    assert tell(platform, "withdrawn", "abort").state == "failed"
    assert ended(platform, asked).release_id is None
