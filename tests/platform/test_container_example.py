"""The container example as it stands: all eleven step types, on a real Docker Engine and a real registry."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from containers import BUSYBOX, DockerEngine
from penstock_running import Penstock, state_of

from penstock.steps import step_types

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(900)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "container"


@pytest.fixture(scope="module")
def on_docker(docker_engine: DockerEngine) -> Iterator[Penstock]:
    """A platform whose steps run in containers; nothing of it is left on the engine afterwards."""
    penstock = Penstock(PENSTOCK_ENGINE="docker", PENSTOCK_DOCKER_HOST=docker_engine.host)
    client = docker_engine.client()
    client.images.get(BUSYBOX).tag("busybox", "1.36")
    try:
        penstock.up("--no-example")
        yield penstock
    finally:
        if penstock.process is not None and penstock.process.poll() is None:
            penstock.down()
        print(penstock.output.read_text())
        client.images.remove("busybox:1.36")
        client.close()


def test_push_becomes_a_container_that_answers(on_docker: Penstock, registry: str, docker_engine: DockerEngine) -> None:
    """Every step type has worked; what runs is what was built, scanned and pushed; a second push replaces it."""
    files = {str(path.relative_to(EXAMPLE)): path.read_text() for path in EXAMPLE.rglob("*") if path.is_file()}
    assert "localhost:5000" in files["penstock.yaml"]
    files["penstock.yaml"] = files["penstock.yaml"].replace("localhost:5000", registry)
    hello = on_docker.connect("hello", files)
    commit = hello.push()
    run = on_docker.ended_run_of(commit)
    assert run["state"] == "succeeded", (
        run["reason"],
        [(step["step"], step["state"], step["reason"]) for step in run["steps"]],
    )
    assert {step["type"] for step in run["steps"]} == set(step_types()) - {"step.plugin"}
    assert {step["state"] for step in run["steps"]} == {"succeeded"}
    url = next(step for step in run["steps"] if step["step"] == "deploy")["outputs"]["url"]
    assert "Hello from a container" in httpx.get(url, trust_env=False).text
    assert httpx.get(f"{url}/version", trust_env=False).text.strip() == commit[:12]

    page = files["site/index.html"].replace("Hello from", "Greetings from")
    hello.commit({"site/index.html": page}, "Greet")
    second = on_docker.ended_run_of(hello.push())
    assert second["state"] == "succeeded", second
    assert "Greetings from a container" in httpx.get(url, trust_env=False).text

    hello.commit({"site/index.html": "<html>"}, "Break the page")
    broken = on_docker.ended_run_of(hello.push())
    assert (broken["state"], state_of(broken, "deploy")) == ("failed", "skipped")
    assert "site/index.html" in broken["reason"]
    assert "Greetings from a container" in httpx.get(url, trust_env=False).text


def test_nothing_stays_when_the_platform_goes(on_docker: Penstock, docker_engine: DockerEngine) -> None:
    """Neither a container nor a process."""
    assert on_docker.down() == 0
    client = docker_engine.client()
    left = [container.name for container in client.containers.list() if "penstock" in str(container.labels)]
    client.close()
    assert left == []
    assert on_docker.living() == []
