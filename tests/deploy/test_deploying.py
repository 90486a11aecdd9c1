"""Deployments on a whole platform: a release answers behind Caddy, and the former one does until then."""

import json
import shutil
import threading

import attrs
import msgspec
import pytest

from penstock.deploy.health import HealthCheck
from penstock.deploy.plan import Service
from penstock.deploy.releases import (
    instances_of,
    live_releases,
    release_folder,
    release_history,
    service_url,
)
from penstock.errors import Cancelled, InputError, PlatformError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.processes import wait_until
from penstock.vault import open_vault
from tests.deploy.conftest import APP, QUICK


def history(platform, name):
    return release_history(platform.engine, Service("shop", "production", name))


def instances(platform, release):
    with platform.engine.begin() as connection:
        return instances_of(connection, release.id)


def test_release_answers_through_caddy(platform):
    """What was deployed answers at the service's address, and the record says what it is."""
    release = platform.deploy(platform.plan("first", "v1"))
    assert platform.get("first") == "v1"
    assert (release.state, release.number, release.previous) == ("live", 1, None)
    assert release in live_releases(platform.engine)
    assert platform.url("first").startswith("http://127.0.0.1:")


def test_service_without_a_release_has_no_address(platform):
    """Nothing was ever deployed: None, not a guess."""
    assert service_url(platform.engine, Service("shop", "production", "unknown")) is None


def test_second_release_takes_over_and_the_first_is_superseded(platform):
    """Same address, new version; the former instance is stopped and its record closed."""
    first = platform.deploy(platform.plan("second", "v1"))
    address = platform.url("second")
    second = platform.deploy(platform.plan("second", "v2"))
    assert platform.get("second") == "v2"
    assert platform.url("second") == address
    assert [(one.number, one.state) for one in history(platform, "second")] == [(2, "live"), (1, "superseded")]
    assert second.previous == first.id
    assert [one.state for one in instances(platform, first)] == ["stopped"]


def test_same_release_again_changes_nothing(platform):
    """A rerun of a deployment that succeeded is the same release."""
    first = platform.deploy(platform.plan("again", "v1"))
    assert platform.deploy(platform.plan("again", "v1")).id == first.id
    assert len(history(platform, "again")) == 1


def test_same_commit_with_other_settings_is_another_release(platform):
    """A variable that changed must reach the service."""
    platform.deploy(platform.plan("settings", "v1"))
    platform.deploy(platform.plan("settings", "v1", EXTRA="yes"))
    assert json.loads(platform.get("settings", "/environment"))["EXTRA"] == "yes"
    assert len(history(platform, "settings")) == 2


def test_two_services_have_two_addresses(platform):
    """Each with its own, side by side."""
    for name in ("left", "right"):
        platform.deploy(platform.plan(name, name))
    assert (platform.get("left"), platform.get("right")) == ("left", "right")


def test_never_healthy_release_leaves_the_former_serving(platform):
    """The message holds the last probe's answer and the log's last lines; nothing of the release keeps running."""
    platform.deploy(platform.plan("sick", "v1"))
    health = HealthCheck(path="/health", interval_s=0.1, unhealthy_after=2, start_period_s=0.5)
    sick = platform.plan("sick", "v2", health=health, UNHEALTHY="no database")
    with pytest.raises(StepFailure) as error:
        platform.deploy(sick)
    assert '/health: 503 "no database"' in str(error.value)
    assert "last lines: version v2 starts" in str(error.value)
    assert "the former release goes on serving" in str(error.value)
    assert platform.get("sick") == "v1"
    failed = history(platform, "sick")[0]
    assert (failed.state, failed.reason) == ("failed", error.value.what)
    assert [one.state for one in instances(platform, failed)] == ["stopped"]
    assert not release_folder(platform.settings, failed.id).exists()


def test_crashing_release_fails_at_once_and_says_how(platform):
    """Exit code and last words; no waiting for a service that has ended."""
    platform.deploy(platform.plan("crash", "v1"))
    with pytest.raises(StepFailure, match=r"crashed: exit code 7; last lines: version v2 starts \| no config"):
        platform.deploy(platform.plan("crash", "v2", CRASH="no config"))
    assert platform.get("crash") == "v1"
    assert "  | no config" in platform.said


def test_first_release_that_fails_promises_no_former_one(platform):
    """There is none that goes on serving."""
    with pytest.raises(StepFailure) as error:
        platform.deploy(platform.plan("stillborn", "v1", CRASH="x"))
    assert "former" not in str(error.value)
    assert service_url(platform.engine, Service("shop", "production", "stillborn")) is None


def test_command_that_does_not_exist(platform):
    """The message names it."""
    plan = platform.plan("nothing", "v1")
    configuration = type(plan.configuration)(command=("no-such-command",), health=QUICK)
    with pytest.raises(StepFailure, match="no-such-command"):
        platform.deploy(attrs.evolve(plan, configuration=configuration))


def test_service_that_listens_elsewhere_is_not_healthy(platform):
    """It ignores $PORT: the probe's answer says that nobody listens there."""
    plan = platform.plan("deaf", "v1")
    health = HealthCheck(interval_s=0.1, unhealthy_after=1, start_period_s=0.2)
    configuration = type(plan.configuration)(command="sleep 60", health=health)
    with pytest.raises(StepFailure, match="connection refused"):
        platform.deploy(attrs.evolve(plan, configuration=configuration))


def test_slow_starter_is_waited_for(platform):
    """Its start period holds; failures meanwhile are forgiven."""
    health = HealthCheck(path="/health", interval_s=0.1, unhealthy_after=1, start_period_s=20)
    platform.deploy(platform.plan("slow", "v1", health=health, SLOW_START_S="1.5"))
    assert platform.get("slow") == "v1"


def test_tcp_check_is_enough(platform):
    """A service without a health page."""
    platform.deploy(platform.plan("tcp", "v1", health=HealthCheck(kind="tcp")))
    assert platform.get("tcp") == "v1"


def test_cancelled_deployment_leaves_the_former_serving(platform):
    """Cancel ends the wait, stops the new instance and is recorded as such."""
    platform.deploy(platform.plan("cancel", "v1"))
    token = CancelToken()
    health = HealthCheck(path="/health", start_period_s=120)
    threading.Timer(0.7, token.cancel, ["somebody said stop"]).start()
    with pytest.raises(Cancelled, match="somebody said stop"):
        platform.deploy(platform.plan("cancel", "v2", health=health, UNHEALTHY="x"), token)
    assert platform.get("cancel") == "v1"
    failed = history(platform, "cancel")[0]
    assert (failed.state, failed.reason) == ("failed", "cancelled: somebody said stop")
    assert [one.state for one in instances(platform, failed)] == ["stopped"]


def test_source_can_be_a_callable(platform):
    """It fills the folder that it is given."""

    def fill(folder):
        shutil.copy(APP / "service.py", folder)

    platform.deploy(attrs.evolve(platform.plan("filled", "v1"), source=fill))
    assert platform.get("filled") == "v1"


@pytest.mark.parametrize("error", [InputError("digest does not match"), OSError("disk full")])
def test_source_that_fails_starts_nothing(platform, error):
    """The release has failed for that reason, without an instance or half a folder."""

    def fill(folder):
        (folder / "half").write_text("x")
        raise error

    with pytest.raises((InputError, PlatformError), match=str(error)):
        platform.deploy(attrs.evolve(platform.plan("unfilled", "v1"), source=fill))
    failed = history(platform, "unfilled")[0]
    assert failed.state == "failed"
    assert str(error) in failed.reason
    assert instances(platform, failed) == []
    assert [path for path in (platform.settings.home / "releases").iterdir() if path.name.startswith(".")] == []


def test_source_that_is_not_there(platform, tmp_path):
    """A missing folder is the platform's error, with its name."""
    with pytest.raises(PlatformError, match="absent"):
        platform.deploy(attrs.evolve(platform.plan("absent", "v1"), source=tmp_path / "absent"))


def test_files_of_old_releases_are_removed(platform):
    """Five ways back are kept; what is live is never touched."""
    kept = [platform.deploy(platform.plan("many", f"v{n}")) for n in range(8)]
    there = [release_folder(platform.settings, release.id).exists() for release in kept]
    assert there == [False, False, True, True, True, True, True, True]


def test_deployments_of_one_service_never_overlap(platform):
    """Both at once: one after the other, the later one is live, and nobody fails."""
    plans = [platform.plan("both", version, SLOW_START_S="0.5") for version in ("a", "b")]
    done = []
    threads = [threading.Thread(target=lambda plan=plan: done.append(platform.deploy(plan))) for plan in plans]
    pending = []

    def both_ended():
        states = [one.state for one in history(platform, "both")]
        pending.append(states.count("pending"))
        return len(done) == 2

    for thread in threads:
        thread.start()
    assert wait_until(both_ended, limit_s=60)
    for thread in threads:
        thread.join()
    assert max(pending) == 1
    assert sorted(one.state for one in history(platform, "both")) == ["live", "superseded"]
    assert platform.get("both") == live_version(platform, "both")


def live_version(platform, name):
    return next(one for one in history(platform, name) if one.state == "live").configuration.env["VERSION"]


def test_waiting_for_another_deployment_can_be_cancelled(platform):
    """Who waits for the lock can be stopped, and has made no release."""
    health = HealthCheck(path="/health", start_period_s=120)
    first, second = CancelToken(), CancelToken()

    def hold():
        with pytest.raises(Cancelled):
            platform.deploy(platform.plan("queue", "v1", health=health, UNHEALTHY="x"), first)

    holder = threading.Thread(target=hold)
    holder.start()
    assert wait_until(lambda: history(platform, "queue") != [], limit_s=20)
    threading.Timer(0.3, second.cancel, ["no patience"]).start()
    with pytest.raises(Cancelled, match="no patience"):
        platform.deploy(platform.plan("queue", "v2"), second)
    first.cancel("enough")
    holder.join()
    assert len(history(platform, "queue")) == 1


def test_secret_reaches_the_service_and_no_record(platform):
    """The release holds its name alone; a secret that is not there starts nothing."""
    open_vault(platform.settings).write("shop", "db-password", b"hunter2-hunter2")
    plan = platform.plan("secretive", "v1")
    configuration = msgspec.structs.replace(plan.configuration, secret_env={"DB_PASSWORD": "db-password"})
    release = platform.deploy(attrs.evolve(plan, configuration=configuration))
    assert json.loads(platform.get("secretive", "/environment"))["DB_PASSWORD"] == "hunter2-hunter2"
    assert "hunter2" not in repr(release)
    configuration = msgspec.structs.replace(plan.configuration, secret_env={"X": "absent"})
    with pytest.raises(StepFailure, match=r'cannot be started: .*has no secret "absent"'):
        platform.deploy(attrs.evolve(plan, configuration=configuration))


def test_instance_sees_nothing_of_penstock(platform):
    """Neither its settings nor its files; its own data folder is there and stays over releases."""
    platform.deploy(platform.plan("closed", "v1"))
    seen = json.loads(platform.get("closed", "/environment"))
    assert [name for name in seen if name.startswith("PENSTOCK")] == ["PENSTOCK_INSTANCE"]
    assert "VIRTUAL_ENV" not in seen
    home = json.loads(platform.get("closed", f"/look?at={platform.settings.home}"))
    assert set(home["entries"]) == {"data", "releases"}
    data = json.loads(platform.get("closed", f"/look?at={seen['DATA_DIR']}"))
    assert data["writable"]
    assert str(platform.settings.home / "data") in seen["DATA_DIR"]
    platform.deploy(platform.plan("closed", "v2"))
    assert json.loads(platform.get("closed", "/environment"))["DATA_DIR"] == seen["DATA_DIR"]
