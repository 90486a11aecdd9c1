"""A command that says whether an instance is well, run where the instance is; with exit code 0 it is."""

import os
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from penstock.deploy.health import HealthCheck, ProbeResult, excerpt
from penstock.processes import signal_group, spawn

if TYPE_CHECKING:
    from penstock.engines.docker_server import Server

SAID_BYTES = 4096  # of the end of what it prints
_CHUNKS = 16


def words(check: HealthCheck) -> list[str]:
    """The command, a line by /bin/sh."""
    return ["/bin/sh", "-c", check.command] if isinstance(check.command, str) else list(check.command or ())


def asked(check: HealthCheck) -> str:
    """The command for a message."""
    return f"`{check.command if isinstance(check.command, str) else ' '.join(check.command or ())}`"


def ask_process(check: HealthCheck, argv: Sequence[str], env: dict[str, str], cwd: Path) -> ProbeResult:
    """
    Run it on this machine, for at most `timeout_s`; nothing of it is left then. Raises nothing: no start is a result.

    argv: with the sandbox's words before it.
    """
    reading, writing = os.pipe()
    try:
        process = spawn(argv, output=writing, env=env, cwd=cwd)
    except OSError as error:
        os.close(reading)
        return ProbeResult(False, f"{asked(check)}: {(error.strerror or str(error)).lower()}")
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as output:
        said, code = _until_end(process, output, time.monotonic() + check.timeout_s)
    return _judged(check, code, said)


def _until_end(process: "subprocess.Popen[bytes]", output: IO[bytes], deadline_s: float) -> tuple[bytes, int | None]:
    """What it said last, and its exit code; None when it took too long."""
    said, code = b"", None
    try:
        with selectors.DefaultSelector() as ready:
            ready.register(output, selectors.EVENT_READ)
            while (left_s := deadline_s - time.monotonic()) > 0 and ready.select(left_s):
                if not (chunk := output.read(65_536)):
                    break
                said = (said + chunk)[-SAID_BYTES:]
        code = process.wait(max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        code = None
    finally:
        signal_group(process.pid, signal.SIGKILL)
        process.wait()
    return said, code


def _judged(check: HealthCheck, code: int | None, said: bytes) -> ProbeResult:
    if code is None:
        return ProbeResult(False, f"{asked(check)}: no end within {check.timeout_s:g} s")
    return ProbeResult(code == 0, f"{asked(check)}: exit code {code} {excerpt(said)}".rstrip())


def ask_container(check: HealthCheck, server: "Server", container_id: str) -> ProbeResult:
    """
    Run it in a container, for at most `timeout_s`; a command that takes longer is killed where that may be done.

    Raises: PlatformError when the engine is away.
    """
    from docker.errors import APIError

    api, said = server.client.api, deque[bytes](maxlen=_CHUNKS)
    try:
        made = api.exec_create(container_id, words(check))["Id"]
        printed: Iterable[bytes] = api.exec_start(made, stream=True)
    except APIError as error:  # the container has ended, say
        return ProbeResult(False, f"{asked(check)}: {' '.join(str(error.explanation or error).split())}")
    reader = threading.Thread(target=lambda: said.extend(printed), name="exec", daemon=True)
    reader.start()
    reader.join(check.timeout_s)
    found = api.exec_inspect(made)
    if reader.is_alive() or found["ExitCode"] is None:
        _kill(int(found.get("Pid") or 0))
        return _judged(check, None, b"")
    return _judged(check, int(found["ExitCode"]), b"".join(said)[-SAID_BYTES:])


def _kill(pid: int) -> None:
    """The engine has no way to end a command; the owner of its processes has. Else it ends with its container."""
    try:
        if pid > 1:
            os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
