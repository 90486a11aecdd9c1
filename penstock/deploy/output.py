"""An instance's output: pumped from its pipe into a file that never grows past its bound."""

import os
import threading
from pathlib import Path

LIMIT_BYTES = 10 * 1024 * 1024
TAIL_BYTES = 32_768


class BoundedLog:
    """Two files, `path` and `path`.1, that together stay under `limit_bytes`; the older half goes first."""

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._path, self._half = path, limit_bytes // 2
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._size = path.stat().st_size

    def write(self, data: bytes) -> None:
        """Append; turns the file over when its half of the bound is reached."""
        if self._size and self._size + len(data) > self._half:
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file = self._path.open("ab", buffering=0)
            self._size = 0
        self._file.write(data)
        self._size += len(data)

    def close(self) -> None:
        """No more is written."""
        self._file.close()


def pump(log: BoundedLog) -> tuple[int, threading.Thread]:
    """
    A pipe whose other end a thread copies into `log` until everyone who can write has closed it.

    Returns: the end to hand to the child (close your copy after the start), and the thread.
    """
    reading, writing = os.pipe()
    thread = threading.Thread(target=_copy, args=(reading, log), name="output", daemon=True)
    thread.start()
    return writing, thread


def _copy(reading: int, log: BoundedLog) -> None:
    full = False
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while chunk := pipe.read(65_536):
            # A full disk costs lines, never the service: its pipe is emptied all the same.
            try:
                log.write(chunk)
                full = False
            except OSError as error:
                if not full:
                    print(f"keeper: cannot write an instance's log: {error.strerror}", flush=True)
                full = True
    log.close()


def tail(path: Path, lines: int) -> list[str]:
    """The last lines that are not blank, decoded; none when there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
