"""
One Penstock is one set of processes: started together, restarted one by one, stopped together.

A thread of its own starts and watches them, because the kernel's death signal is bound to the thread
that made the child: whatever ends this process, also `kill -9`, ends them all.
"""

import fcntl
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import attrs
import psutil

from penstock.errors import ConflictError, PlatformError, SettingsError
from penstock.processes import signal_group, spawn, stop_group
from penstock.settings import Settings

WATCH_EVERY_S = 0.1
LOOK_WITHIN_EVERY_S = 2.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
CALM_AFTER_S = 30.0  # a process that lived so long starts again without a pause
START_LIMIT_S = 180.0


@attrs.frozen
class Part:
    """
    One process of the platform.

    ready: whether it answers. grace_s: between SIGTERM and SIGKILL.
    whole: asked with its process id now and then; one that is no longer whole is stopped and started again.
    leaves: parts that leave together are stopped at the same time, those that leave first before all others.
    """

    name: str
    start: Callable[[], "subprocess.Popen[bytes]"]
    ready: Callable[[], bool]
    grace_s: float = 10.0
    stop_signal: signal.Signals = signal.SIGTERM
    leaves: int = 0
    whole: Callable[[int], bool] = lambda _: True


@attrs.define
class _Child:
    part: Part
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    again_at: float = 0.0
    looked_at: float = 0.0


class Supervisor:
    """
    Keeps parts running until it is told to stop.

    on_event: told in words what happens. on_failure: called when it cannot go on; it stops every part then.
    """

    def __init__(
        self, parts: Sequence[Part], on_event: Callable[[str], None], on_failure: Callable[[], None] = lambda: None
    ) -> None:
        self._children = [_Child(part) for part in parts]
        self._on_event, self._on_failure = on_event, on_failure
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="supervisor")

    def start(self) -> None:
        """Start every part, in order; returns at once."""
        self._thread.start()

    def wait_until_ready(self, on_ready: Callable[[str], None]) -> None:
        """
        Wait until every part answers.

        Raises: PlatformError naming the first that does not.
        """
        deadline = time.monotonic() + START_LIMIT_S
        waiting = list(self._children)
        while waiting:
            for child in [child for child in waiting if child.process and child.part.ready()]:
                waiting.remove(child)
                on_ready(child.part.name)
            if (waiting and time.monotonic() > deadline) or not self._thread.is_alive():
                names = ", ".join(child.part.name for child in waiting)
                raise PlatformError(f"{names} did not start", remedy="see the logs folder in PENSTOCK_HOME")
            time.sleep(WATCH_EVERY_S)

    def stop(self) -> None:
        """Stop every part, in the order in which they leave, and return when all are gone."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        try:
            while not self._stop.is_set():
                for child in self._children:
                    self._look(child)
                self._stop.wait(WATCH_EVERY_S)
        except Exception as error:
            self._on_event(f"the supervisor failed: {type(error).__name__}: {error}")
            self._on_failure()
            raise
        finally:
            self._stop_all()

    def _stop_all(self) -> None:
        with ThreadPoolExecutor(max(len(self._children), 1)) as threads:
            for turn in sorted({child.part.leaves for child in self._children}):
                list(threads.map(_stop, [child for child in self._children if child.part.leaves == turn]))

    def _look(self, child: _Child) -> None:
        if child.process is not None and child.process.poll() is not None:
            signal_group(child.process.pid, signal.SIGKILL)  # what it has left behind
            self._ended(child, child.process.returncode)
        if child.process is not None and time.monotonic() >= child.looked_at + LOOK_WITHIN_EVERY_S:
            child.looked_at = time.monotonic()
            if not child.part.whole(child.process.pid):
                self._on_event(f"{child.part.name} has lost a part of itself")
                stop_group(child.process, grace_s=child.part.grace_s, sign=child.part.stop_signal)
        if child.process is None and time.monotonic() >= child.again_at:
            child.started_at = time.monotonic()
            try:
                child.process = child.part.start()
            except OSError as error:  # a full disk, say: the other parts go on, this one is tried again
                self._cannot_start(child, error)

    def _cannot_start(self, child: _Child, error: OSError) -> None:
        child.pause_s = min(2 * child.pause_s, LONGEST_PAUSE_S)
        child.again_at = time.monotonic() + child.pause_s
        self._on_event(f"{child.part.name} cannot be started: {error}; it is tried again")

    def _ended(self, child: _Child, code: int) -> None:
        lived_s = time.monotonic() - child.started_at
        child.pause_s = FIRST_PAUSE_S if lived_s > CALM_AFTER_S else min(2 * child.pause_s, LONGEST_PAUSE_S)
        child.process, child.again_at = None, time.monotonic() + child.pause_s
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._on_event(f"{child.part.name} ended with {how}; it is started again")


def _stop(child: _Child) -> None:
    if child.process:
        stop_group(child.process, grace_s=child.part.grace_s, sign=child.part.stop_signal)


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """
    Hold the platform's lock.

    Raises: ConflictError when another platform runs on this PENSTOCK_HOME.
    """
    with (settings.home / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError("Penstock runs already", where=str(settings.home)) from error
        yield


def is_up(settings: Settings) -> bool:
    """Whether a platform runs on this PENSTOCK_HOME."""
    if not (settings.home / "up.lock").exists():
        return False
    with (settings.home / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def check_ports(ports: Mapping[str, int]) -> None:
    """
    ports: variable → port.

    Raises: SettingsError for the first that is taken, with the name of who has it where that can be seen.
    """
    for variable, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise SettingsError(
                    f"port {port} is taken{_by_whom(port)}", where=variable, remedy=f"stop that, or set {variable}"
                ) from error


def _by_whom(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return ""
    return ""


def logged(argv: Sequence[str], log: Path, *, cwd: Path, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a part whose output goes to a log, the former log kept as `.1` when it has grown beyond 10 MB."""
    log.parent.mkdir(exist_ok=True, parents=True)
    if log.exists() and log.stat().st_size > 10_000_000:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        return spawn(argv, output=output, cwd=cwd, env=env, death_signal=signal.SIGKILL)
