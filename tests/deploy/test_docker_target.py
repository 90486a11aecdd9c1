"""Releases as containers of a real engine: traffic behind Caddy, rollback, kills, and what a container may do."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import docker
import pytest
from containers import BUSYBOX, DockerEngine

from penstock.deploy.health import HealthCheck
from penstock.deploy.plan import ContainerSettings, DeploymentPlan, Service, ServiceConfiguration
from penstock.deploy.releases import Instance, Release, instance_log, instances_of, release_history
from penstock.deploy.rollout import recover
from penstock.deploy.strategies import CanaryStep, Settings
from penstock.deploy.targets.docker_container import INSTANCE_LABEL, by_instance
from penstock.engines.docker_container import home_mark
from penstock.errors import InputError, PlatformError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.processes import spawn, stop_group, wait_until
from penstock.vault import open_vault
from tests.deploy.conftest import Platform, running_platform
from tests.deploy.load import KEPT_AND_NEW, Load

pytestmark = pytest.mark.xdist_group("docker")
LIMIT_S = 60.0
QUICK = HealthCheck(path="/", interval_s=0.3, timeout_s=2.0, unhealthy_after=3, start_period_s=10.0)
SICK = HealthCheck(path="/absent", interval_s=0.2, unhealthy_after=2, start_period_s=0.5)
SERVE = (
    "mkdir /tmp/www && echo $VERSION >/tmp/www/index.html && echo starting $VERSION && "
    "exec httpd -f -p $PORT -h /tmp/www"
)
OWN_CHECK = {"Test": ["CMD-SHELL", "test -f /tmp/www/index.html"]}


DEPLOY = """
import sys
from penstock.deploy.plan import ContainerSettings, DeploymentPlan, Service, ServiceConfiguration
from penstock.deploy.health import HealthCheck
from penstock.deploy.rollout import deploy
from penstock.pipeline.cancel import CancelToken
from penstock.settings import load_settings
from penstock.state.database import create_engine
name, version, image, command = sys.argv[1:5]
settings = load_settings()
plan = DeploymentPlan(Service("shop", "production", name), version, image, "g", "r", None, ServiceConfiguration(
    target="docker", command=command, env={"VERSION": version}, health=HealthCheck(path="/", start_period_s=120),
    container=ContainerSettings(image="busybox:tests", image_id=image, port=8080)))
deploy(plan, engine=create_engine(settings), settings=settings, log=print, token=CancelToken())
"""


@attrs.define
class Ship:
    """A platform and the engine beside it."""

    platform: Platform
    engine: DockerEngine
    client: docker.DockerClient
    image_id: str

    def plan(self, name: str, version: str, **changes: object) -> DeploymentPlan:
        """A container that answers with its version."""
        configuration = {"command": SERVE, "env": {"VERSION": version}, "health": QUICK, **changes}
        settings = {"image": BUSYBOX, "image_id": self.image_id, "port": 8080, **configuration.pop("container", {})}
        return DeploymentPlan(
            service=Service("shop", "production", name),
            commit=version * 4,
            digest=self.image_id,
            graph_hash="graph",
            run_id=f"run-{version}",
            source=None,
            configuration=ServiceConfiguration(
                target="docker", container=ContainerSettings(**settings), **configuration
            ),
        )

    def deploy(self, name: str, version: str, **changes: object) -> Release:
        return self.platform.deploy(self.plan(name, version, **changes))

    def get(self, name: str) -> str:
        return self.platform.get(name).strip()

    def answers(self, name: str, version: str) -> bool:
        try:
            return self.get(name) == version
        except OSError:
            return False

    def instance(self, release: Release) -> Instance:
        with self.platform.engine.begin() as connection:
            return instances_of(connection, release.id)[-1]

    def containers(self, instance_id: str = "") -> list[dict[str, Any]]:
        filters = by_instance(self.platform.settings.home, instance_id)
        return list(self.client.api.containers(all=True, filters=filters))

    def inspected(self, release: Release) -> dict[str, Any]:
        (only,) = self.containers(self.instance(release).id)
        return dict(self.client.api.inspect_container(only["Id"]))

    def execute(self, release: Release, line: str) -> str:
        (only,) = self.containers(self.instance(release).id)
        made = self.client.api.exec_create(only["Id"], ["/bin/sh", "-c", line])["Id"]
        return bytes(self.client.api.exec_start(made)).decode()

    def history(self, name: str) -> list[Release]:
        return release_history(self.platform.engine, Service("shop", "production", name))

    def deploying(self, name: str, version: str) -> "subprocess.Popen[bytes]":
        """A deployment in a process of its own, which can be killed."""
        argv = [sys.executable, "-u", "-c", DEPLOY, name, version, self.image_id, SERVE]
        return spawn(argv, output=subprocess.PIPE, error=subprocess.DEVNULL, env=self.platform.env)

    def settled(self, name: str) -> bool:
        """Nothing is pending, exactly the live release has a container, and it answers."""
        recover(self.platform.engine, self.platform.settings, print, CancelToken())
        history = self.history(name)
        live = [release for release in history if release.state == "live"]
        mine = [one["Labels"]["io.penstock.release"] for one in self.containers() if _service(one) == name]
        answering = [one for one in live if self.answers(name, one.configuration.env["VERSION"])]
        pending = any(release.state == "pending" for release in history)
        return not pending and mine == [release.id for release in live] and live == answering and len(live) == 1

    def kept_tags(self) -> set[str]:
        names = (tag for image in self.client.images.list() for tag in image.tags)
        return {name.rpartition(":")[2] for name in names if name.startswith("penstock-release/")}


def _service(container: dict[str, Any]) -> str:
    return str(container["Labels"]["io.penstock.service"])


@pytest.fixture
def ship_on(docker_engine: DockerEngine) -> Iterator[Ship]:
    """A platform of the test's own."""
    yield from _ship(docker_engine)


@pytest.fixture(scope="module")
def ship(docker_engine: DockerEngine) -> Iterator[Ship]:
    """One platform for the tests that do not break it."""
    yield from _ship(docker_engine)


def _ship(engine: DockerEngine) -> Iterator[Ship]:
    client = engine.client()
    with running_platform(PENSTOCK_DOCKER_HOST=engine.host) as platform:
        ship = Ship(platform, engine, client, client.images.get(BUSYBOX).id)
        yield ship
        stop_group(platform.keeper, grace_s=30)
        assert wait_until(engine.answers, limit_s=LIMIT_S)
        for container in ship.containers():
            client.api.remove_container(container["Id"], force=True)
        for image in client.images.list():
            for tag in image.tags:
                if tag.startswith(f"penstock-release/{home_mark(platform.settings.home)}:"):
                    client.images.remove(tag)
    client.close()


def test_release_is_a_container_that_answers_through_caddy(ship):
    """Built image, one container, labelled; the record says what the name stood for."""
    release = ship.deploy("first", "v1")
    assert ship.get("first") == "v1"
    assert (release.state, release.digest) == ("live", ship.image_id)
    labels = ship.inspected(release)["Config"]["Labels"]
    assert labels["io.penstock.service"] == "first"
    assert labels["io.penstock.environment"] == "production"
    assert labels["io.penstock.release"] == release.id
    assert release.id in ship.kept_tags()


def test_container_is_closed(ship):
    """No capabilities, no new privileges, read-only but for /tmp, limits, loopback only, no restart by the engine."""
    release = ship.deploy("closed", "v1")
    found = ship.inspected(release)["HostConfig"]
    assert found["CapDrop"] == ["ALL"]
    assert found["SecurityOpt"] == ["no-new-privileges:true"]
    assert found["ReadonlyRootfs"]
    assert (found["Memory"], found["MemorySwap"], found["PidsLimit"]) == (1024**3, 1024**3, 4096)
    assert {bound["HostIp"] for bounds in found["PortBindings"].values() for bound in bounds} == {"127.0.0.1"}
    assert found["RestartPolicy"]["Name"] in ("", "no")
    assert "Read-only" in ship.execute(release, "touch /new 2>&1")
    assert ship.execute(release, "touch /tmp/new && echo done").strip() == "done"


def test_same_release_again_changes_nothing(ship):
    """A deployment that is run again finds its release live."""
    first = ship.deploy("again", "v1")
    assert ship.deploy("again", "v1").id == first.id


def test_no_request_fails_over_releases(ship):
    """Forward, and to one that is never healthy: each request is answered by a live version."""
    ship.deploy("load", "v0")
    with Load(urlsplit(ship.platform.url("load")).netloc, KEPT_AND_NEW) as load:
        for version in ("v1", "v2"):
            ship.deploy("load", version)
        with pytest.raises(StepFailure, match="404"):
            ship.deploy("load", "v3", health=SICK)
        ship.deploy("load", "v4")
    assert load.failures == []
    assert {answer.strip() for answer in load.answers} == {"v0", "v1", "v2", "v4"}
    assert [one.state for one in ship.history("load")] == ["live", "failed", "superseded", "superseded", "superseded"]
    assert len([one for one in ship.containers() if _service(one) == "load"]) == 1


def test_unhealthy_release_says_why_and_leaves_nothing(ship):
    """The last answer and the last lines; container and name of its image are gone, the former serves."""
    ship.deploy("sick", "v1")
    with pytest.raises(StepFailure) as error:
        ship.deploy("sick", "v2", health=SICK)
    assert "/absent: 404" in str(error.value)
    assert "last lines: starting v2" in str(error.value)
    assert ship.get("sick") == "v1"
    failed = ship.history("sick")[0]
    assert ship.containers(ship.instance(failed).id) == []
    assert failed.id not in ship.kept_tags()


def test_crashing_container_fails_at_once(ship):
    """Exit code and last words."""
    with pytest.raises(StepFailure, match="crashed: exit code 7; last lines: no config"):
        ship.deploy("crash", "v1", command="echo no config; exit 7")


def test_command_that_the_image_does_not_have(ship):
    """The engine's words name it."""
    with pytest.raises(StepFailure, match="no-such-command"):
        ship.deploy("nothing", "v1", command=("no-such-command",))


def test_port_that_nobody_listens_on_is_not_healthy(ship):
    """The engine takes connections for it all the same: TCP is asked whether they hold."""
    check = HealthCheck(kind="tcp", interval_s=0.2, unhealthy_after=2, start_period_s=0.5)
    with pytest.raises(StepFailure, match="closed at once"):
        ship.deploy("deaf", "v1", command="sleep 600", health=check)
    ship.deploy("heard", "v1", health=HealthCheck(kind="tcp"))
    assert ship.get("heard") == "v1"


def test_container_that_needs_too_much_memory_says_so(ship):
    """The kernel's kill has a reason that somebody can act on."""
    greedy = "echo greedy; exec dd if=/dev/zero of=/tmp/full bs=1M count=64"
    with pytest.raises(StepFailure, match="it needed more than 16 MiB of memory"):
        ship.deploy("greedy", "v1", command=greedy, container={"memory_bytes": 16 * 1024**2})


def test_images_own_health_check_decides(ship):
    """The engine runs it at the release's pace; an image without one is refused."""
    with pytest.raises(StepFailure, match="has no HEALTHCHECK"):
        ship.deploy("own", "v1", health=HealthCheck(kind="docker"))
    made = ship.client.api.create_container(BUSYBOX)
    image = ship.client.api.commit(made["Id"], "checked", conf={"Healthcheck": OWN_CHECK})
    ship.client.api.remove_container(made["Id"])
    check = HealthCheck(kind="docker", interval_s=0.3, start_period_s=20)
    try:
        ship.deploy("own", "v1", health=check, container={"image_id": image["Id"]})
        assert ship.get("own") == "v1"
        assert any("the image's health check: healthy" in line for line in ship.platform.said)
    finally:
        ship.client.images.remove("checked", force=True)


def test_volume_outlives_releases(ship):
    """What one release stores, the next one finds; another service has a volume of its own."""
    keeps = {"container": {"volumes": ("files:/data",)}}
    first = ship.deploy("volume", "v1", **keeps)
    ship.execute(first, "echo kept >/data/note")
    second = ship.deploy("volume", "v2", **keeps)
    assert ship.execute(second, "cat /data/note").strip() == "kept"
    other = ship.deploy("other-volume", "v1", **keeps)
    assert ship.execute(other, "ls /data").strip() == ""


def test_secret_is_a_file_in_memory_and_stands_nowhere_else(ship):
    """Neither in the record, nor in what the engine tells, nor in a file of this machine; gone when it is not there."""
    open_vault(ship.platform.settings).write("shop", "db-password", b"hunter2-hunter2")
    release = ship.deploy("secret", "v1", secret_env={"DB_PASSWORD": "db-password"})
    assert ship.execute(release, "cat $DB_PASSWORD_FILE") == "hunter2-hunter2"
    assert ship.execute(release, "id -u; cat /run/secrets/DB_PASSWORD").endswith("hunter2-hunter2")
    assert "hunter2" not in json.dumps(ship.inspected(release))
    assert "hunter2" not in repr(release)
    mine = f"penstock-{home_mark(ship.platform.settings.home)}-*"
    assert [path for place in ("/dev/shm", "/run") for path in Path(place).glob(mine)] == []
    with pytest.raises(StepFailure, match='has no secret "absent"'):
        ship.deploy("no-secret", "v1", secret_env={"X": "absent"})


def test_killed_container_comes_back(ship):
    """Requests wait meanwhile; the row says how it ended."""
    release = ship.deploy("killed", "v1")
    before = ship.instance(release)
    os.kill(ship.inspected(release)["State"]["Pid"], 9)
    assert wait_until(lambda: ship.instance(release).restarts == 1, limit_s=LIMIT_S)
    assert wait_until(lambda: ship.instance(release).state == "running", limit_s=LIMIT_S)
    assert wait_until(lambda: ship.answers("killed", "v1"), limit_s=LIMIT_S)
    after = ship.instance(release)
    assert "SIGKILL" in after.reason
    assert after.pid != before.pid
    assert len(ship.containers(after.id)) == 1


def test_container_that_somebody_removed_comes_back(ship):
    """`docker rm -f` is an end like any other."""
    release = ship.deploy("removed", "v1")
    (only,) = ship.containers(ship.instance(release).id)
    ship.client.api.remove_container(only["Id"], force=True)
    assert wait_until(lambda: ship.instance(release).restarts == 1, limit_s=LIMIT_S)
    assert wait_until(lambda: ship.answers("removed", "v1"), limit_s=LIMIT_S)


def test_images_of_old_releases_are_let_go(ship):
    """Five ways back are kept beside the live one."""
    made = [ship.deploy("many", f"v{number}") for number in range(7)]
    kept = ship.kept_tags()
    assert [release.id in kept for release in made] == [False] + [True] * 6


def test_output_is_in_the_instances_log(ship):
    """What the container prints, also what it printed before anybody read."""
    release = ship.deploy("log", "v1")
    log = instance_log(ship.platform.settings, ship.instance(release).id)
    assert wait_until(lambda: log.read_text() == "starting v1\n", limit_s=LIMIT_S)


def test_image_that_is_gone_cannot_be_placed(ship):
    """The message says which."""
    with pytest.raises(StepFailure, match="is gone from the engine"):
        ship.deploy("gone", "v1", container={"image_id": f"sha256:{'0' * 64}"})
    assert ship.history("gone")[0].state == "failed"


@pytest.mark.parametrize("container", [{"image_id": ""}, {"port": 0}, {"port": 70000}])
def test_containers_that_cannot_be(ship, container):
    """Refused before there is a release."""
    with pytest.raises(InputError):
        ship.plan("never", "v1", container=container)


def test_killed_keeper_costs_no_request(ship_on):
    """The container outlives it and is found by the next one: same process, same port, its log goes on."""
    ship, platform = ship_on, ship_on.platform
    release = ship.deploy("kept", "v1")
    before = ship.inspected(release)["State"]["Pid"]
    with Load(urlsplit(platform.url("kept")).netloc, KEPT_AND_NEW) as load:
        platform.kill(platform.keeper)
        platform.start_keeper()
        ship.deploy("kept", "v2")
    assert load.failures == []
    assert ship.instance(release).restarts == 0
    assert before != ship.inspected(ship.history("kept")[0])["State"]["Pid"]
    platform.kill(platform.keeper)
    same = ship.inspected(ship.history("kept")[0])["State"]["Pid"]
    platform.start_keeper()
    assert wait_until(lambda: ship.answers("kept", "v2"), limit_s=LIMIT_S)
    ship.deploy("beside", "v1")  # by the new keeper, which has minded the other one by then
    assert ship.inspected(ship.history("kept")[0])["State"]["Pid"] == same


def test_leftovers_of_a_killed_keeper_are_reaped(ship_on):
    """A container whose instance nobody wants any more goes; those of live releases stay."""
    ship, platform = ship_on, ship_on.platform
    live = ship.deploy("live", "v1")
    labels = {**ship.inspected(live)["Config"]["Labels"], INSTANCE_LABEL: "0" * 16}
    platform.kill(platform.keeper)
    stray = ship.client.api.create_container(BUSYBOX, ["sleep", "600"], labels=labels)["Id"]
    ship.client.api.start(stray)
    platform.start_keeper()
    assert wait_until(lambda: ship.containers("0" * 16) == [], limit_s=LIMIT_S)
    assert ship.get("live") == "v1"


def test_terminated_keeper_stops_its_containers(ship_on):
    """They stay wanted, and the next one starts them."""
    ship, platform = ship_on, ship_on.platform
    release = ship.deploy("ended", "v1")
    stop_group(platform.keeper, grace_s=30)
    assert ship.containers() == []
    assert (ship.instance(release).desired, ship.instance(release).state) == ("running", "stopped")
    platform.start_keeper()
    assert wait_until(lambda: ship.answers("ended", "v1"), limit_s=LIMIT_S)


def test_killed_engine_comes_back_with_the_service(ship_on):
    """Its containers end with it; they are started anew as soon as it is back, and nothing is there twice."""
    ship, platform = ship_on, ship_on.platform
    release = ship.deploy("engine", "v1")
    ship.engine.kill()
    assert wait_until(lambda: "engine" in (ship.instance(release).reason or ""), limit_s=LIMIT_S)
    ship.engine.start()
    assert wait_until(lambda: ship.answers("engine", "v1"), limit_s=LIMIT_S)
    assert wait_until(lambda: ship.instance(release).state == "running", limit_s=LIMIT_S)
    assert len(ship.containers()) == 1
    assert recover(platform.engine, platform.settings, print, CancelToken()) == []
    ship.deploy("engine", "v2")
    assert ship.get("engine") == "v2"


def test_engine_that_is_killed_during_a_deployment(ship_on):
    """No fault of the release's: either it is carried on when the engine is back in time, or the former one is."""
    ship = ship_on
    ship.deploy("torn", "v1")
    slow = HealthCheck(path="/", interval_s=0.2, unhealthy_after=2, start_period_s=5)
    failed: list[BaseException] = []

    def deploy() -> None:
        try:
            ship.deploy("torn", "v2", command="sleep 600", health=slow)
        except (PlatformError, StepFailure) as error:
            failed.append(error)

    deployment = threading.Thread(target=deploy)
    deployment.start()
    assert wait_until(lambda: len(ship.history("torn")) == 2 and _runs(ship, ship.history("torn")[0]), limit_s=LIMIT_S)
    ship.engine.kill()
    deployment.join()
    assert isinstance(failed[0], PlatformError)
    assert "engine" in str(failed[0])
    ship.engine.start()
    assert wait_until(lambda: ship.settled("torn"), limit_s=LIMIT_S)
    assert ship.get("torn") == "v1"
    ship.deploy("torn", "v3")
    assert ship.get("torn") == "v3"


def _runs(ship: Ship, release: Release) -> bool:
    with ship.platform.engine.begin() as connection:
        return any(one.state == "running" for one in instances_of(connection, release.id))


@pytest.mark.parametrize("phase", ["release", "instance", "healthy", "traffic", "superseded"])
def test_deployment_killed_in_each_phase_leaves_one_live_version(ship, phase):
    """Killed as soon as it says so: what is live answers, alone, and the next deployment works."""
    name = f"phase-{phase}"
    ship.deploy(name, "v1")
    deployment = ship.deploying(name, "v2")
    assert deployment.stdout is not None
    while (line := deployment.stdout.readline()) and phase.encode() not in line:
        assert ship.answers(name, "v1") or ship.answers(name, "v2")
    ship.platform.kill(deployment)
    deployment.stdout.close()
    assert wait_until(lambda: ship.settled(name), limit_s=LIMIT_S)
    ship.deploy(name, "v3")
    assert ship.get(name) == "v3"
    assert wait_until(lambda: ship.settled(name), limit_s=LIMIT_S)


def test_keeper_needs_no_engine_without_containers(tmp_path):
    """Processes are deployed where no engine is."""
    with running_platform(PENSTOCK_DOCKER_HOST=f"unix://{tmp_path}/absent.sock") as platform:
        platform.deploy(platform.plan("plain", "v1"))
        assert platform.get("plain") == "v1"


def test_replicas_share_the_traffic_and_services_reach_each_other_by_name(ship):
    """Two containers each; the neighbour of the project is reached by its name, nobody else's is."""
    first = ship.deploy("neighbour", "v1", replicas=2)
    assert len(ship.containers()) >= 2
    second = ship.deploy("neighbour", "v2", replicas=2, strategy=Settings(name="blue_green"))
    assert {one["Labels"]["io.penstock.release"] for one in ship.containers() if _service(one) == "neighbour"} == {
        second.id
    }
    caller = ship.deploy("caller", "v1")
    assert ship.execute(caller, "wget -q -O - http://neighbour:8080/").strip() == "v2"
    elsewhere = ship.plan("stranger", "v1")
    elsewhere = attrs.evolve(elsewhere, service=Service("shop", "staging", "stranger"))
    stranger = ship.platform.deploy(elsewhere)
    assert "v2" not in ship.execute(stranger, "timeout 5 wget -q -O - http://neighbour:8080/ 2>&1")
    assert first.state == "live"


def test_broken_containers_are_taken_back(ship):
    """A canary of two containers whose image cannot serve: the former two go on."""
    canary = Settings(name="canary", steps=(CanaryStep(weight=50, hold_s=0.5),))
    ship.deploy("canary", "v1", replicas=2, strategy=canary)
    with pytest.raises(StepFailure, match="crashed: exit code 3"):
        ship.deploy("canary", "v2", replicas=2, strategy=canary, command="echo no config; exit 3")
    assert ship.get("canary") == "v1"
    assert len([one for one in ship.containers() if _service(one) == "canary"]) == 2
