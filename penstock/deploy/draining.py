"""Until when a former instance is still being talked to."""

import time
from pathlib import Path

from penstock.pipeline.cancel import CancelToken

LOOK_EVERY_S = 0.05


def drain(port: int, limit_s: float, token: CancelToken) -> int:
    """
    Wait until nobody is connected to the instance on `port`, at most `limit_s` or until cancelled.

    Quiet is seen twice, since a request may be between choosing its instance and connecting to it.
    Returns: how many connections are left.
    """
    deadline_s, quiet = time.monotonic() + limit_s, 0
    while True:
        token.wait(LOOK_EVERY_S)
        left = connections_to(port, Path("/proc/net/tcp").read_text())
        quiet = quiet + 1 if left == 0 else 0
        if quiet == 2 or token.cancelled or time.monotonic() > deadline_s:
            return left


def connections_to(port: int, table: str) -> int:
    """How many connections to 127.0.0.1:`port` are established. table: the text of /proc/net/tcp."""
    remote = f"0100007F:{port:04X}"
    rows = (line.split() for line in table.splitlines()[1:])
    return sum(1 for row in rows if row[2] == remote and row[3] == "01")
