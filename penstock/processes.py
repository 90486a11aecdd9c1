"""
Child processes that leave nothing behind.

Every child leads a session of its own, so that its whole group can be signalled, and may be bound to
its parent: when the parent dies, by `kill -9` too, the kernel signals the child (PR_SET_PDEATHSIG).
"""

import ctypes
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def spawn(
    argv: Sequence[str],
    *,
    output: IO[bytes] | int,
    error: IO[bytes] | int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    user: str | None = None,
    death_signal: signal.Signals | None = signal.SIGKILL,
    pass_fds: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """
    Start `argv` in a session of its own; `death_signal` is what it gets when the calling thread's process dies.

    error: defaults to the same place as `output`.
    user: run as this user (root only), with its own group and no others.
    """
    who: dict[str, Any] = {}
    if user is not None:
        who = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output if error is None else error,
        env=None if env is None else dict(env),
        cwd=cwd,
        start_new_session=True,
        pass_fds=pass_fds,
        # Runs after the change of user, which would clear it; system calls only, so safe beside threads.
        preexec_fn=_bound_to_parent(death_signal) if death_signal else None,  # noqa: PLW1509
        **who,
    )


def _bound_to_parent(sign: signal.Signals) -> Callable[[], None]:
    parent = os.getpid()

    def bind() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(sign))
        if os.getppid() != parent:  # it died between fork and here
            os._exit(1)

    return bind


def stop_group(process: "subprocess.Popen[bytes]", *, grace_s: float, sign: signal.Signals = signal.SIGTERM) -> None:
    """Signal the child's group, wait `grace_s`, kill what is left; returns when the child is gone."""
    family = _descendants(process.pid)
    signal_group(process.pid, sign)
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        signal_group(process.pid, signal.SIGKILL)
        process.wait()
    kill_all(family, grace_s=max(0.0, min(grace_s, 1.0)))


def signal_group(leader: int, sign: signal.Signals) -> None:
    """Signal every process of the group that `leader` leads; a group that is gone is fine."""
    try:
        os.killpg(leader, sign)
    except ProcessLookupError:
        return


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_all(processes: Sequence[psutil.Process], *, grace_s: float) -> None:
    """Let processes end by themselves for `grace_s`, then kill those that did not."""
    _, alive = psutil.wait_procs(list(processes), timeout=grace_s)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)


def wait_until(true: Callable[[], bool], *, limit_s: float, every_s: float = 0.05) -> bool:
    """Ask `true` again and again until it is, or `limit_s` has passed. Returns: its last answer."""
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True
