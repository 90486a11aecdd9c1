"""A socket that only a job can reach: made inside of the job's own network namespace, served by this process."""

import socket
import subprocess
import sys
from pathlib import Path

from penstock.engines import GATEWAY_PORT
from penstock.errors import PlatformError

HELPER = Path(__file__).with_name("inside_listening.py")
LIMIT_S = 20.0
_REMEDY = "run Penstock as root on the engine's own machine, or install no plugin that needs the network"


def listen_inside(pid: int) -> socket.socket:
    """
    A socket that listens at 127.0.0.1:3128 of the network namespace in which process `pid` lives.

    Raises: PlatformError when this process may not enter it.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = [sys.executable, "-I", "-S", str(HELPER), str(pid), str(GATEWAY_PORT), str(theirs.fileno())]
        try:
            done = subprocess.run(
                words, pass_fds=[theirs.fileno()], capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PlatformError(f"cannot filter the job's network: {error}", remedy=_REMEDY) from error
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
            raise PlatformError(f"cannot filter the job's network: {why}", remedy=_REMEDY)
        _, numbers, _, _ = socket.recv_fds(ours, 1, 1)
    return socket.socket(fileno=numbers[0])
