"""Engines for the contract tests: Docker, Podman and this machine's own processes."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from containers import BUSYBOX, DockerEngine, PodmanService
from engine_contract import Contract, container_contract
from real_parts import short_folder

from penstock.engines import open_engine
from penstock.engines.process import bubblewrap
from penstock.settings import load_settings


@pytest.fixture(scope="session")
def podman_service(docker_engine: DockerEngine) -> Iterator[PodmanService]:
    """Podman's Docker-compatible service with the image `busybox:tests`."""
    folder = short_folder()
    service = PodmanService(folder / "podman")
    try:
        service.start()
        with closing(docker_engine.client()) as docker, closing(service.client()) as podman:
            podman.images.load(b"".join(docker.images.get(BUSYBOX).save(named=BUSYBOX)))
        yield service
    finally:
        service.remove()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def workspace(home: Path) -> Path:
    """A workspace where nothing is yet, where Penstock puts them."""
    folder = home / "workspaces" / "run" / "step"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def docker_contract(docker_engine: DockerEngine, home: Path, workspace: Path) -> Contract:
    """The docker engine on Docker."""
    return container_contract(docker_engine.host, home, workspace)


@pytest.fixture
def podman_contract(podman_service: PodmanService, home: Path, workspace: Path) -> Contract:
    """The docker engine on Podman."""
    return container_contract(podman_service.host, home, workspace)


@pytest.fixture
def process_contract(home: Path, workspace: Path) -> Contract:
    """The process engine, with bubblewrap where it works."""
    settings = load_settings({"PENSTOCK_HOME": str(home), "PENSTOCK_ENGINE": "process"})
    return Contract(open_engine(settings), settings, workspace, None, isolated=bubblewrap() is not None)


@pytest.fixture(params=["docker", "podman", "process"])
def contract(request: pytest.FixtureRequest) -> Contract:
    """Each engine in turn."""
    made = request.getfixturevalue(f"{request.param}_contract")
    assert isinstance(made, Contract)
    return made


@pytest.fixture(params=["docker", "podman"])
def containers(request: pytest.FixtureRequest) -> Contract:
    """Each engine that runs images."""
    made = request.getfixturevalue(f"{request.param}_contract")
    assert isinstance(made, Contract)
    return made


@pytest.fixture
def isolated(contract: Contract) -> Contract:
    """Each engine that keeps jobs apart from the machine."""
    if not contract.isolated:
        pytest.skip("the process engine isolates nothing without bubblewrap, and says so")
    return contract
