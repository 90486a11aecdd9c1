"""
Runs a job beside its services, inside the job's own sandbox: start them, wait until they are ready, run, stop them.

    python -I -S sidecars.py DESCRIPTION REPORT

Both are numbers of open files: a JSON description to read, and where to write what kept the job from being
started. The standard library only, and little of it: this starts before every job with services. Also where
nothing else keeps a job's processes together: what they leave behind becomes a child of this process and ends.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
TAIL_BYTES = 4096
STOP_S = 2.0
FIRST_PAUSE_S = 0.02
ANSWER_LIMIT_S = 5.0
_CANNOT_START = 127


class NotReady(Exception):
    """A service that keeps the job from being started."""


class Stopped(Exception):
    """Asked to stop before the job was started."""


class Service:
    """One sidecar. given: name, argv, env, and ready (port, http, command, interval_s, limit_s) or None."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.name: str = given["name"]
        self._given, self._tail, self._lock = given, bytearray(), threading.Lock()
        self._ready: Mapping[str, Any] | None = given["ready"]

    def start(self) -> None:
        """Raises: NotReady when its port is taken, or there is no such command."""
        port = self._ready and self._ready["port"]
        if port and _answers(port, ANSWER_LIMIT_S):
            raise NotReady(f'service "{self.name}": port {port} is taken already')
        try:
            self._process = subprocess.Popen(
                self._given["argv"],
                env=self._given["env"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise NotReady(f'service "{self.name}": cannot start {error.filename}: {error.strerror}') from error
        self._started = time.monotonic()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self) -> None:
        """Raises: NotReady when it ends before, or its time is over."""
        if self._ready is None:
            return self._refuse_failed()
        deadline, pause = self._started + self._ready["limit_s"], FIRST_PAUSE_S
        while True:
            self._refuse_ended()
            left = deadline - time.monotonic()
            if left > 0 and self._is_ready(self._ready, min(left, ANSWER_LIMIT_S)):
                return self._refuse_ended()
            if left <= pause:
                words = f'service "{self.name}" was not ready within {self._ready["limit_s"]:g} s'
                raise NotReady(words + self.last_words())
            time.sleep(pause)
            pause = min(2 * pause, self._ready["interval_s"])

    def ended(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """What it printed last, after a colon; empty when it printed nothing."""
        if self.ended() is not None:
            self._reader.join(1)
        with self._lock:
            text = self._tail.decode(errors="replace").strip()
        return f": {text}" if text else ""

    def stop(self, sign: signal.Signals) -> None:
        """Signal its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, sign)

    def _is_ready(self, ready: Mapping[str, Any], limit_s: float) -> bool:
        if ready["command"]:
            return self._command_succeeds(ready["command"], limit_s)
        if ready["http"]:
            return _serves(ready["port"], ready["http"], limit_s)
        return _answers(ready["port"], limit_s)

    def _command_succeeds(self, argv: list[str], limit_s: float) -> bool:
        try:
            done = subprocess.run(
                argv,
                env=self._given["env"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=limit_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def _refuse_ended(self) -> None:
        if (code := self.ended()) is not None:
            raise NotReady(f'service "{self.name}" ended before it was ready, {_in_words(code)}{self.last_words()}')

    def _refuse_failed(self) -> None:
        if self.ended():
            self._refuse_ended()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := self._process.stdout.read1(65536):  # type: ignore[attr-defined]
            with self._lock:
                self._tail += chunk
                del self._tail[:-TAIL_BYTES]


def _answers(port: int, limit_s: float) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), limit_s).close()
    except OSError:
        return False
    return True


def _serves(port: int, path: str, limit_s: float) -> bool:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit_s)
    try:
        connection.request("GET", path)
        return 200 <= connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _in_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


class Runner:
    """The job and its services. given: argv, env, services, keep_together, on_terminal."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._services = [Service(service) for service in given["services"]]
        self._running: list[Service] = []
        self._job: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """
        Returns: the job's exit code, or 128 + its signal.

        Raises: NotReady.
        """
        signal.signal(signal.SIGTERM, self._terminate)
        if self._given["keep_together"]:
            become_subreaper()
        try:
            self._start_services()
            code = self._run_job()
            self._tell_ended(code)
            return code
        except Stopped:
            return 128 + signal.SIGTERM
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._stop_services()
            if self._given["keep_together"]:
                kill_descendants()

    def _start_services(self) -> None:
        for service in self._services:
            service.start()
            self._running.append(service)
        for service in self._services:
            service.wait_ready()

    def _run_job(self) -> int:
        own_session = not self._given["on_terminal"]
        stdin = subprocess.DEVNULL if own_session else None
        try:
            self._job = subprocess.Popen(
                self._given["argv"], env=self._given["env"], stdin=stdin, start_new_session=own_session
            )
        except OSError as error:
            print(f"cannot start {error.filename}: {error.strerror}", file=sys.stderr, flush=True)
            return _CANNOT_START
        code = self._job.wait()
        return code if code >= 0 else 128 - code

    def _tell_ended(self, code: int) -> None:
        """A failed job's log says which of its services had gone before it."""
        for service in self._running if code else ():
            if (ended := service.ended()) is not None:
                print(f'service "{service.name}" had ended, {_in_words(ended)}{service.last_words()}', flush=True)

    def _terminate(self, _number: int, _frame: object) -> None:
        if self._job is None:
            raise Stopped
        with contextlib.suppress(ProcessLookupError):
            if self._given["on_terminal"]:
                self._job.terminate()
            else:
                os.killpg(self._job.pid, signal.SIGTERM)

    def _stop_services(self) -> None:
        for service in reversed(self._running):
            service.stop(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while any(service.ended() is None for service in self._running) and time.monotonic() < deadline:
            time.sleep(0.01)
        for service in self._running:
            service.stop(signal.SIGKILL)


def become_subreaper() -> None:
    """From here on, orphans below this process become its children."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants() -> None:
    """Until there are none: what was forked meanwhile is found in the next round."""
    while found := list(_below(os.getpid(), _children_by_parent())):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _below(pid: int, children: Mapping[int, list[int]]) -> Iterator[int]:
    for child in children.get(pid, ()):
        yield child
        yield from _below(child, children)


def _children_by_parent() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found.setdefault(parent, []).append(int(entry.name))
    return found


def main(description: int, report: int, run: Callable[[Runner], int] = Runner.run) -> int:
    """Returns: the exit code of the job; 1 when a service kept it from being started, and the report says why."""
    for number in (description, report):
        os.set_inheritable(number, False)
    with os.fdopen(description, "rb") as file:
        runner = Runner(json.load(file))
    try:
        return run(runner)
    except NotReady as error:
        os.write(report, str(error).encode())
        return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
