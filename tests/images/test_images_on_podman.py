"""The image steps on Podman's Docker-compatible service: what it can do, and plain words for what it cannot."""

from collections.abc import Callable
from contextlib import closing

import attrs
import pytest
from containers import BUSYBOX, PodmanService
from image_steps import Bench

from penstock.errors import StepFailure
from penstock.images.leftovers import remove_of_run
from penstock.settings import Settings

pytestmark = pytest.mark.xdist_group("docker")


@pytest.fixture
def bench(make_bench: Callable[..., Bench], settings: Settings, podman: PodmanService) -> Bench:
    """A bench whose engine is Podman."""
    files = {"Dockerfile": f"FROM {BUSYBOX}\nCOPY a.txt /a.txt\nCMD cat /a.txt\n", "a.txt": "by Podman\n"}
    with_podman = attrs.evolve(settings, docker_host=podman.host)
    return make_bench(files, secrets={"token": "v"}, settings=with_podman)


def test_image_is_built_pushed_and_run(bench: Bench, podman: PodmanService, registry: str):
    """Without BuildKit, which Podman's service does not speak."""
    built = bench.run("docker_build", tags=["podmans:1"])
    with closing(podman.client()) as client:
        assert client.images.get("podmans:1").id == built.outputs["digest"]
    assert bench.run("docker_run", image=built.outputs["digest"]).state == "succeeded"
    assert "by Podman" in bench.log()
    pushed = bench.run("docker_push", image="podmans:1", to=f"{registry}/podmans:1")
    assert pushed.outputs["reference"] == f"{registry}/podmans@{pushed.outputs['digest']}"
    remove_of_run(bench.context.settings, bench.context.run.id)


def test_build_secrets_are_refused_with_the_remedy(bench: Bench):
    """Rather than put into a layer."""
    with pytest.raises(StepFailure, match=r"need BuildKit.*; install docker-buildx"):
        bench.run("docker_build", tags=["podmans:2"], secrets=["token"])


def test_service_answers_and_goes_with_the_run(bench: Bench, podman: PodmanService):
    """As on Docker."""
    serve = ["httpd", "-f", "-p", "8080", "-h", "/bin"]
    fields = {"image": BUSYBOX, "command": serve, "ports": [8080], "ready": {"tcp": 8080, "http": "/sh"}}
    result = bench.run("docker_run", wait_for_exit=False, **fields)
    assert result.outputs["host"] == "127.0.0.1"
    assert remove_of_run(bench.context.settings, bench.context.run.id) == 1
    with closing(podman.client()) as client:
        assert client.containers.list(all=True) == []
