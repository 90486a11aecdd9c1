"""step.deploy: what may be asked for together, and what a container's deployment takes from its run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import docker
import pytest
from containers import BUSYBOX, DockerEngine, running_registry
from pydantic import ValidationError

from penstock.deploy.plan import Service
from penstock.deploy.releases import live_releases
from penstock.errors import SettingsError, StepFailure
from penstock.images.labels import PROJECT, REVISION
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.log import FileLog
from penstock.steps.context import RunInfo, StepContext
from penstock.steps.deploy import Config, run
from tests.deploy.conftest import Platform, running_platform

pytestmark = pytest.mark.xdist_group("docker")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SERVE = "mkdir /tmp/www && echo $VERSION >/tmp/www/index.html && exec httpd -f -p $PORT -h /tmp/www"
PROCESS: dict[str, Any] = {"artifact": "app", "command": "./serve"}
DOCKER: dict[str, Any] = {"target": "docker", "image": "shop:1", "port": 8080}
PINNED = {**DOCKER, "image": f"shop@sha256:{'0' * 64}"}


def config(**fields: Any) -> Config:
    """A step that deploys to production."""
    return Config(name="deploy", type="step.deploy", environment="production", **fields)


@pytest.mark.parametrize("fields", [PROCESS, DOCKER, {**DOCKER, "command": ["serve"]}, {**DOCKER, "memory": "64m"}])
def test_what_goes_together(fields):
    """The least of each target, and a little more."""
    assert config(**fields).environment == "production"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "target process needs an artifact"),
        ({"artifact": "app"}, "target process needs a command"),
        ({**PROCESS, "image": "shop:1"}, "`image` is for containers"),
        ({**PROCESS, "port": 80}, "`port` is for containers"),
        ({**PROCESS, "read_only": False}, "`read_only` is for containers"),
        ({**PROCESS, "health": {"docker": True}}, "`health.docker` is for containers"),
        ({"target": "docker", "port": 80}, "target docker needs an image"),
        ({"target": "docker", "image": "shop:1"}, "target docker needs a port"),
        ({**DOCKER, "artifact": "app"}, "`artifact` is for processes"),
        ({**DOCKER, "image": "Not An Image"}, "is no name of an image"),
        ({**DOCKER, "port": 0}, "greater than or equal to 1"),
        ({**DOCKER, "volumes": "./data:/data"}, "is of the workspace"),
        ({**DOCKER, "volumes": "/etc:/host"}, "neither a name nor a path"),
        ({**DOCKER, "capabilities": ["SYS_ADMIN"]}, "capabilities"),
        ({**DOCKER, "health": {"docker": True, "http": "/"}}, "health asks one way"),
        ({**PINNED, "secret_env": {"X": "absent"}}, "is no secret of this step"),
        ({**DOCKER, "secrets": ["s"], "secret_env": {"X": "s"}}, "pinned images only"),
        ({**PINNED, "secrets": ["s"], "secret_env": {"X": "s"}, "env": {"X": "y"}}, "in env and in secret_env"),
        ({**DOCKER, "username": "me"}, "needs password_secret too"),
        ({**DOCKER, "username": "me", "password_secret": "p"}, "is no secret of this step"),
    ],
)
def test_what_does_not_go_together(fields, words):
    """One line that says what to write."""
    with pytest.raises(ValidationError, match=words):
        config(**fields)


def test_written_out_whole_it_is_still_the_same():
    """A graph that is stored has every field, those of the other target too."""
    for fields in (PROCESS, PINNED):
        assert Config.model_validate(config(**fields).model_dump()) == config(**fields)


@attrs.define
class Bench:
    """Runs the step as a session does."""

    platform: Platform
    client: docker.DockerClient
    folder: Path

    def run(self, *, settings: dict[str, Any] | None = None, granted: dict[str, str] | None = None, **fields: Any):
        log, fields = FileLog(self.folder / "step.log"), {"watch": 0, **fields}
        context = StepContext(
            run=RunInfo("run-1", "shop", COMMIT, "refs/heads/main", "g" * 8, "s" * 8),
            settings=attrs.evolve(self.platform.settings, **(settings or {})),
            workspace=self.folder,
            engine=None,  # type: ignore[arg-type] - no shell step is run here
            store=None,  # type: ignore[arg-type] - an image is no artifact
            log=log,
            token=CancelToken(),
            defaults_env={"REGION": "north"},
            find_published=lambda _key, _ref: None,
            upstream_artifacts=lambda _step: (),
            undecided=lambda _step: (),
            holds=lambda _step, _condition: True,
            database=self.platform.engine,
            platform_up=True,
            secrets={name: value.encode() for name, value in (granted or {}).items()},
        )
        try:
            return run(config(**fields), context)
        finally:
            log.close()


@pytest.fixture(scope="module")
def bench(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A whole platform beside the engine."""
    client = docker_engine.client()
    before = {image.id for image in client.images.list()}
    with running_platform(PENSTOCK_DOCKER_HOST=docker_engine.host) as platform:
        yield Bench(platform, client, tmp_path_factory.mktemp("step"))
    for image in client.images.list():
        if image.id not in before:
            client.images.remove(image.id, force=True)
        for tag in image.tags:
            if tag.startswith("penstock-release/"):
                client.images.remove(tag)
    client.close()


@pytest.fixture
def pushed(bench: Bench, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """An image that is in a registry with a login, and not on the engine any more: its pinned name."""
    with running_registry(tmp_path / "registry", user="me", password="pass-word") as address:
        name = f"{address}/team/shop"
        bench.client.api.tag(BUSYBOX, name, "1")
        login = {"username": "me", "password": "pass-word"}
        bench.client.api.push(name, "1", auth_config=login)
        (pinned,) = [
            digest for digest in bench.client.images.get(f"{name}:1").attrs["RepoDigests"] if digest.startswith(name)
        ]
        bench.client.images.remove(f"{name}:1")
        yield pinned


def test_image_of_the_engine_is_deployed_with_its_digest(bench):
    """Outputs say where it answers and what it is; the defaults' variables are there."""
    result = bench.run(target="docker", image=BUSYBOX, port=8080, command=SERVE, service="built", env={"VERSION": "1"})
    assert result.state == "succeeded"
    assert result.outputs["digest"] == bench.client.images.get(BUSYBOX).id
    assert bench.platform.get("built").strip() == "1"
    (live,) = [one for one in live_releases(bench.platform.engine) if one.service.name == "built"]
    assert live.service == Service("shop", "production", "built")
    assert live.configuration.env == {"REGION": "north", "VERSION": "1"}


def test_image_of_a_registry_is_fetched_with_the_steps_login(bench, pushed):
    """By its digest, with a password from the vault that no record holds."""
    fields = {"target": "docker", "image": pushed, "port": 8080, "command": SERVE, "service": "fetched"}
    login = {"username": "me", "password_secret": "registry", "secrets": ["registry"]}
    result = bench.run(**fields, **login, granted={"registry": "pass-word"})
    assert result.state == "succeeded"
    assert result.outputs["digest"] == pushed.rpartition("@")[2]
    (live,) = [one for one in live_releases(bench.platform.engine) if one.service.name == "fetched"]
    assert "pass-word" not in repr(live)


def test_registry_that_refuses_the_login(bench, pushed):
    """The step has failed, with the registry's words, before there is a release."""
    fields = {"target": "docker", "image": pushed, "port": 8080, "service": "refused"}
    login = {"username": "me", "password_secret": "registry", "secrets": ["registry"]}
    with pytest.raises(StepFailure, match="may not be read"):
        bench.run(**fields, **login, granted={"registry": "wrong"})


def test_image_id_that_is_not_there(bench):
    """An id cannot be fetched from anywhere."""
    with pytest.raises(StepFailure, match="there is no image sha256:000"):
        bench.run(target="docker", image=f"sha256:{'0' * 64}", port=8080)


def test_name_that_another_commit_has_built_meanwhile(bench):
    """A local tag that moved is not deployed as this commit's."""
    labels = [f"LABEL {PROJECT}=shop", f"LABEL {REVISION}={'f' * 40}"]
    made = bench.client.api.create_container(BUSYBOX)
    bench.client.api.commit(made["Id"], "moved", "1", changes="\n".join(labels))
    bench.client.api.remove_container(made["Id"])
    with pytest.raises(StepFailure, match="is of commit ffffffffffff by now"):
        bench.run(target="docker", image="moved:1", port=8080)


def test_engine_of_another_machine_is_refused(bench):
    """Its containers' ports are not this machine's."""
    with pytest.raises(SettingsError, match="is another machine"):
        bench.run(settings={"docker_host": "tcp://10.0.0.1:2375"}, target="docker", image=BUSYBOX, port=8080)


def test_secret_that_the_step_was_not_granted(bench):
    """Refused before there is a release."""
    fields = {"target": "docker", "image": f"shop@sha256:{'0' * 64}", "port": 8080}
    with pytest.raises(StepFailure, match='was not granted the secret "s"'):
        bench.run(**fields, secrets=["s"], secret_env={"X": "s"})
