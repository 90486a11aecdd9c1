"""The process engine's limits, secrets and services, with and without bubblewrap, with and without control groups."""

import os
import socket
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import psutil
import pytest
from real_parts import Isolation

from penstock.engines import Exit, Job, Probe, Sidecar
from penstock.engines.process import ProcessEngine, bubblewrap
from penstock.engines.process_command import name_of
from penstock.engines.process_groups import Group, Groups, candidates, find_groups
from penstock.errors import InputError, PenstockError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.processes import wait_until
from penstock.settings import Settings, load_settings

PYTHON = "python3 -I -S -c"
MIB = 1 << 20


@attrs.define
class Bench:
    """Runs shell scripts as jobs of one run."""

    engine: ProcessEngine
    workspace: Path
    run_id: str = attrs.field(factory=lambda: f"run-{uuid.uuid4().hex}")
    printed: bytes = b""

    def run(self, script: str, token: CancelToken | None = None, **options: object) -> Exit:
        self.printed = b""
        job = Job(
            self.run_id,
            "step",
            ("/bin/sh", "-c", textwrap.dedent(script)),
            self.workspace,
            **options,  # type: ignore[arg-type]
        )
        return self.engine.run(job, self._take, token or CancelToken())

    def says(self, script: str, **options: object) -> str:
        self.run(script, **options)
        return self.printed.decode().strip()

    def left(self) -> list[int]:
        """Processes whose arguments name this run: they do even with an empty environment."""
        return [process.pid for process in psutil.process_iter() if self._is_left(process)]

    def _is_left(self, process: psutil.Process) -> bool:
        try:
            return self.run_id in " ".join(process.cmdline()) and process.pid != os.getpid()
        except psutil.Error:
            return False

    def _take(self, chunk: bytes) -> None:
        self.printed += chunk


@pytest.fixture
def settings(home: Path) -> Settings:
    return load_settings({"PENSTOCK_HOME": str(home)})


@pytest.fixture
def workspace(home: Path) -> Path:
    folder = home / "workspaces" / "run" / "step"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(params=["control groups", "watched"])
def bench(isolation: Isolation, request: pytest.FixtureRequest, settings: Settings, workspace: Path) -> Bench:
    """Four machines: with bubblewrap and without, with control groups and without."""
    if request.param == "watched":
        return Bench(ProcessEngine(settings, find_groups=lambda: None), workspace)
    if find_groups() is None:
        pytest.skip("this machine lets us make no control groups")
    return Bench(ProcessEngine(settings), workspace)


@pytest.fixture
def held(isolation: Isolation, settings: Settings, workspace: Path) -> Bench:
    """With control groups."""
    if find_groups() is None:
        pytest.skip("this machine lets us make no control groups")
    return Bench(ProcessEngine(settings), workspace)


@pytest.fixture
def isolated(settings: Settings, workspace: Path) -> Iterator[Bench]:
    """Only with bubblewrap."""
    bubblewrap.cache_clear()
    if bubblewrap() is None:
        pytest.skip("bubblewrap is not installed, or the kernel does not let it work")
    yield Bench(ProcessEngine(settings), workspace)
    bubblewrap.cache_clear()


def groups_left(engine: ProcessEngine, run_id: str) -> list[Group]:
    groups = engine.find_groups()
    return [] if groups is None else groups.named(name_of(engine.settings, run_id))


# Limits


def test_limits_are_said_plainly(bench: Bench):
    """Whether the kernel holds them, or somebody looks now and then."""
    said = bench.engine.isolation()
    assert ("limits by control groups" in said) or ("looked at every 0.2 s, processors are not limited" in said)
    assert ("control groups" in said) == (bench.engine.find_groups() is not None)


def test_out_of_memory_is_its_own_state(bench: Bench):
    """Neither a failed test nor a time-out: who reads it knows what to raise."""
    script = f"{PYTHON} 'import time; x = b\"x\" * {600 * MIB}; time.sleep(60)'"
    ended = bench.run(script, memory_bytes=150 * MIB)
    assert ended.state == "out_of_memory"
    assert ended.code != 0


def test_memory_of_all_processes_counts_together(bench: Bench):
    """Four of 60 MiB are more than 150 MiB."""
    script = f"""
    {PYTHON} 'import os, time
    for _ in range(4):
        if not os.fork():
            x = b"x" * {60 * MIB}
            time.sleep(60)
    os.wait()
    os._exit(9)'
    """
    ended = bench.run(script, memory_bytes=150 * MIB)
    assert ended.state == "out_of_memory"


def test_memory_within_the_limit_is_left_alone(bench: Bench):
    """A process that forks shares its memory with its children: that counts once."""
    script = f"""
    {PYTHON} 'import os, time
    x = b"x" * {60 * MIB}
    for _ in range(6): os.fork() or (time.sleep(1.5), os._exit(0))
    for _ in range(6): os.wait()
    print("fine")'
    """
    ended = bench.run(script, memory_bytes=200 * MIB)
    assert (ended.state, ended.code) == ("exited", 0)
    assert b"fine" in bench.printed


def test_limit_of_processes_holds(bench: Bench):
    """The three hundredth is not there."""
    script = f"""
    {PYTHON} 'import os, time
    for _ in range(300): os.fork() or (time.sleep(60), os._exit(0))
    time.sleep(60)
    print("complete")' {bench.run_id}
    """
    ended = bench.run(script, pids=100, timeout_s=60)
    assert ended.state == "exited"
    assert ended.code != 0
    assert b"complete" not in bench.printed
    assert not bench.left()


def test_fork_bomb_is_stopped(held: Bench):
    """It ends with its time, and nothing of it is left."""
    bomb = f"""
    {PYTHON} 'import os, sys
    while True:
        try: os.fork()
        except OSError: pass' {held.run_id}
    """
    ended = held.run(bomb, pids=64, cpus=0.5, timeout_s=2)
    assert ended.state == "timed_out"
    assert not held.left()
    assert not groups_left(held.engine, held.run_id)


def test_processes_are_limited_without_being_asked(held: Bench):
    """A job that names no limit has one all the same."""
    groups = held.engine.find_groups()
    assert groups is not None
    seen: list[str] = []

    def look(_chunk: bytes) -> None:
        folders = groups.folders["pids"].glob(f"penstock-{name_of(held.engine.settings, held.run_id)}-*")
        seen.extend((folder / "pids.max").read_text().strip() for folder in folders)

    job = Job(held.run_id, "step", ("/bin/sh", "-c", "echo up; read x < fifo"), held.workspace, timeout_s=60)
    os.mkfifo(held.workspace / "fifo")

    def look_and_let_go(chunk: bytes) -> None:
        look(chunk)
        (held.workspace / "fifo").write_text("x\n")

    assert held.engine.run(job, look_and_let_go, CancelToken()).code == 0
    assert seen
    assert all(0 < int(text) < 10_000 for text in seen)


def test_processors_are_limited(held: Bench):
    """A fifth of one processor does a fifth of the work."""
    script = f"""
    {PYTHON} 'import time
    end = time.time() + 2
    while time.time() < end: pass
    print(time.process_time())'
    """
    assert float(held.says(script, cpus=0.2)) < 1.0


def test_use_is_that_of_all_processes(held: Bench):
    """Seconds of processor time and the peak of memory, not only of the first process."""
    script = f"{PYTHON} 'x = b\"x\" * {50 * MIB}\nfor i in range(3000000): pass' & wait"
    ended = held.run(script)
    assert ended.cpu_s is not None
    assert ended.cpu_s > 0.02
    assert ended.memory_peak_bytes is not None
    assert ended.memory_peak_bytes > 50 * MIB


def test_daemon_with_an_empty_environment_is_gone(bench: Bench):
    """It has left the group of processes, the session, its parents, and the mark of the run."""
    daemon = f'setsid python3 -c "import time; time.sleep(300)" {bench.run_id} &'
    script = f"""
    env -i PATH="$PATH" setsid sh -c '{daemon} {daemon}'
    sleep 0.3; echo over
    """
    ended = bench.run(script)
    assert (ended.state, ended.code) == ("exited", 0)
    assert wait_until(lambda: not bench.left(), limit_s=5)


def test_groups_are_gone_afterwards(held: Bench):
    """Whatever became of the job."""
    held.run("exit 3")
    held.run("sleep 300", timeout_s=0.3)
    assert not groups_left(held.engine, held.run_id)


def test_group_of_a_killed_penstock_is_reaped(held: Bench):
    """With all that is in it, the mark of the run or not."""
    groups = held.engine.find_groups()
    assert groups is not None
    group = groups.make(name_of(held.engine.settings, held.run_id, "step"))
    argv = group.joining(["env", "-i", "setsid", "sleep", "300"])
    process = subprocess.Popen(argv)
    try:
        assert wait_until(lambda: process.pid in group.members(), limit_s=30)
        assert held.engine.reap(held.run_id, "other") == 0
        assert held.engine.reap(held.run_id) == 1
        process.wait(10)
        assert not groups_left(held.engine, held.run_id)
    finally:
        process.kill()
        process.wait()


V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "".join(
    f"{n} 23 0:{n} {root} /sys/fs/cgroup/{names} rw - cgroup cgroup rw,{names}\n"
    for n, names, root in ((30, "memory", "/"), (31, "pids", "/"), (32, "cpu,cpuacct", "/"))
)


def test_groups_of_version_2_are_children_or_siblings():
    """A group that has processes can have no children with limits; its parent may."""
    found = list(candidates("0::/user.slice/app.scope\n", V2))
    folders = [groups.folders["memory"] for groups in found]
    assert folders == [Path("/sys/fs/cgroup/user.slice/app.scope"), Path("/sys/fs/cgroup/user.slice")]
    assert {groups.version for groups in found} == {2}


def test_groups_of_version_1_are_children_of_ours():
    """So the limits of whoever started Penstock hold for its jobs too."""
    own = "12:memory:/a\n5:pids:/b\n3:cpu,cpuacct:/\n0::/\n"
    (groups,) = candidates(own, V1)
    assert groups.version == 1
    assert groups.folders["memory"] == Path("/sys/fs/cgroup/memory/a")
    assert groups.folders["pids"] == Path("/sys/fs/cgroup/pids/b")
    assert groups.folders["cpu"] == Path("/sys/fs/cgroup/cpu,cpuacct")


def test_groups_inside_a_container_are_below_its_mount():
    """The path is told from the whole tree's root, the mount shows a part of it."""
    mounts = V1.replace(" / /sys", " /docker/abc /sys")
    (groups,) = candidates("12:memory:/docker/abc/x\n5:pids:/docker/abc\n", mounts)
    assert groups.folders["memory"] == Path("/sys/fs/cgroup/memory/x")
    assert groups.folders["pids"] == Path("/sys/fs/cgroup/pids")


def test_no_controllers_no_groups():
    """Nothing is mounted, or too little."""
    assert not list(candidates("0::/\n", ""))
    assert not list(candidates("5:pids:/\n", V1))


def test_groups_that_cannot_be_made_are_an_error(tmp_path: Path):
    """Of the platform, on one line."""
    (tmp_path / "file").touch()
    groups = Groups(dict.fromkeys(("memory", "pids"), tmp_path / "file"), 2)
    with pytest.raises(PenstockError, match="cannot make a control group: Not a directory"):
        groups.make("x")


# Secrets

SECRETS = {"token": b"hush\nhush\n", "empty": b"", "raw": bytes(range(256)) * 2000}


def test_secrets_are_files_in_memory(bench: Bench, isolation: Isolation):
    """Every byte, readable by the job alone, on no disk, and gone afterwards."""
    script = """
    test "$(cat $PENSTOCK_SECRETS/token)" = "hush
    hush" && test ! -s $PENSTOCK_SECRETS/empty && wc -c < $PENSTOCK_SECRETS/raw
    stat -c %a $PENSTOCK_SECRETS/token
    stat -f -c %T $PENSTOCK_SECRETS; ls $PENSTOCK_SECRETS; echo $PENSTOCK_SECRETS
    """
    said = bench.says(textwrap.dedent(script), secrets=SECRETS).split()
    assert said[:3] == ["512000", "400", "tmpfs"]
    assert said[3:6] == ["empty", "raw", "token"]
    if isolation.bwrap:
        assert said[6] == "/run/secrets"
    else:
        assert not Path(said[6]).exists()


def test_secrets_cannot_be_changed_in_the_sandbox(isolated: Bench):
    """They are mounted read-only."""
    script = "echo x > /run/secrets/token; rm -f /run/secrets/token; touch /run/secrets/new; cat /run/secrets/token"
    assert "hush" in isolated.says(script, secrets=SECRETS)
    assert "new" not in isolated.says("ls /run/secrets", secrets=SECRETS)


def test_secrets_are_in_no_environment_and_no_argument(bench: Bench):
    """Nor in an open file that the job inherits, nor in its workspace."""
    value = b"very-" + uuid.uuid4().hex.encode()
    script = """
    cat /proc/*/environ /proc/*/cmdline 2>/dev/null
    for fd in 3 4 5 6 7 8 9; do cat <&$fd 2>/dev/null; done
    cat $HOME/* $WORKSPACE/* 2>/dev/null; true
    """
    bench.run(script, secrets={"a": value})
    assert value not in bench.printed


def test_job_without_secrets_has_no_folder_for_them(bench: Bench):
    """And no variable that names one."""
    assert bench.says("echo ${PENSTOCK_SECRETS-none}; ls /run/secrets 2>/dev/null") == "none"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 300])
def test_secret_with_an_impossible_name_is_refused(bench: Bench, name: str):
    """Before anything is started."""
    with pytest.raises(InputError, match="no name for a secret"):
        bench.run("touch started", secrets={name: b"x"})
    assert not (bench.workspace / "started").exists()


def test_secrets_of_a_killed_penstock_are_reaped(settings: Settings, workspace: Path, isolation: Isolation):
    """What was left in memory goes with the run."""
    if isolation.bwrap:
        pytest.skip("in the sandbox they end with it")
    bench = Bench(ProcessEngine(settings), workspace)
    code = f"""
    from pathlib import Path
    from penstock.engines import Job, open_engine
    from penstock.pipeline.cancel import CancelToken
    from penstock.settings import load_settings
    job = Job({bench.run_id!r}, "step", ("/bin/sh", "-c", "echo $PENSTOCK_SECRETS; sleep 300"),
              Path({str(workspace)!r}), secrets={{"a": b"hush"}})
    engine = open_engine(load_settings({{"PENSTOCK_HOME": {str(settings.home)!r}}}))
    engine.run(job, lambda chunk: print(chunk.decode(), end="", flush=True), CancelToken())
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert (folder / "a").exists()
    bench.engine.reap(bench.run_id)
    assert not folder.exists()


# Long commands


@pytest.mark.parametrize("length", [100_001, 200_000, 3_000_000])
def test_long_script_runs(bench: Bench, length: int):
    """Longer than the kernel takes as one word."""
    assert bench.says(f": {'x' * length}\necho end; exit 3") == "end"
    assert bench.run(f": {'x' * length}\nexit 3").code == 3


def test_variable_that_is_too_long_is_the_steps_failure(bench: Bench):
    """One line that says so, and not the platform's error."""
    with pytest.raises(StepFailure, match="longer than the kernel takes; put it into a file"):
        bench.run("true", env={"LONG": "x" * 3_000_000})


# Services

SERVER = """
import http.server, os, sys, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404); self.end_headers(); self.wfile.write(b"hello")
    def log_message(self, *args): pass
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


def server(port: int, ready: Probe | None, name: str = "web") -> Sidecar:
    return Sidecar(name, argv=("python3", "-I", "-c", SERVER, str(port)), ready=ready)


def fetch(host: str, port: int) -> str:
    return (
        f"python3 -I -c \"import urllib.request as u; print(u.urlopen('http://{host}:{port}/ready').read().decode())\""
    )


@pytest.mark.parametrize("kind", ["port", "http", "command"])
def test_job_begins_when_its_services_are_ready(bench: Bench, port: int, kind: str):
    """As the probe asks: a port, a path, a command."""
    command = ("python3", "-I", "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}))")
    probe = {
        "port": Probe(port=port),
        "http": Probe(port=port, http="/ready"),
        "command": Probe(command=command, interval_s=0.1),
    }[kind]
    assert bench.says(fetch("127.0.0.1", port), services=(server(port, probe),)) == "hello"


def test_services_have_names(isolated: Bench, port: int):
    """Two, each by its own; the host's own names are not theirs."""
    other = free_port()
    services = (server(port, Probe(port=port), "web"), server(other, Probe(port=other), "db"))
    said = isolated.says(f"{fetch('web', port)}; {fetch('db', other)}; ls -l /etc/hosts", services=services)
    assert said.splitlines()[:2] == ["hello", "hello"]


def test_services_are_all_that_is_reached(isolated: Bench, port: int):
    """The network stays off: neither does the host reach them nor do they reach the host."""
    with socket.create_server(("127.0.0.1", 0)) as host:
        there = host.getsockname()[1]
        connect = f"python3 -I -c \"import socket; socket.create_connection(('127.0.0.1', {there}), 5)\""
        said = isolated.says(
            f"{connect} 2>/dev/null && echo reached; {fetch('web', port)}",
            services=(server(port, Probe(port=port)),),
        )
    assert said == "hello"


def test_exit_code_passes_services_by(bench: Bench):
    """That of the job, or 128 + its signal; a service is no part of it."""
    services = (Sidecar("sleeper", argv=("sleep", "300")),)
    assert bench.run("exit 7", services=services).code == 7
    assert bench.run("kill -9 $$", services=services).code == 137
    assert bench.run("true", services=services).code == 0


def test_services_are_gone_afterwards(bench: Bench):
    """Also those that ignore being asked, and what they have started."""
    code = """
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.fork() or os.setsid()
    time.sleep(300)
    """
    services = (Sidecar("stubborn", argv=("python3", "-I", "-c", textwrap.dedent(code), bench.run_id)),)
    assert bench.run("sleep 0.5", services=services).code == 0
    assert wait_until(lambda: not bench.left(), limit_s=5)


def test_service_that_ends_early_is_the_steps_failure(bench: Bench, port: int):
    """With its exit code and its last words; the job is not started."""
    services = (Sidecar("db", argv=("/bin/sh", "-c", "echo no such database; exit 3"), ready=Probe(port=port)),)
    with pytest.raises(StepFailure, match='service "db" ended before it was ready, exit code 3: no such database'):
        bench.run("touch started", services=services)
    assert not (bench.workspace / "started").exists()


def test_service_that_does_not_get_ready_is_the_steps_failure(bench: Bench, port: int):
    """Within its limit, with its last words; nothing of it is left."""
    script = f"echo still thinking; sleep 300; : {bench.run_id}"
    services = (Sidecar("db", argv=("/bin/sh", "-c", script), ready=Probe(port=port, interval_s=0.1, limit_s=1)),)
    with pytest.raises(StepFailure, match='"db" was not ready within 1 s: still thinking'):
        bench.run("true", services=services)
    assert wait_until(lambda: not bench.left(), limit_s=5)


def test_service_with_an_image_alone_is_refused(bench: Bench):
    """This engine has no images; the message says what helps."""
    with pytest.raises(StepFailure, match=r'"db" has an image alone.*give it a command, or use the docker engine'):
        bench.run("true", services=(Sidecar("db", image="postgres:18"),))


def test_service_whose_command_is_missing_is_the_steps_failure(bench: Bench):
    """Named as it was written."""
    with pytest.raises(StepFailure, match='service "db": cannot start no-such-command'):
        bench.run("true", services=(Sidecar("db", argv=("no-such-command",)),))


def test_port_of_the_host_is_not_taken_for_the_service(bench: Bench, isolation: Isolation):
    """Where the network is the host's, another server on that port would answer the probe."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StepFailure, match=f"port {port} is taken already"):
            bench.run("true", network=True, services=(server(port, Probe(port=port)),))


def test_failed_job_says_which_service_had_ended(bench: Bench):
    """The cause is often there."""
    ends = "while [ ! -e begun ]; do sleep 0.1; done; echo out of room; touch gone; exit 4"
    services = (Sidecar("db", argv=("/bin/sh", "-c", ends)),)
    script = "touch begun; while [ ! -e gone ]; do sleep 0.1; done; sleep 1; echo no connection; exit 1"
    said = bench.says(script, services=services, timeout_s=60)
    assert said.endswith('service "db" had ended, exit code 4: out of room')


def test_probe_that_asks_nothing_is_refused(bench: Bench):
    """It could never be answered."""
    with pytest.raises(InputError, match='service "db": its probe asks nothing'):
        bench.run("true", services=(Sidecar("db", argv=("true",), ready=Probe()),))


def test_cancel_stops_job_and_services(bench: Bench):
    """The job is asked first and may use its services to the end."""
    token, started = CancelToken(), threading.Event()
    services = (Sidecar("db", argv=("sh", "-c", f"sleep 300; : {bench.run_id}")),)
    script = "trap 'echo cleaned > done; exit 1' TERM; echo started; while true; do sleep 0.1; done"
    job = Job(bench.run_id, "step", ("/bin/sh", "-c", script), bench.workspace, services=services)
    result: list[Exit] = []
    work: Callable[[], None] = lambda: result.append(  # noqa: E731
        bench.engine.run(job, lambda _chunk: started.set(), token)
    )
    worker = threading.Thread(target=work)
    worker.start()
    assert started.wait(30)
    token.cancel("enough")
    worker.join(20)
    assert result[0].state == "cancelled"
    assert (bench.workspace / "done").read_text() == "cleaned\n"
    assert wait_until(lambda: not bench.left(), limit_s=5)


def test_cancel_while_services_start(bench: Bench, port: int):
    """There is no job yet to be asked."""
    token = CancelToken()
    services = (Sidecar("db", argv=("sh", "-c", f"sleep 300; : {bench.run_id}"), ready=Probe(port=port)),)
    job = Job(bench.run_id, "step", ("/bin/sh", "-c", "touch started"), bench.workspace, services=services)
    result: list[Exit] = []
    worker = threading.Thread(target=lambda: result.append(bench.engine.run(job, lambda _chunk: None, token)))
    worker.start()
    assert wait_until(lambda: bool(bench.left()), limit_s=30)
    token.cancel("enough")
    worker.join(20)
    assert result[0].state == "cancelled"
    assert not (bench.workspace / "started").exists()
    assert wait_until(lambda: not bench.left(), limit_s=5)
