"""step.docker_run on a real engine: to the end, as a service, and that nothing of it outlives the run."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import docker
import httpx
import pytest
from containers import BUSYBOX, DockerEngine, free_port
from image_steps import LIMIT_S, Bench
from pydantic import ValidationError

from penstock.errors import InputError, PlatformError, StepFailure
from penstock.images.container import parse_port, parse_volume
from penstock.images.leftovers import noted_runs, remove_of_run
from penstock.processes import wait_until
from penstock.settings import Settings

pytestmark = pytest.mark.xdist_group("docker")

MakeBench = Callable[..., Bench]
SERVE = ["httpd", "-f", "-p", "8080", "-h", "/bin"]


def shell(script: str) -> dict[str, object]:
    """Fields for a container that runs a script."""
    return {"image": BUSYBOX, "entrypoint": ["/bin/sh", "-c"], "command": script}


@pytest.fixture
def bench(make_bench: MakeBench) -> Iterator[Bench]:
    """A bench whose run is closed afterwards, as a session does it."""
    made = make_bench({"src/a.txt": "from the workspace"}, secrets={"token": "s3cret"})
    yield made
    remove_of_run(made.context.settings, made.context.run.id)


def left(bench: Bench) -> list[str]:
    """Containers on the engine, of whatever state."""
    return [container.status for container in bench.client.containers.list(all=True)]


def test_exit_code_decides_and_output_is_live(bench: Bench):
    """Zero is success; what it prints is in the log, in order; nothing is left."""
    result = bench.run("docker_run", **shell("echo one; echo two >&2; echo three"))
    assert (result.state, result.exit_code, result.outputs) == ("succeeded", 0, {"exit_code": "0"})
    assert all(word in bench.log() for word in ("one", "two", "three"))
    assert left(bench) == []


def test_other_exit_code_fails_the_step_with_the_last_lines(bench: Bench):
    """And says which it was."""
    result = bench.run("docker_run", **shell("echo it is broken; exit 3"))
    assert (result.state, result.exit_code) == ("failed", 3)
    assert result.reason == "exit code 3: it is broken"
    assert left(bench) == []


def test_images_own_command_is_run_when_none_is_given(bench: Bench):
    """As `docker run` does; an image that this run has built is found by its id."""
    (bench.context.workspace / "Dockerfile").write_text(f'FROM {BUSYBOX}\nENTRYPOINT ["echo"]\nCMD ["by", "itself"]\n')
    built = bench.run("docker_build", tags=["own"])
    bench.run("docker_run", image=built.outputs["digest"])
    bench.run("docker_run", image="own", command=["by", "pipeline"])
    assert "by itself" in bench.log()
    assert "by pipeline" in bench.log()


def test_container_is_closed_by_default(bench: Bench):
    """No capabilities, no new privileges, no network, a limit of processes, no socket of the engine."""
    script = (
        "grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; ls /sys/class/net; "
        "test -e /var/run/docker.sock && echo socket; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max; true"
    )
    bench.run("docker_run", pids=77, **shell(script))
    log = bench.log()
    assert "CapEff:\t0000000000000000" in log
    assert "CapBnd:\t0000000000000000" in log
    assert "NoNewPrivs:\t1" in log
    assert "Seccomp:\t2" in log
    assert " lo\n" in log
    assert " 77\n" in log
    assert "eth0" not in log
    assert "socket" not in log


def test_environment_and_secrets_reach_the_container(bench: Bench, client: docker.DockerClient):
    """Secrets as files in memory, and as variables when asked; with a pinned image only."""
    pinned = client.images.get(BUSYBOX).id
    script = 'test "$(cat /run/secrets/token)" = s3cret && test "$TOKEN" = s3cret && echo "$WHO at $CI_PROJECT"'
    fields = {**shell(script), "image": pinned, "env": {"WHO": "Ada"}, "secrets": ["token"]}
    assert bench.run("docker_run", secret_env={"TOKEN": "token"}, **fields).state == "succeeded"
    assert "Ada at shop" in bench.log()


def test_step_with_secrets_runs_pinned_images_only(bench: Bench):
    """A name can come to mean another image."""
    with pytest.raises(ValidationError, match="pinned images only; write busybox@sha256:…"):
        bench.run("docker_run", secrets=["token"], **shell("true"))


def test_folders_of_the_workspace_and_volumes_of_the_run_are_shared(bench: Bench):
    """A folder may be read-only; what one step puts into a volume the next one finds; both go with the run."""
    volumes = ["./src:/src:ro", "shared:/data"]
    bench.run("docker_run", name="writer", volumes=volumes, **shell("cat /src/a.txt; echo kept > /data/x"))
    assert bench.run("docker_run", name="vandal", volumes=volumes, **shell("echo > /src/a.txt")).state == "failed"
    bench.run("docker_run", name="reader", volumes=volumes, **shell("cat /data/x"))
    assert "from the workspace" in bench.log()
    assert "kept" in bench.log()
    remove_of_run(bench.context.settings, bench.context.run.id)
    assert not [volume for volume in bench.client.volumes.list() if bench.context.run.id[:18] in volume.name]


def test_volumes_of_another_run_are_others(make_bench: MakeBench, bench: Bench):
    """The same name is another volume there: runs do not see what others left."""
    bench.run("docker_run", volumes=["shared:/data"], **shell("echo > /data/x"))
    other = make_bench()
    assert other.run("docker_run", volumes=["shared:/data"], **shell("test ! -e /data/x")).state == "succeeded"
    remove_of_run(other.context.settings, other.context.run.id)


def test_volume_that_leads_out_by_a_link_is_refused(bench: Bench):
    """The workspace is all of this machine that a container may see."""
    (bench.context.workspace / "out").symlink_to("/etc")
    with pytest.raises(InputError, match="leads out of the workspace"):
        bench.run("docker_run", volumes=["./out:/x"], **shell("true"))
    with pytest.raises(StepFailure, match='no "nothing" in the workspace'):
        bench.run("docker_run", volumes=["./nothing:/x"], **shell("true"))


@pytest.mark.parametrize("how", ["cancelled", "timed_out"])
def test_stopped_container_is_gone(bench: Bench, how: str):
    """Within the grace of three seconds, also when it does not listen."""
    watch = bench.cancel_when("begun") if how == "cancelled" else threading.Thread()
    script = "trap '' TERM; echo begun; while true; do sleep 1; done"
    result = bench.run("docker_run", timeout=3600 if how == "cancelled" else 3, **shell(script))
    if how == "cancelled":
        watch.join()
    assert result.state == how
    assert left(bench) == []


def test_too_much_memory_has_its_own_words(bench: Bench):
    """Not only exit code 137."""
    with pytest.raises(StepFailure, match="more memory"):
        bench.run("docker_run", memory="16m", **shell("dd if=/dev/zero of=/dev/null bs=200M count=1"))


def test_image_that_does_not_exist_anywhere_fails(bench: Bench, registry: str):
    """The registry was asked, and has none."""
    with pytest.raises(StepFailure, match="there is no image"):
        bench.run("docker_run", image=f"{registry}/never/pushed:1")
    assert left(bench) == []


def test_command_that_the_image_does_not_have_fails_as_in_a_shell(bench: Bench):
    """Exit code 127, with its name."""
    result = bench.run("docker_run", image=BUSYBOX, entrypoint=["nonsense"])
    assert (result.state, result.exit_code) == ("failed", 127)
    assert left(bench) == []


def test_service_is_ready_and_stays_until_the_run_ends(bench: Bench):
    """Its address is in the outputs; closing the run removes it."""
    ready = {"tcp": 8080, "http": "/sh"}
    result = bench.run("docker_run", image=BUSYBOX, command=SERVE, ports=[8080], ready=ready, wait_for_exit=False)
    assert result.state == "succeeded"
    assert result.outputs["address"] == f"{result.outputs['host']}:{result.outputs['port']}"
    assert result.outputs["ports"] == f"8080={result.outputs['port']}"
    with httpx.Client(trust_env=False) as http:
        assert http.get(f"http://{result.outputs['address']}/sh").status_code == 200
    assert left(bench) == ["running"]
    assert remove_of_run(bench.context.settings, bench.context.run.id) == 1
    assert left(bench) == []
    assert noted_runs(bench.context.settings) == ()


def test_service_is_published_on_this_machine_alone(bench: Bench, docker_settings: Settings):
    """On loopback; on the containers' own gateway when steps run in containers, which reach it there."""
    fields = {"image": BUSYBOX, "command": SERVE, "ports": ["8080"], "wait_for_exit": False, "ready": {"tcp": 8080}}
    assert bench.run("docker_run", **fields).outputs["host"] == "127.0.0.1"
    context = attrs.evolve(bench.context, settings=attrs.evolve(docker_settings, engine="docker"))
    in_containers = attrs.evolve(bench, context=context)
    address = in_containers.run("docker_run", name="other", **fields).outputs["address"]
    assert not address.startswith(("127.", "0.0.0.0"))
    host, _, port = address.partition(":")
    ask = f"printf 'GET /sh HTTP/1.0\\r\\n\\r\\n' | nc -w 30 {host} {port} | head -n 1 | grep 200"
    assert in_containers.run("docker_run", name="asks", network=True, **shell(ask)).state == "succeeded"


def test_port_of_this_machine_can_be_chosen(bench: Bench):
    """`8080:80`, this machine's first."""
    port = free_port()
    result = bench.run("docker_run", image=BUSYBOX, command=SERVE, ports=f"{port}:8080", wait_for_exit=False)
    assert result.outputs["port"] == str(port)


def test_service_that_is_tried_again_is_there_once(bench: Bench):
    """The former attempt's container makes room."""
    for _ in range(2):
        bench.run("docker_run", image=BUSYBOX, command=SERVE, wait_for_exit=False)
    assert left(bench) == ["running"]


@pytest.mark.parametrize(
    ("script", "ready", "words"),
    [
        ("echo no licence; exit 5", {"tcp": 1}, r"ended before it was ready \(exit code 5\): no licence"),
        ("echo up; sleep 600", {"tcp": 8080, "within": 1}, "not ready within 1 s: nobody listens on port 8080: up"),
        ("sleep 600", {"command": ["false"], "within": 1}, "`false` ended with exit code 1"),
        ("httpd -f -p 8080", {"tcp": 8080, "http": "/nothing", "within": 1}, "/nothing answers 404"),
    ],
)
def test_service_that_does_not_become_ready_fails_with_its_last_words(
    bench: Bench, script: str, ready: dict[str, object], words: str
):
    """And is removed."""
    with pytest.raises(StepFailure, match=words):
        bench.run("docker_run", wait_for_exit=False, ports=["8080"], ready=ready, **shell(script))
    assert left(bench) == []


def test_service_whose_command_the_image_does_not_have_fails(bench: Bench):
    """It is the pipeline's fault, and nothing is left."""
    with pytest.raises(StepFailure, match="nonsense"):
        bench.run("docker_run", image=BUSYBOX, entrypoint="nonsense", wait_for_exit=False, ready={"tcp": 80})
    assert left(bench) == []


def test_cancel_ends_the_waiting_for_a_service(bench: Bench):
    """And removes it."""
    threading.Timer(1.0, bench.context.token.cancel, ("enough",)).start()
    with pytest.raises(Exception, match="enough"):
        bench.run("docker_run", wait_for_exit=False, ready={"tcp": 9, "within": 600}, **shell("sleep 600"))
    assert left(bench) == []


def test_service_of_a_killed_process_is_found_by_its_note(bench: Bench, docker_engine: DockerEngine, tmp_path: Path):
    """`kill -9` of the run's process: whoever closes the run removes what it had started."""
    run_id, settings = bench.context.run.id, bench.context.settings
    script = tmp_path / "run.py"
    lines = [
        "import sys, time; from pathlib import Path; from penstock.settings import load_settings",
        "from penstock.engines import Job; from penstock.engines.docker_server import connected",
        "from penstock.images.container import Container; from penstock.images.leftovers import note_run",
        "from penstock.images.running import Place, start_service; from penstock.images.stopping import Limit",
        "from penstock.pipeline.cancel import CancelToken; from penstock.pipeline.log import FileLog",
        f"settings = load_settings({{'PENSTOCK_HOME': {str(settings.home)!r}, "
        f"'PENSTOCK_DOCKER_HOST': {docker_engine.host!r}}})",
        f"job = Job({run_id!r}, 'service', ('x',), Path({str(bench.context.workspace)!r}))",
        "place = Place(settings, job, FileLog(Path(sys.argv[1])), Limit(60, CancelToken()))",
        f"note_run(settings, {run_id!r})",
        "with connected(settings) as server:",
        f"    start_service(server, Container({BUSYBOX!r}, command=('sleep', '600')), place, None)",
        "    print('started', flush=True); time.sleep(600)",
    ]
    script.write_text("\n".join(lines))
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert left(bench) == ["running"]
    assert noted_runs(settings) == (run_id,)
    assert remove_of_run(settings, run_id) == 1
    assert left(bench) == []


def test_run_without_containers_does_not_ask_the_engine(docker_settings: Settings, tmp_path: Path):
    """Closing such a run needs no Docker at all."""
    away = attrs.evolve(docker_settings, docker_host=f"unix://{tmp_path}/no.sock")
    assert remove_of_run(away, "never") == 0


def test_note_stays_while_the_engine_is_away(bench: Bench, tmp_path: Path):
    """What cannot be removed now is not forgotten, and closing the run does not fail."""
    bench.run("docker_run", image=BUSYBOX, command=["sleep", "600"], wait_for_exit=False)
    away = attrs.evolve(bench.context.settings, docker_host=f"unix://{tmp_path}/no.sock")
    assert remove_of_run(away, bench.context.run.id) == 0
    assert noted_runs(away) == (bench.context.run.id,)


def test_engine_that_is_away_is_said_in_one_line(make_bench: MakeBench, docker_settings: Settings, tmp_path: Path):
    """With the remedy."""
    away = attrs.evolve(docker_settings, docker_host=f"unix://{tmp_path}/no.sock")
    with pytest.raises(PlatformError, match="PENSTOCK_DOCKER_HOST"):
        make_bench(settings=away).run("docker_run", **shell("true"))


def test_engine_that_dies_under_a_container_is_not_the_users_fault(bench: Bench, docker_engine: DockerEngine):
    """The step is infra_error; the engine's return finds nothing of it once the run is closed."""
    ended = threading.Event()

    def kill() -> None:
        wait_until(lambda: ended.is_set() or "begun" in bench.log(), limit_s=LIMIT_S)
        docker_engine.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.raises(PlatformError):
            bench.run("docker_run", **shell("echo begun; sleep 600"))
    finally:
        ended.set()
        thread.join()  # an engine that is not dead yet must not be started a second time
        docker_engine.start()
    remove_of_run(bench.context.settings, bench.context.run.id)
    assert left(bench) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"volumes": ["/etc:/etc"]}, "neither a name nor a path of the workspace"),
        ({"volumes": ["/var/run/docker.sock:/var/run/docker.sock"]}, "neither a name nor a path"),
        ({"volumes": ["../x:/x"]}, "neither a name nor a path"),
        ({"volumes": ["./../x:/x"]}, "leaves the workspace"),
        ({"volumes": ["./x:/proc/x"]}, "cannot be covered"),
        ({"volumes": ["./x:/"]}, "cannot be covered"),
        ({"volumes": ["x"]}, "is no volume"),
        ({"ports": ["http"]}, "is no port"),
        ({"ports": ["80:8080"]}, "1024 or more"),
        ({"ports": ["0.0.0.0:8080:80"]}, "is no port"),
        ({"ports": [70000]}, "is no port"),
        ({"capabilities": ["SYS_ADMIN"]}, "Input should be"),
        ({"secret_env": {"A": "b"}}, "name it in `secrets` too"),
        ({"ready": {"tcp": 80}}, "wait_for_exit: false"),
        ({"privileged": True}, "Extra inputs"),
    ],
)
def test_what_a_container_may_not_have_is_refused_at_check_time(
    make_bench: MakeBench, fields: dict[str, object], words: str
):
    """Before anything runs."""
    with pytest.raises(ValidationError, match=words):
        make_bench().run("docker_run", image=BUSYBOX, **fields)


def test_ports_and_volumes_are_read_as_docker_reads_them():
    """This machine's side first."""
    assert (parse_port("53/udp").container, parse_port("53/udp").protocol) == (53, "udp")
    assert (parse_port("8080:80").host, parse_port("8080:80").container) == (8080, 80)
    assert parse_volume("/workspace/a/b:/x").source == "a/b"
    assert parse_volume("data:/x/./y:ro") == parse_volume("data:/x/y:ro")
