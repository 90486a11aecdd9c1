"""One instance's process: started, watched, started again with back-off, stopped with everything it started."""

import ctypes
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime

import attrs
import psutil

from penstock.deploy.caddy import is_free
from penstock.deploy.output import BoundedLog, pump, tail
from penstock.deploy.sandbox import MARK, Rooms, instance_environment, sandbox_argv
from penstock.deploy.targets import REASON_LINES, STEADY_S, Assignment, Phase, Report, delay_s
from penstock.errors import PenstockError
from penstock.processes import signal_group, spawn

# Below the range from which the kernel takes the ports of outgoing connections.
PORTS = range(20_000, 32_000)
PR_SET_CHILD_SUBREAPER = 36

Secrets = Callable[[], Mapping[str, bytes]]


@attrs.frozen
class Host:
    """What all instances on this machine share. bwrap: the command, or None for the plain way; path: their PATH."""

    bwrap: str | None
    path: str


class Supervised:
    """A process that should run until `stop`. Time is handed in (monotonic seconds); `step` never blocks."""

    def __init__(self, assignment: Assignment, rooms: Rooms, host: Host, secrets: Secrets) -> None:
        self._assignment, self._rooms, self._host, self._secrets = assignment, rooms, host, secrets
        self._process: subprocess.Popen[bytes] | None = None
        self._output: threading.Thread | None = None
        self._family: list[psutil.Process] = []
        self._quick_ends = 0
        self._started_s = 0.0
        self.due_s = 0.0  # of the next start, or of the kill
        self.phase: Phase = "waiting"
        self.report: Report = Report("starting", None, assignment.port, assignment.restarts, None, None)

    @property
    def pid(self) -> int | None:
        """The leader of what runs now."""
        return None if self._process is None else self._process.pid

    def step(self, now_s: float, taken: Container[int]) -> None:
        """Do what is due. taken: ports that other instances have or were given."""
        if self._process is not None and _has_ended(self._process):
            self._ended(now_s)
        if self.phase == "waiting" and now_s >= self.due_s:
            self._start(now_s, taken)
        elif self.phase == "stopping" and now_s >= self.due_s:
            self._kill()

    def stop(self, now_s: float) -> None:
        """Begin to stop: SIGTERM now, SIGKILL when the grace has passed. Harmless when stopping already."""
        if self._process is None:
            self.phase = "stopped"
            self.report = attrs.evolve(self.report, state="stopped", pid=None)
        elif self.phase == "running":
            self.phase, self.due_s = "stopping", now_s + self._assignment.configuration.stop_grace_s
            if not self._ask_to_end(self._process.pid):
                self.due_s = now_s

    def _start(self, now_s: float, taken: Container[int]) -> None:
        self._started_s = now_s
        try:
            port = free_port(self.report.port, taken)
            self._process = self._spawn(port)
        except (OSError, ValueError, PenstockError) as error:  # ValueError: a secret that no variable can hold
            self._failed(now_s, f"cannot be started: {error}")
            return
        self.phase = "running"
        now = datetime.now(UTC)
        self.report = attrs.evolve(self.report, state="running", pid=self._process.pid, port=port, started_at=now)

    def _spawn(self, port: int) -> "subprocess.Popen[bytes]":
        this, rooms = self._assignment, self._rooms
        rooms.data.mkdir(parents=True, exist_ok=True)
        argv = this.configuration.argv
        if self._host.bwrap:
            argv = sandbox_argv(argv, rooms, bwrap=self._host.bwrap)
        given = {**this.configuration.env, **{name: os.fsdecode(value) for name, value in self._secrets().items()}}
        env = instance_environment(given, mark=this.instance_id, port=port, data=rooms.data, path=self._host.path)
        output, self._output = pump(BoundedLog(this.log))
        try:
            return spawn(argv, output=output, env=env, cwd=rooms.release)
        finally:
            os.close(output)

    def _ended(self, now_s: float) -> None:
        assert self._process is not None
        # Before it is reaped: until then its number cannot belong to another group.
        signal_group(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        for member in [*self._family, *([] if self._host.bwrap else marked({self._assignment.instance_id}))]:
            kill(member)
        self._process, self._family = None, []
        if self.phase == "stopping":
            self.phase = "stopped"
            self.report = attrs.evolve(self.report, state="stopped", pid=None)
            return
        if self._output is not None:
            self._output.join(0.2)
        self._failed(now_s, describe_end(code, tail(self._assignment.log, REASON_LINES)))

    def _failed(self, now_s: float, reason: str) -> None:
        self._quick_ends = 0 if now_s - self._started_s >= STEADY_S else self._quick_ends + 1
        self.phase, self.due_s = "waiting", now_s + delay_s(self._quick_ends)
        restarts = self.report.restarts + 1
        self.report = attrs.evolve(self.report, state="exited", pid=None, restarts=restarts, reason=reason)

    def _ask_to_end(self, pid: int) -> bool:
        """SIGTERM to everyone but bubblewrap, whose end would kill the rest at once. False: there was nobody."""
        self._family = _below(pid)
        if not self._host.bwrap:
            signal_group(pid, signal.SIGTERM)
            return True
        for member in (inside := [member for member in self._family if _ppid(member) != pid]):
            _signal(member, signal.SIGTERM)
        return bool(inside)

    def _kill(self) -> None:
        assert self._process is not None
        signal_group(self._process.pid, signal.SIGKILL)


def free_port(preferred: int | None, taken: Container[int], pick: Callable[[], int] | None = None) -> int:
    """
    A loopback port for an instance: the one it had if nobody has it now, else any.

    Raises: OSError when a thousand tries found none.
    """
    if preferred is not None and preferred not in taken and is_free(preferred):
        return preferred
    pick = pick or (lambda: random.choice(PORTS))
    for _ in range(1000):
        if (port := pick()) not in taken and is_free(port):
            return port
    raise OSError("no free port for an instance")


def describe_end(code: int, last_lines: list[str]) -> str:
    """Exit code or signal in words, and what was said last. Bubblewrap reports a signal as 128 and its number."""
    if code < 0:
        how = f"killed by {_signal_name(-code)}"
    elif code > 128 and _signal_name(code - 128):
        how = f"exit code {code} ({_signal_name(code - 128)})"
    else:
        how = f"exit code {code}"
    return f"{how}; last lines: {' | '.join(last_lines)}" if last_lines else f"{how}; it wrote nothing"


def marked(instance_ids: Container[str]) -> list[psutil.Process]:
    """Processes of this machine whose environment says that they belong to one of these instances."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) in instance_ids:
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill(process: psutil.Process) -> None:
    """SIGKILL, unless it is gone."""
    _signal(process, signal.SIGKILL)


def _signal(process: psutil.Process, sign: signal.Signals) -> None:
    try:
        process.send_signal(sign)
    except psutil.NoSuchProcess:
        return


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _ppid(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def adopt_orphans() -> None:
    """What instances leave behind becomes a child of this process, not of a pid 1 that may never reap it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(own: Container[int | None]) -> None:
    """Reap ended children that are not among `own`, whose ends somebody is waiting for."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in own:
            return
        os.waitpid(ended.si_pid, 0)


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Without reaping it."""
    flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
    return os.waitid(os.P_PID, process.pid, flags) is not None
