"""
Limits where control groups cannot be had: look at the job's processes five times a second, and stop it above them.

Less than what the kernel holds: between two looks a job may go beyond its limit.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil

EVERY_S = 0.2
EVERY_S_FOR_PIDS = 0.05
Excess = Literal["memory", "pids"]


class Watch(threading.Thread):
    """Looks until it is ended; calls `on_excess` once, when the job has gone beyond a limit."""

    def __init__(
        self,
        inside: Callable[[], Sequence[psutil.Process]],
        *,
        memory_bytes: int | None,
        pids: int,
        on_excess: Callable[[Excess], None],
    ) -> None:
        super().__init__(name="watch over a job's limits", daemon=True)
        self._inside, self._memory_bytes, self._pids, self._on_excess = inside, memory_bytes, pids, on_excess
        self._over = threading.Event()

    def end(self) -> None:
        """No more looks."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Until ended, or until one limit has been passed."""
        looks = 0
        while not self._over.wait(EVERY_S_FOR_PIDS):
            looks += 1
            if excess := self._excess(with_memory=looks % round(EVERY_S / EVERY_S_FOR_PIDS) == 0):
                self._on_excess(excess)
                return

    def _excess(self, *, with_memory: bool) -> Excess | None:
        if threads_of_the_machine() > self._pids and sum(map(_threads, self._inside())) > self._pids:
            return "pids"
        if with_memory and self._memory_bytes is not None and memory_of(self._inside()) > self._memory_bytes:
            return "memory"
        return None


def threads_of_the_machine() -> int:
    """All there are: no job can have more, and one read tells."""
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])


def memory_of(processes: Sequence[psutil.Process]) -> int:
    """Bytes of memory of all of them together; what they share counts once."""
    return sum(map(_share, processes))


def _share(process: psutil.Process) -> int:
    """Its proportional share; where that cannot be read, all that it has in memory."""
    with suppress(psutil.Error, OSError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _threads(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.num_threads())
    return 0
