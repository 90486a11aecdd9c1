"""What the tests of images share: a step at work on a real engine, with a log that can be read."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import docker
import pytest
import sqlalchemy as sa
from containers import BUSYBOX, DockerEngine, PodmanService, running_registry
from image_steps import COMMIT, PASSWORD, Bench
from real_parts import short_folder

from penstock.artifacts import open_store
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.log import FileLog, utc_now
from penstock.settings import Settings
from penstock.steps.context import RunInfo, StepContext


@pytest.fixture
def docker_settings(settings: Settings, docker_engine: DockerEngine) -> Settings:
    """Settings whose Docker socket is that of the tests' engine."""
    return attrs.evolve(settings, docker_host=docker_engine.host)


@pytest.fixture(scope="session")
def podman(docker_engine: DockerEngine) -> Iterator[PodmanService]:
    """Podman's Docker-compatible service with the image `busybox:tests`."""
    folder = short_folder()
    service = PodmanService(folder / "podman")
    try:
        service.start()
        with closing(docker_engine.client()) as docker_client, closing(service.client()) as podman_client:
            podman_client.images.load(b"".join(docker_client.images.get(BUSYBOX).save(named=BUSYBOX)))
        yield service
    finally:
        service.remove()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def locked_registry() -> Iterator[str]:
    """A registry that wants a login."""
    folder = short_folder()
    with running_registry(folder, user="ada", password=PASSWORD) as address:
        yield address
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def client(docker_engine: DockerEngine) -> Iterator[docker.DockerClient]:
    """The SDK, connected to the tests' engine; what the test named or started there is removed afterwards."""
    made = docker_engine.client()
    before = {image.id for image in made.images.list(all=True)}
    yield made
    for container in made.containers.list(all=True):
        container.remove(force=True)
    for network in made.networks.list():
        if network.name.startswith("penstock-"):
            network.remove()
    for image in made.images.list():
        if image.id not in before:
            made.images.remove(image.id, force=True)
    made.close()


@pytest.fixture
def make_bench(
    docker_settings: Settings, database: sa.Engine, client: docker.DockerClient
) -> Iterator[Callable[..., Bench]]:
    """make_bench(files, secrets=…) → a bench on which steps are run, with a workspace of these files."""
    benches: list[Bench] = []

    def make(
        files: dict[str, str | bytes] | None = None,
        *,
        secrets: dict[str, str] | None = None,
        settings: Settings | None = None,
        run: dict[str, Any] | None = None,
        **context: Any,
    ) -> Bench:
        used = settings or docker_settings
        number = len(benches) + 1
        info = RunInfo(f"run-{number}-{used.home.name}", "shop", COMMIT, "refs/heads/main", "g" * 8, "s" * 8)
        info = attrs.evolve(info, **{"committed_at": utc_now().replace(microsecond=0), **(run or {})})
        workspace = used.home / "workspaces" / info.id / "step"
        write_files(workspace, files or {})
        log = FileLog(used.home / "logs" / f"{number}.log")
        given = {
            "run": info,
            "settings": used,
            "workspace": workspace,
            "store": open_store(used.artifacts_path),
            "log": log,
            "token": CancelToken(),
            "defaults_env": {},
            "undecided": lambda _step: (),
            "database": database,
            "secrets": {name: value.encode() for name, value in (secrets or {}).items()},
            **context,
        }
        # What no step of images asks for stays empty.
        empty = {field.name: None for field in attrs.fields(StepContext) if field.default is attrs.NOTHING}
        made = StepContext(**{**empty, **given})  # type: ignore[arg-type]
        benches.append(Bench(made, used.home / "logs" / f"{number}.log", client))
        return benches[-1]

    yield make
    for bench in benches:
        bench.context.log.close()  # type: ignore[attr-defined]


def write_files(folder: Path, files: dict[str, str | bytes]) -> None:
    """Below the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
