"""The docker engine's own claims: what it asks of Docker, what it says when Docker fails, what it leaves."""

import json
import os
import pty
import re
import select
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from containers import BUSYBOX, DockerEngine, build_busybox
from engine_contract import Contract, container_contract, ends_soon, listening_on_this_machine, long_sleep
from real_parts import short_folder

from penstock.engines import Probe, Sidecar, open_engine
from penstock.engines.docker_client import open_docker
from penstock.engines.docker_secrets import in_memory, memory_folder
from penstock.errors import Cancelled, PlatformError, SettingsError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.processes import wait_until
from penstock.settings import load_settings

pytestmark = pytest.mark.xdist_group("docker")


@pytest.fixture
def own_engine() -> Iterator[DockerEngine]:
    """An engine that the test may kill."""
    folder = short_folder()
    engine = DockerEngine(folder / "docker")
    try:
        engine.start()
        build_busybox(engine.host, folder / "busybox", BUSYBOX)
        yield engine
    finally:
        if not engine.answers():
            engine.stop()
            engine.start()
        engine.remove()
        shutil.rmtree(folder, ignore_errors=True)


def inspected(engine: DockerEngine, contract: Contract) -> list[dict[str, Any]]:
    """All containers of the contract's run."""
    with closing(engine.client()) as client:
        found = client.containers.list(all=True, filters={"label": f"io.penstock.run={contract.run_id}"})
        return [container.attrs for container in found]


@contextmanager
def in_background(contract: Contract, script: str, **options: object) -> Iterator[list[object]]:
    """A job that runs meanwhile. Gives the list that will hold its Exit or its error; cancels it at the end."""
    token, begun, ended = CancelToken(), threading.Event(), list[object]()

    def run() -> None:
        try:
            ended.append(contract.engine.run(contract.job(script, **options), lambda _: begun.set(), token))
        except (PlatformError, StepFailure, Cancelled) as error:
            ended.append(error)
        begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert begun.wait(120)
        yield ended
    finally:
        token.cancel("the test is over")
        thread.join(60)


# What is asked of Docker


def test_container_is_closed(docker_engine: DockerEngine, docker_contract: Contract):
    """Every limit and door, as the engine has it on record."""
    limits = {"memory_bytes": 64 << 20, "cpus": 0.5, "pids": 77}
    with in_background(docker_contract, "echo begun; busybox sleep 600", **limits):
        (found,) = inspected(docker_engine, docker_contract)
    host = found["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["ReadonlyRootfs"], host["Privileged"], host["Init"]) == (True, False, True)
    assert (host["NetworkMode"], host["PidMode"]) == ("none", "")
    assert (host["Memory"], host["MemorySwap"]) == (64 << 20, 64 << 20)
    assert (host["NanoCpus"], host["PidsLimit"]) == (500_000_000, 77)
    assert host["LogConfig"]["Type"] == "none"
    assert list(host["Tmpfs"]) == ["/tmp"]
    assert found["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"


def test_more_processors_than_there_are_is_no_error(docker_contract: Contract):
    """A pipeline that asks for 64 runs on a smaller machine too."""
    assert docker_contract.run("exit 0", cpus=4096.0).code == 0


def test_secret_is_not_on_the_engines_record(docker_engine: DockerEngine, docker_contract: Contract):
    """Neither in its environment nor its arguments, and its file is gone from this machine while the step runs."""
    value = f"value{long_sleep()}"
    with in_background(docker_contract, "echo begun; busybox sleep 600", secrets={"TOKEN": value.encode()}):
        (found,) = inspected(docker_engine, docker_contract)
        sources = [Path(mount["Source"]) for mount in found["Mounts"] if "secrets" in mount["Destination"]]
        assert len(sources) == 1
        assert wait_until(lambda: not sources[0].exists(), limit_s=30)
    assert value not in json.dumps(found)
    assert docker_contract.says("cat /run/secrets/TOKEN", secrets={"TOKEN": value.encode()}) == value


def test_secrets_of_a_killed_penstock_are_forgotten(docker_contract: Contract, home: Path):
    """Its moment on this machine ends with the reaper at the latest."""
    with in_memory(home, docker_contract.run_id, "step", {"TOKEN": b"x"}) as files:
        assert files.paths["TOKEN"].stat().st_mode & 0o777 == 0o400
        docker_contract.engine.reap("another run")
        assert files.paths["TOKEN"].exists()
        docker_contract.engine.reap(docker_contract.run_id)
        assert not files.paths["TOKEN"].exists()


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_secret_with_a_path_for_a_name_is_refused(home: Path, name: str):
    """It could land anywhere."""
    with pytest.raises(StepFailure, match="no name for a secret"), in_memory(home, "run", "step", {name: b"x"}):
        pass


def test_no_memory_for_secrets_is_said(tmp_path: Path):
    """They never fall back to a disk."""
    (tmp_path / "mounts").write_text("/dev/sda1 /dev/shm ext4 rw 0 0\n")
    with pytest.raises(PlatformError, match="mount a tmpfs"):
        memory_folder(tmp_path / "mounts")


def test_jobs_with_network_do_not_reach_each_other(docker_engine: DockerEngine, docker_contract: Contract):
    """Out to the world, not to the neighbour; and a step that asks for no network is on none."""
    script = "echo begun; while true; do echo neighbour | busybox nc -l -p 25000; done"
    with in_background(docker_contract, script, network=True):
        (found,) = inspected(docker_engine, docker_contract)
        (network,) = found["NetworkSettings"]["Networks"].values()
        address = network["IPAddress"]
        assert wait_until(lambda: _connects(address, 25000), limit_s=30)
        said = docker_contract.says(f"busybox nc -w 3 {address} 25000 </dev/null", network=True)
    assert "neighbour" not in said


def test_first_jobs_with_network_start_at_once(docker_engine: DockerEngine, docker_contract: Contract, home: Path):
    """Eight that all find no network yet make one, not eight that Docker could not tell apart."""
    ended: list[object] = []

    def run(number: int) -> None:
        workspace = home / f"workspace-{number}"
        workspace.mkdir()
        ended.append(container_contract(docker_engine.host, home, workspace).run("exit 0", network=True).code)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [0] * 8


def _connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=5) as connection:
            return connection.recv(100) != b""
    except OSError:
        return False


def test_services_have_no_address_but_loopback(docker_contract: Contract):
    """An internal network would still lead to this machine through its gateway; there is none."""
    service = docker_contract.sidecar("db", "busybox sleep 600")
    with listening_on_this_machine() as port:
        said = docker_contract.says(
            f"busybox ip -o addr; busybox ip route; busybox nc -w 2 172.17.0.1 {port} </dev/null; true",
            services=(service,),
        )
    assert "127.0.0.1/8" in said
    assert "this machine" not in said
    assert all(" lo " in line for line in said.splitlines() if "inet" in line)


def test_nothing_is_left(docker_engine: DockerEngine, docker_contract: Contract):
    """No container, no volume, whatever happened."""
    service = docker_contract.sidecar("db", "busybox sleep 600")
    docker_contract.run("exit 0", services=(service,))
    docker_contract.run("exit 1", services=(service,))
    docker_contract.run("busybox sleep 600", services=(service,), timeout_s=1)
    docker_contract.cancelled("echo begun; busybox sleep 600", services=(service,))
    docker_contract.run(argv=("/none",), services=(service,))
    assert inspected(docker_engine, docker_contract) == []


def test_two_services_on_one_port_say_so(docker_contract: Contract):
    """The second one dies, and its last words are the message."""
    service = docker_contract.sidecar("one", "exec busybox httpd -f -p 28081", ready=Probe(port=28081))
    other = docker_contract.sidecar("two", "busybox sleep 1; exec busybox httpd -f -p 28081")
    with pytest.raises(StepFailure, match=r"service two died.*[Aa]ddress.*in use"):
        docker_contract.run("busybox sleep 5; exit 1", services=(service, other))


def test_service_without_image_is_refused(docker_contract: Contract):
    """What it should run cannot be guessed."""
    with pytest.raises(StepFailure, match="service db names no image"):
        docker_contract.run("true", services=(Sidecar("db"),))


def test_service_that_does_not_answer_http_well(docker_contract: Contract):
    """A port that listens is not enough when a path is asked for."""
    service = docker_contract.sidecar(
        "web", "exec busybox httpd -f -p 28082 -h /bin", ready=Probe(port=28082, http="/none", limit_s=2)
    )
    with pytest.raises(StepFailure, match=r"web.*http://web:28082/none"):
        docker_contract.run("true", services=(service,))


# Whose it is


def test_another_home_is_not_reaped(docker_engine: DockerEngine, docker_contract: Contract):
    """Two Penstocks on one machine, with the same number of a run."""
    other_home = short_folder()
    try:
        other = container_contract(docker_engine.host, other_home, docker_contract.workspace)
        with in_background(docker_contract, "echo begun; busybox sleep 600") as ended:
            assert other.engine.reap(docker_contract.run_id) == 0
            assert ended == []
            assert docker_contract.engine.reap(docker_contract.run_id) == 1
    finally:
        shutil.rmtree(other_home)


def test_step_is_reaped_alone(docker_contract: Contract):
    """And a job whose container is taken away ends."""
    with in_background(docker_contract, "echo begun; busybox sleep 600") as ended:
        assert docker_contract.engine.reap(docker_contract.run_id, "other") == 0
        assert docker_contract.engine.reap(docker_contract.run_id, "step") == 1
        assert wait_until(lambda: bool(ended), limit_s=60)


# Images and the registry


def test_image_is_fetched_when_it_is_absent(docker_engine: DockerEngine, docker_contract: Contract, registry: str):
    """By its name, or pinned by its digest; the digest is the registry's."""
    name = f"{registry}/team/tool"
    digest = _pushed(docker_engine, name)
    docker_contract.image = f"{name}:1"
    assert docker_contract.says("echo fetched") == "fetched\n"
    assert docker_contract.engine.image_digest(f"{name}:1") == digest
    _forgotten(docker_engine, f"{name}:1")
    docker_contract.image = f"{name}@{digest}"
    assert docker_contract.says("echo pinned") == "pinned\n"
    _forgotten(docker_engine, f"{name}@{digest}")
    assert docker_contract.engine.image_digest(f"{name}:1") == digest
    _forgotten(docker_engine, f"{name}:1")


def _pushed(engine: DockerEngine, name: str) -> str:
    with closing(engine.client()) as client:
        client.images.get(BUSYBOX).tag(name, "1")
        lines = list(client.api.push(name, "1", stream=True, decode=True))
        client.images.remove(f"{name}:1")
        return str(next(line["aux"]["Digest"] for line in lines if "aux" in line))


def _forgotten(engine: DockerEngine, image: str) -> None:
    with closing(engine.client()) as client:
        client.images.remove(image, force=True)


def test_image_that_the_registry_lacks_is_the_steps_failure(docker_contract: Contract, registry: str):
    """Named, with what to do."""
    docker_contract.image = f"{registry}/no/such:image"
    with pytest.raises(StepFailure, match=rf"no image {registry}/no/such:image.*mend `image`"):
        docker_contract.run("true")


def test_registry_that_is_away_is_no_failure_of_the_step(docker_contract: Contract):
    """It is worth another try."""
    docker_contract.image = "127.0.0.1:1/some:image"
    with pytest.raises(PlatformError, match=r"the registry of the image 127.0.0.1:1/some:image cannot be reached"):
        docker_contract.run("true")


# The engine fails


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("unix:///no/such/socket", "there is no such socket"),
        ("tcp://127.0.0.1:1", "nobody listens"),
    ],
)
def test_engine_that_is_away_is_said_in_one_line(docker_contract: Contract, host: str, words: str):
    """Where it was looked for, and what to do."""
    engine = open_engine(attrs.evolve(docker_contract.settings, docker_host=host))
    with pytest.raises(PlatformError, match=f"{host}.*{words}.*PENSTOCK_DOCKER_HOST") as caught:
        engine.run(docker_contract.job("true"), print, CancelToken())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["", "nonsense", "ftp://x:1", "ssh://x", "tcp://"])
def test_address_that_is_none_is_refused(docker_contract: Contract, host: str):
    """A setting, not the engine's fault; nothing means the default."""
    settings = load_settings({"PENSTOCK_HOME": str(docker_contract.settings.home), "PENSTOCK_DOCKER_HOST": host})
    if host == "":
        assert settings.docker_host is None
        return
    with pytest.raises(SettingsError, match="PENSTOCK_DOCKER_HOST"):
        open_docker(settings)


@pytest.mark.parametrize(("version", "said"), [("1.24", "API 1.24 is too old"), (None, "too old")])
def test_engine_that_is_too_old_is_said(docker_contract: Contract, tmp_path: Path, version: str | None, said: str):
    """Not by an error in the middle of a step."""
    header = f"Api-Version: {version}\r\n" if version else ""
    answer = f"HTTP/1.1 200 OK\r\n{header}Content-Length: 2\r\nConnection: close\r\n\r\nOK".encode()
    with listening_on_this_machine(answer) as port:
        settings = attrs.evolve(docker_contract.settings, docker_host=f"tcp://127.0.0.1:{port}")
        with pytest.raises(PlatformError, match=said):
            open_docker(settings)


def test_killed_engine_is_no_failure_of_the_step(own_engine: DockerEngine, home: Path, workspace: Path):
    """`kill -9` in mid-step: the platform's fault, in words; when it is back, what is left is found."""
    contract, seconds = container_contract(own_engine.host, home, workspace), long_sleep()
    with in_background(contract, f"echo begun; busybox sleep {seconds}") as ended:
        own_engine.kill()
        assert wait_until(lambda: bool(ended), limit_s=90)
    (error,) = ended
    assert isinstance(error, PlatformError)
    # Asked while it died, or after that.
    assert re.search("lost the container while step ran: (no engine is there|the engine went away)", str(error))
    own_engine.start()
    assert contract.engine.reap(contract.run_id) == 1
    assert ends_soon(seconds)
    assert contract.says("echo again") == "again\n"


def test_restarted_engine_is_no_failure_of_the_step(own_engine: DockerEngine, home: Path, workspace: Path):
    """An orderly restart ends the containers: their exit codes are not the step's."""
    contract, seconds = container_contract(own_engine.host, home, workspace), long_sleep()
    with in_background(contract, f"echo begun; busybox sleep {seconds}") as ended:
        own_engine.stop()
        own_engine.start()
        assert wait_until(lambda: bool(ended), limit_s=90)
    (error,) = ended
    assert isinstance(error, PlatformError), error
    contract.engine.reap(contract.run_id)
    assert ends_soon(seconds)


def test_full_disk_is_no_failure_of_the_step(docker_contract: Contract, workspace: Path):
    """The step's command failed, because the disk of the workspaces is full."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "tmpfs", str(workspace)], check=True)
    try:
        with pytest.raises(PlatformError, match=r"disk of the workspaces is full.*free space"):
            docker_contract.run("busybox head -c 2000000 /dev/zero >big")
        assert docker_contract.run("rm big; exit 7").code == 7
    finally:
        subprocess.run(["umount", str(workspace)], check=True)


# What would go wrong in silence


def test_work_dir_that_is_not_there(docker_contract: Contract):
    """Docker would make it, as root."""
    with pytest.raises(StepFailure, match='no folder "sub"'):
        docker_contract.run("true", work_dir="sub")
    assert not (docker_contract.workspace / "sub").exists()


def test_workspace_that_is_not_there(docker_contract: Contract):
    """Not the step's fault."""
    shutil.rmtree(docker_contract.workspace)
    with pytest.raises(PlatformError, match=r"workspace .* is not there"):
        docker_contract.run("true")


def test_too_little_memory_is_said(docker_contract: Contract):
    """Before Docker refuses it in its own words."""
    with pytest.raises(StepFailure, match="raise `memory`"):
        docker_contract.run("true", memory_bytes=1000)


def test_images_own_entrypoint_has_no_say(docker_engine: DockerEngine, docker_contract: Contract, tmp_path: Path):
    """An image of a tool runs the step's commands, not its tool on them."""
    (tmp_path / "Dockerfile").write_text(f'FROM {BUSYBOX}\nENTRYPOINT ["/bin/echo", "the tool"]\nUSER 1234\n')
    with closing(docker_engine.client()) as client:
        client.images.build(path=str(tmp_path), tag="tool:tests", rm=True)
    docker_contract.image = "tool:tests"
    try:
        assert docker_contract.says("busybox id -u; touch made") == f"{os.getuid()}\n"
        assert (docker_contract.workspace / "made").stat().st_uid == os.getuid()
    finally:
        _forgotten(docker_engine, "tool:tests")


# A person's terminal


def test_shell_is_a_terminal(docker_engine: DockerEngine, docker_contract: Contract):
    """`penstock shell`: keys go in, output comes out, the exit code comes back, nothing is left."""
    program = """
        import sys
        from pathlib import Path
        from penstock.engines import Job, open_engine
        from penstock.settings import load_settings
        job = Job(sys.argv[1], "step", ("/bin/sh",), Path(sys.argv[2]), image=sys.argv[3])
        sys.exit(open_engine(load_settings()).shell(job))
    """
    words = [docker_contract.run_id, str(docker_contract.workspace), BUSYBOX]
    settings = docker_contract.settings
    env = {
        **os.environ,
        "PENSTOCK_HOME": str(settings.home),
        "PENSTOCK_ENGINE": "docker",
        "PENSTOCK_DOCKER_HOST": str(settings.docker_host),
    }
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *words],
        env=env,
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
    )
    os.close(terminal)
    try:
        shown = _read_until(keyboard, b"# ") + b"|"
        os.write(keyboard, b"test -t 0 && echo on a ter''minal; echo kept >file; exit 5\n")
        shown += _read_until(keyboard, b"no such words, until it is closed")
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
        os.close(keyboard)
    assert (process.returncode, said) == (5, b"")
    assert b"on a terminal" in shown
    assert (docker_contract.workspace / "file").read_text() == "kept\n"
    assert inspected(docker_engine, docker_contract) == []


def _read_until(keyboard: int, words: bytes) -> bytes:
    shown, deadline = b"", time.monotonic() + 60
    while words not in shown and time.monotonic() < deadline:
        if select.select([keyboard], [], [], 1)[0]:
            try:
                shown += os.read(keyboard, 65536)
            except OSError:  # the other end is closed
                break
    return shown
