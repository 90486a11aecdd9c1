"""
A process that does nothing but fork: one child per run, asked for on a Unix socket. Knows nothing of Dagster.

It has one thread and holds no connection, so that a fork copies nothing that two processes may not share.
What a child does is a `Work`, handed in. Promises:
- A run has one process at a time; a second launch is told so.
- A child that dies without having ended its run is reported, by another child, so the loop never waits
  for the database.
- Children do not outlive the server: they get SIGTERM when it dies however it dies, and are gone
  `GRACE_S` later. A successor serves only then, since children hold the server's lock too.
"""

import contextlib
import ctypes
import fcntl
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import msgspec
from attrs import define

from penstock.errors import PlatformError

GRACE_S = 10.0
"""Between telling a run to stop and killing it; above the executor's own limit of 8 s."""
PATIENCE_S = 15.0
"""How long a caller keeps knocking; covers a restart of the server with a child in its grace."""
HANDOVER_S = PATIENCE_S + 5
"""After that long nobody can still be about to launch a run that the former server left behind."""
LAST_WORD_S = 2.0
ENDED = 43
"""A run's exit code when it has ended and its log says so; 0 is what any stray `exit` would say."""
LONGEST_REQUEST = 4096
PR_SET_PDEATHSIG = 1

Body = Callable[[], int | None]


class Request(msgspec.Struct, frozen=True):
    """One line of JSON, one per connection."""

    do: Literal["launch", "terminate", "check"]
    run_id: str


class Answer(msgspec.Struct, frozen=True):
    """started, running and absent say what the run's process is; signalled: it was told to stop."""

    state: Literal["started", "running", "absent", "signalled", "refused"]
    detail: str = ""


class Work(Protocol):
    """What the server is for. Only `refresh` is called in the server itself, all else in a fork."""

    def refresh(self) -> None:
        """Before each launch: see to it that the fork gets what is current. Must not raise."""

    def run(self, run_id: str) -> int:
        """Execute the run. Returns: ENDED if the run's end is stored, any other exit code if not."""

    def report(self, run_id: str, reason: str) -> None:
        """Its process is gone: close the run unless it has ended. Tries until it can."""

    def recover(self, started: bool, launched: Collection[str]) -> None:
        """Close what the former server left: runs that had started, else those that never did."""

    def announce_stop(self, run_ids: Collection[str]) -> None:
        """The server stops: mark these runs as being cancelled."""


def ask(socket_path: Path, request: Request, patience_s: float = PATIENCE_S) -> Answer:
    """
    One question to the server at `socket_path`, which may be about to start.

    Raises: PlatformError when it stays away for `patience_s` or breaks off.
    """
    remedy = "is `penstock up` running? its log says why the run server stopped"
    try:
        with _connected(socket_path, patience_s) as connection:
            connection.settimeout(patience_s)
            connection.sendall(msgspec.json.encode(request) + b"\n")
            with connection.makefile("rb") as lines:
                return msgspec.json.decode(lines.readline(), type=Answer)
    except (OSError, msgspec.DecodeError) as error:
        raise PlatformError(f"no answer: {error}", where=f"run server {socket_path}", remedy=remedy) from error


def _connected(socket_path: Path, patience_s: float) -> socket.socket:
    deadline = time.monotonic() + patience_s
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(socket_path))
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _nothing() -> None:
    """After most children there is nothing to do."""


@define
class Child:
    """A fork of the server. `run_id` is None for one that reports."""

    pid: int
    run_id: str | None
    then: Callable[[], None]
    kill_at: float | None = None


class ForkServer:
    """Serves until SIGTERM or SIGINT, then cancels what runs and returns when no child is left."""

    def __init__(self, socket_path: Path, work: Work) -> None:
        self._path, self._work = socket_path, work
        self._children: dict[int, Child] = {}
        self._launched: set[str] = set()
        self._handover_at: float | None = None
        self._stop_asked = self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    def serve(self) -> None:
        """Wait for a predecessor's children to be gone, recover what they left, then take requests."""
        lock = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self._path.unlink(missing_ok=True)
        self._watch_signals()
        mask = os.umask(0o177)
        self._listener.bind(str(self._path))
        os.umask(mask)
        self._listener.listen(64)
        self._fork(None, partial(self._work.recover, True, ()), self._accept_requests)
        while not (self._stopping and not self._children):
            for key, _ in self._selector.select(self._wait_s()):
                key.data()
            self._reap()
            self._keep_time()
        self._path.unlink(missing_ok=True)
        os.close(lock)

    def _accept_requests(self) -> None:
        self._handover_at = time.monotonic() + HANDOVER_S
        if not self._stopping:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _watch_signals(self) -> None:
        woken, wakes = socket.socketpair()
        woken.setblocking(False)
        wakes.setblocking(False)
        self._wakes = wakes
        self._selector.register(woken, selectors.EVENT_READ, lambda: woken.recv(4096))
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._ask_stop)

    def _ask_stop(self, _signal: int, _frame: object) -> None:
        self._stop_asked = True

    # Requests

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        received = bytearray()
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(connection, received))

    def _read(self, connection: socket.socket, received: bytearray) -> None:
        try:
            part = connection.recv(LONGEST_REQUEST)
        except OSError:
            part = b""
        received += part
        if part and b"\n" not in received and len(received) < LONGEST_REQUEST:
            return
        answer = self._answer(bytes(received))  # still registered meanwhile: a fork closes what is
        self._selector.unregister(connection)
        with connection, contextlib.suppress(OSError):  # the caller may have left
            connection.sendall(msgspec.json.encode(answer) + b"\n")

    def _answer(self, line: bytes) -> Answer:
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.DecodeError as error:
            return Answer("refused", f"not a request: {error}")
        child = next((each for each in self._children.values() if each.run_id == request.run_id), None)
        if request.do == "launch":
            return Answer("running", str(child.pid)) if child else self._launch(request.run_id)
        if child and request.do == "terminate":
            self._tell(child)
            return Answer("signalled", str(child.pid))
        return Answer("running", str(child.pid)) if child else Answer("absent")

    def _launch(self, run_id: str) -> Answer:
        if self._stopping:
            return Answer("refused", "Penstock is stopping")
        self._work.refresh()
        if self._handover_at is not None:
            self._launched.add(run_id)
        return Answer("started", str(self._fork(run_id, partial(self._work.run, run_id))))

    # Children

    def _fork(self, run_id: str | None, body: Body, then: Callable[[], None] = _nothing) -> int:
        caught = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, caught)
        server = os.getpid()
        pid = os.fork()
        if not pid:
            self._be_child(server, run_id, body)
        # A report that cannot be written must not hold up the stop; the next start recovers the run.
        kill_at = time.monotonic() + LAST_WORD_S if self._stopping else None
        self._children[pid] = Child(pid, run_id, then, kill_at)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, caught)
        return pid

    def _be_child(self, server: int, run_id: str | None, body: Body) -> None:
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, signal.default_int_handler)
            os.setsid()
            _die_with(server, signal.SIGTERM if run_id else signal.SIGKILL)
            for key in list(self._selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
            self._listener.close()
            self._wakes.close()
            self._selector.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            code = body() or 0
        except BaseException:  # noqa: BLE001 - a child must not return into the server's loop
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _tell(self, child: Child) -> None:
        if child.kill_at is None:
            child.kill_at = time.monotonic() + GRACE_S
            os.kill(child.pid, signal.SIGINT)

    def _reap(self) -> None:
        while self._children:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            child = self._children.pop(ended.si_pid, None)
            if child and child.run_id and _how_it_ended(ended):
                # While its number is still taken: what it started in its own group goes with it.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            os.waitpid(ended.si_pid, 0)
            if child:
                self._settle(child, _how_it_ended(ended))

    def _settle(self, child: Child, how: str) -> None:
        if how and child.run_id:
            self._fork(None, partial(self._work.report, child.run_id, f"run process {how}"))
        child.then()

    # Time

    def _wait_s(self) -> float | None:
        times = [child.kill_at for child in self._children.values() if child.kill_at is not None]
        times += [self._handover_at] if self._handover_at is not None else []
        return max(min(times) - time.monotonic(), 0) if times else None

    def _keep_time(self) -> None:
        now = time.monotonic()
        if self._stop_asked and not self._stopping:
            self._stop()
        if self._handover_at is not None and now >= self._handover_at:
            self._handover_at, launched = None, frozenset(self._launched)
            self._fork(None, partial(self._work.recover, False, launched))
        for child in self._children.values():
            if child.kill_at is not None and now >= child.kill_at:
                child.kill_at = None
                os.kill(child.pid, signal.SIGKILL)

    def _stop(self) -> None:
        self._stopping, self._handover_at = True, None
        if self._listener in self._selector.get_map():
            self._selector.unregister(self._listener)
        self._listener.close()
        for child in self._children.values():
            child.kill_at = child.kill_at or time.monotonic() + GRACE_S
        running = [child.run_id for child in self._children.values() if child.run_id]
        if running:
            self._fork(None, partial(self._work.announce_stop, running), self._tell_all)

    def _tell_all(self) -> None:
        for child in self._children.values():
            if child.run_id:
                os.kill(child.pid, signal.SIGINT)


def _how_it_ended(ended: os.waitid_result) -> str:
    """Empty for a run that said itself how it ended."""
    if ended.si_code == os.CLD_EXITED:
        return "" if ended.si_status == ENDED else f"ended with exit code {ended.si_status}"
    return f"was killed by signal {ended.si_status} ({signal.strsignal(ended.si_status)})"


def _die_with(server: int, how: signal.Signals) -> None:
    """Get `how` when the server dies; a run is killed if it has not come to an end in time."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, how)
    if os.getppid() != server:
        os._exit(71)
    if how == signal.SIGTERM:
        threading.Thread(target=_outlive_by_grace, args=(server,), name="server watch", daemon=True).start()


def _outlive_by_grace(server: int) -> None:
    while os.getppid() == server:
        time.sleep(1)
    time.sleep(GRACE_S - 1)
    os.killpg(0, signal.SIGKILL)
