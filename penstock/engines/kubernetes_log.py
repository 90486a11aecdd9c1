"""A container's log, followed live: a connection that breaks is made again, and no line comes twice or is lost."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from penstock.engines import OnOutput
from penstock.engines.kubernetes_cluster import Cluster
from penstock.engines.kubernetes_manifests import JOB
from penstock.errors import PlatformError

_TRIES_AFTER_END = 3


class Follower(threading.Thread):
    """Hands on what a job's container prints until `finish` is called and all has been read."""

    def __init__(self, cluster: Cluster, pod: str, on_output: OnOutput, *, pause_s: float) -> None:
        """pause_s: before a connection that has ended is made again."""
        super().__init__(name=f"log of {pod}", daemon=True)
        self._pause_s = pause_s
        self._on_output, self._lock, self._left = on_output, threading.Lock(), False
        self._lines = Lines(lambda since_s: cluster.log(pod, JOB, since_s=since_s), self._hand_on)
        self._ended = threading.Event()
        self.lost: PlatformError | None = None

    def run(self) -> None:
        """Follow; after the container's end a last read that went through is enough."""
        tries = 0
        while tries < _TRIES_AFTER_END:
            was_over = self._ended.is_set()
            try:
                self._lines.once()
                self.lost = None
                if was_over:
                    return
            except PlatformError as error:
                self.lost = error
            tries += was_over
            self._ended.wait(self._pause_s)

    def finish(self, limit_s: float) -> None:
        """The container has ended: read the rest, for `limit_s` at most."""
        self._ended.set()
        self.join(limit_s)
        self.leave()

    def leave(self) -> None:
        """From here on nothing is handed on, whatever still comes."""
        self._ended.set()
        with self._lock:
            self._left = True

    def _hand_on(self, line: bytes) -> None:
        with self._lock:
            if not self._left:
                self._on_output(line)


class Lines:
    """Reads a log with time stamps again and again, and hands on each line once."""

    def __init__(self, open_log: Callable[[int | None], Iterator[bytes]], on_output: OnOutput) -> None:
        self._open_log, self._on_output = open_log, on_output
        self._last = b""

    def once(self) -> None:
        """From where the last reading ended. Raises: PlatformError when it is cut off."""
        before = self._last
        for stamp, text in stamped(self._open_log(self._since())):
            if stamp > before:
                self._last = max(stamp, self._last)
                self._on_output(text)

    def _since(self) -> int | None:
        """Seconds that reach back beyond the last line; the API counts in whole ones."""
        if not self._last:
            return None
        return max(1, int(time.time() - _seconds(self._last)) + 2)


def stamped(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(time stamp, line) of each line, the line as it was printed. Stamps of one log sort as their times do."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            stamp, _, text = line.partition(b" ")
            yield _sortable(stamp), text + b"\n"
    if rest:
        stamp, _, text = rest.partition(b" ")
        yield _sortable(stamp), text


def _sortable(stamp: bytes) -> bytes:
    """The API leaves trailing zeros of the fraction out: 2026-01-02T03:04:05.1Z comes before .12Z."""
    whole, _, fraction = stamp.removesuffix(b"Z").partition(b".")
    return whole + b"." + fraction.ljust(9, b"0")


def _seconds(stamp: bytes) -> float:
    return datetime.fromisoformat(stamp[:19].decode()).replace(tzinfo=UTC).timestamp()
