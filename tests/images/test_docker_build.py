"""step.docker_build on a real engine: what comes out, what must not be in it, and what is left when it fails."""

import threading
from collections.abc import Callable
from pathlib import Path

import attrs
import docker
import psutil
import pytest
from containers import BUSYBOX
from image_steps import COMMIT, LIMIT_S, PASSWORD, Bench, printed, saved_bytes
from pydantic import ValidationError

from penstock.errors import Cancelled, InputError, PlatformError, StepFailure, StepTimeout
from penstock.images.build import build_failure
from penstock.images.buildkit import build_command
from penstock.processes import wait_until
from penstock.settings import Settings

pytestmark = pytest.mark.xdist_group("docker")

HELLO = f'FROM {BUSYBOX}\nARG WHO=nobody\nCOPY hello.txt /hello.txt\nRUN echo I am $WHO\nCMD ["cat", "/hello.txt"]\n'
MakeBench = Callable[..., Bench]


def sleepers(seconds: str) -> list[psutil.Process]:
    """Processes `sleep SECONDS` of this machine."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [])[-2:] == ["sleep", seconds]:
            found.append(process)
    return found


@pytest.fixture(params=["buildkit", "legacy"])
def builder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The test runs twice: by BuildKit, and on a machine that has no docker command at all."""
    if request.param == "legacy":
        monkeypatch.setenv("PATH", str(tmp_path))
    return str(request.param)


def test_built_image_runs_and_says_where_it_comes_from(
    make_bench: MakeBench, client: docker.DockerClient, builder: str
):
    """Its id is the output, its tags are there, its labels are commit, project and the commit's time."""
    bench = make_bench({"Dockerfile": HELLO, "hello.txt": "hello"})
    result = bench.run("docker_build", tags=["shop:1", "shop:latest"], build_args={"WHO": "Ada"})
    image = client.images.get("shop:1")
    assert result.outputs == {"image": "shop:1", "digest": image.id}
    assert client.images.get("shop:latest").id == image.id
    assert image.labels["org.opencontainers.image.revision"] == COMMIT
    assert image.labels["org.opencontainers.image.created"] == bench.context.run.committed_at.isoformat()
    assert printed(client, "shop:1") == b"hello"
    assert "I am Ada" in bench.log()


def test_context_target_and_dockerfile_may_lie_anywhere_in_the_workspace(
    make_bench: MakeBench, client: docker.DockerClient, builder: str
):
    """The Dockerfile need not be in its context, and a stage can be asked for."""
    stages = f"FROM {BUSYBOX} AS first\nCOPY a.txt /a.txt\nFROM first AS second\nRUN false\n"
    bench = make_bench({"docker/app.dockerfile": stages, "src/a.txt": "a", "b.txt": "b"})
    bench.run("docker_build", tags=["staged"], context="src", dockerfile="docker/app.dockerfile", target="first")
    assert printed(client, "staged", ["cat", "/a.txt"]) == b"a"


def test_dockerignore_is_obeyed(make_bench: MakeBench, client: docker.DockerClient, builder: str):
    """What it names is not in the image, what it takes back is."""
    files = {"Dockerfile": f"FROM {BUSYBOX}\nCOPY . /src\n", ".dockerignore": "# notes\n*.txt\n!keep.txt\nsecret/\n"}
    bench = make_bench({**files, "drop.txt": "", "keep.txt": "", "secret/key": "k"})
    bench.run("docker_build", tags=["ignoring"])
    listed = printed(client, "ignoring", ["find", "/src", "-type", "f"]).decode()
    assert "keep.txt" in listed
    assert "drop.txt" not in listed
    assert "secret" not in listed


def test_link_out_of_the_context_is_not_followed(make_bench: MakeBench, client: docker.DockerClient, builder: str):
    """A file of this machine does not get into an image by a link."""
    bench = make_bench({"Dockerfile": f"FROM {BUSYBOX}\nCOPY . /src\n"})
    (bench.context.workspace / "leak").symlink_to("/etc/hostname")
    bench.run("docker_build", tags=["linked"])
    assert printed(client, "linked", ["readlink", "/src/leak"]).strip() == b"/etc/hostname"


@pytest.mark.parametrize("field", ["context", "dockerfile"])
def test_context_and_dockerfile_that_lead_out_by_a_link_are_refused(make_bench: MakeBench, field: str):
    """The workspace is all that a build may see."""
    bench = make_bench({"Dockerfile": HELLO})
    (bench.context.workspace / "out").symlink_to("/etc" if field == "context" else "/etc/hostname")
    with pytest.raises(InputError, match="leads out of the workspace"):
        bench.run("docker_build", tags=["out"], **{field: "out"})


def test_secret_is_mounted_and_in_no_layer(make_bench: MakeBench, client: docker.DockerClient):
    """RUN reads it; neither layers, history, configuration, nor the docker command's words hold it."""
    value = "s3cret-that-nobody-must-find"
    dockerfile = f"FROM {BUSYBOX}\nRUN --mount=type=secret,id=token wc -c < /run/secrets/token > /length\n"
    bench = make_bench({"Dockerfile": dockerfile}, secrets={"token": value})
    bench.run("docker_build", tags=["secretive"], secrets=["token"])
    assert printed(client, "secretive", ["cat", "/length"]).strip() == str(len(value)).encode()
    assert value.encode() not in saved_bytes(client, "secretive")
    assert value not in str(client.images.get("secretive").history())
    assert value not in bench.log()
    assert [path.name for path in bench.context.workspace.parent.iterdir()] == ["step"]


def test_secret_can_have_another_id(make_bench: MakeBench, client: docker.DockerClient):
    """`build_secrets` names what the Dockerfile calls it; the others are not mounted then."""
    dockerfile = f"FROM {BUSYBOX}\nRUN --mount=type=secret,id=npmrc --mount=type=secret,id=a ls /run/secrets > /ids\n"
    bench = make_bench({"Dockerfile": dockerfile}, secrets={"a": "1", "b": "2"})
    bench.run("docker_build", tags=["renamed"], secrets=["a", "b"], build_secrets={"npmrc": "b"})
    assert printed(client, "renamed", ["cat", "/ids"]).split() == [b"npmrc"]


def test_secret_that_was_not_granted_is_refused_at_check_time(make_bench: MakeBench):
    """Naming it in `build_secrets` alone does not grant it."""
    with pytest.raises(ValidationError, match="name it in `secrets` too"):
        make_bench().run("docker_build", tags=["x"], build_secrets={"npmrc": "b"})


def test_without_buildkit_a_build_with_secrets_says_what_to_install(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """It never falls back to a way that would put the secret into a layer."""
    monkeypatch.setenv("PATH", str(tmp_path))
    bench = make_bench({"Dockerfile": HELLO, "hello.txt": ""}, secrets={"token": "v"})
    with pytest.raises(StepFailure, match=r"need BuildKit.*install docker-buildx"):
        bench.run("docker_build", tags=["x"], secrets=["token"])


def test_run_with_mount_without_buildkit_says_what_to_install(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The old builder's own words, and the remedy."""
    monkeypatch.setenv("PATH", str(tmp_path))
    bench = make_bench({"Dockerfile": f"FROM {BUSYBOX}\nRUN --mount=type=cache,target=/c true\n"})
    with pytest.raises(StepFailure, match=r"requires BuildKit.*install docker-buildx"):
        bench.run("docker_build", tags=["x"])


def test_run_has_no_network_unless_asked(make_bench: MakeBench, client: docker.DockerClient, builder: str):
    """Without `network: true` there is no interface but loopback."""
    bench = make_bench({"Dockerfile": f"FROM {BUSYBOX}\nRUN ls /sys/class/net > /interfaces\n"})
    bench.run("docker_build", tags=["closed"])
    assert printed(client, "closed", ["cat", "/interfaces"]).split() == [b"lo"]
    bench.run("docker_build", tags=["open"], network=True, build_args={"HTTP_PROXY": "http://other"})
    assert b"eth0" in printed(client, "open", ["cat", "/interfaces"]).split()


def test_layers_of_an_earlier_image_are_used_again(make_bench: MakeBench, client: docker.DockerClient, registry: str):
    """With the build cache gone, `cache_from` takes the layers from the registry."""
    files = {"Dockerfile": f"FROM {BUSYBOX}\nRUN head -c 8 /dev/urandom | od > /once\n"}
    name = f"{registry}/team/cached:1"
    bench = make_bench(files)
    bench.run("docker_build", tags=[name], cache_from=[name])
    bench.run("docker_push", image=name)
    once = printed(client, name, ["cat", "/once"])
    client.images.remove(name, force=True)
    client.api.prune_builds()
    bench.run("docker_build", tags=["second"], cache_from=[name])
    assert printed(client, "second", ["cat", "/once"]) == once


def test_base_image_of_a_private_registry_is_fetched_with_its_login(
    make_bench: MakeBench, client: docker.DockerClient, locked_registry: str
):
    """The login is in no file and not in the log; without it the build fails."""
    base = f"{locked_registry}/base:1"
    files = {"Dockerfile": f"FROM {base}\nRUN echo built\n"}
    bench = make_bench(files, secrets={"password": PASSWORD})
    login = {"username": "ada", "password_secret": "password"}
    bench.run("docker_push", image=BUSYBOX, to=base, secrets=["password"], **login)
    client.images.remove(base)
    with pytest.raises(StepFailure, match=r"(?:401|denied|authorization|no basic auth)"):
        bench.run("docker_build", tags=["private"])
    bench.run("docker_build", tags=["private"], secrets=["password"], registries={locked_registry: login})
    assert client.images.get("private")
    assert PASSWORD not in bench.log()


def test_missing_dockerfile_is_said_in_one_line(make_bench: MakeBench):
    """With the path that was looked for."""
    with pytest.raises(StepFailure, match='no Dockerfile "app/Dockerfile" in the workspace; mend dockerfile'):
        make_bench({"app/main.py": ""}).run("docker_build", tags=["x"], context="app")
    with pytest.raises(StepFailure, match='no folder "app" in the workspace; mend context'):
        make_bench().run("docker_build", tags=["x"], context="app")


def test_failing_command_fails_the_step_with_its_exit_code(
    make_bench: MakeBench, client: docker.DockerClient, builder: str
):
    """No image, no container is left, and what it printed is in the log."""
    bench = make_bench({"Dockerfile": f"FROM {BUSYBOX}\nRUN echo on the way; exit 7\n"})
    with pytest.raises(StepFailure, match="7"):
        bench.run("docker_build", tags=["broken"])
    assert "on the way" in bench.log()
    assert not client.images.list("broken")
    assert not client.containers.list(all=True)


def test_mistake_in_the_dockerfile_is_a_failure(make_bench: MakeBench, builder: str):
    """An unknown instruction is the pipeline's own fault."""
    with pytest.raises(StepFailure, match=r"(?i)unknown instruction"):
        make_bench({"Dockerfile": f"FROM {BUSYBOX}\nRUNN x\n"}).run("docker_build", tags=["x"])


def test_unreachable_base_image_is_not_the_users_fault(make_bench: MakeBench, builder: str):
    """A registry that is away makes the step infra_error, so that it is tried again."""
    with pytest.raises(PlatformError, match="base image"):
        make_bench({"Dockerfile": "FROM 127.0.0.1:1/base:1\n"}).run("docker_build", tags=["x"])


@pytest.mark.parametrize(("how", "error"), [("cancel", Cancelled), ("timeout", StepTimeout)])
def test_stopped_build_leaves_nothing(
    make_bench: MakeBench, client: docker.DockerClient, builder: str, how: str, error: type[Exception]
):
    """Neither the command inside, nor a container, an image or a folder."""
    seconds = f"4{len(builder)}{len(how)}7"  # its own, so that its process is found
    bench = make_bench({"Dockerfile": f"FROM {BUSYBOX}\nRUN echo begun; exec sleep {seconds}\n"})
    watch = bench.cancel_when("begun\n") if how == "cancel" else threading.Thread()
    with pytest.raises(error):
        bench.run("docker_build", tags=["stopped"], timeout=3600 if how == "cancel" else 4)
    if how == "cancel":
        watch.join()
    assert wait_until(lambda: not sleepers(seconds), limit_s=LIMIT_S)
    assert wait_until(lambda: not client.containers.list(all=True), limit_s=LIMIT_S)
    assert not client.images.list("stopped")
    assert [path.name for path in bench.context.workspace.parent.iterdir()] == ["step"]


def test_cancelled_run_does_not_begin_a_build(make_bench: MakeBench, builder: str):
    """It is over before it starts."""
    bench = make_bench({"Dockerfile": HELLO, "hello.txt": ""})
    bench.context.token.cancel("enough")
    with pytest.raises(Cancelled):
        bench.run("docker_build", tags=["x"])


def test_engine_that_is_away_is_said_in_one_line(make_bench: MakeBench, docker_settings: Settings, tmp_path: Path):
    """With the remedy."""
    away = attrs.evolve(docker_settings, docker_host=f"unix://{tmp_path}/no.sock")
    with pytest.raises(PlatformError, match="PENSTOCK_DOCKER_HOST"):
        make_bench({"Dockerfile": HELLO}, settings=away).run("docker_build", tags=["x"])


def test_several_platforms_need_buildx(make_bench: MakeBench):
    """A docker command without it says so, instead of building one of them."""
    command = build_command("/usr/bin")
    if command is None or command.buildx:
        pytest.skip("this machine has buildx")
    with pytest.raises(StepFailure, match="one platform at a time; install docker-buildx"):
        make_bench({"Dockerfile": HELLO}).run("docker_build", tags=["x"], platforms=["linux/amd64", "linux/arm64"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tags": []}, "at least 1"),
        ({"tags": ["Shop"]}, "no name of an image"),
        ({"tags": ["x@sha256:" + "0" * 64]}, "has a digest"),
        ({"tags": ["x"], "cache_from": ["type=local,src=/etc"]}, "no name of an image"),
        ({"tags": ["x"], "target": "--output=/"}, "pattern"),
        ({"tags": ["x"], "platforms": ["linux/amd64,linux/arm64"]}, "pattern"),
        ({"tags": ["x"], "context": "../other"}, "leaves the workspace"),
        ({"tags": ["x"], "build_args": {"A B": "1"}}, "pattern"),
    ],
)
def test_what_cannot_be_built_is_refused_at_check_time(make_bench: MakeBench, fields: dict[str, object], words: str):
    """Before anything runs."""
    with pytest.raises(ValidationError, match=words):
        make_bench().run("docker_build", **fields)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("ERROR: failed to solve: write /var/lib: no space left on device", PlatformError),
        ("Cannot connect to the Docker daemon at unix:///x. Is it running?", PlatformError),
        ("error during connect: Post http://x: EOF", PlatformError),
        ("ERROR: failed to solve: a:1: failed to do request: Head: dial tcp: i/o timeout", PlatformError),
        ("failed to solve: executor failed running [wget x]: connection refused exit code: 1", StepFailure),
        ('ERROR: failed to solve: process "/bin/sh -c x" did not complete successfully: exit code: 1', StepFailure),
        ("", StepFailure),
    ],
)
def test_last_line_of_a_build_says_whose_fault_it_is(line: str, error: type[Exception]):
    """The words of Docker 20.10's client and of buildx."""
    assert type(build_failure([line, ""], 1)) is error
