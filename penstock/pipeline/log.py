"""A step's log: live lines for whoever watches, and a file that a chatty step cannot fill the disk with."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import attrs

KEPT_BYTES = 16 * 1024 * 1024
TAIL_LINES = 200
LINE_LIMIT_BYTES = 64 * 1024
HELD_BYTES = 4096  # of each line that is held back
OWN_MARK = "» "

OnLine = Callable[[str], None]


@attrs.frozen
class LogLine:
    """One line of a log. at: UTC, ISO 8601 with milliseconds. own: whether Penstock said it, not the step."""

    at: str
    text: str
    own: bool


class FileLog:
    """
    Writes `time text` lines to a file; after 16 MiB only the last 200 lines are kept, written at the end.

    Bytes may come in pieces of any size, from one thread at a time or several.
    """

    def __init__(self, path: Path, on_line: OnLine | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._on_line = on_line
        self._written = self._file.tell()
        self._dropped = 0
        self._rest = b""
        self._overflow: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._last: deque[str] = deque(maxlen=TAIL_LINES)
        self._lock = threading.Lock()

    def line(self, text: str) -> None:
        """A line of Penstock's own."""
        with self._lock:
            self._emit([OWN_MARK + line for line in text.splitlines()])

    def output(self, chunk: bytes) -> None:
        """Bytes that the step printed."""
        with self._lock:
            *complete, self._rest = (self._rest + chunk).split(b"\n")
            if len(self._rest) > LINE_LIMIT_BYTES:
                complete, self._rest = [*complete, self._rest], b""
            lines = [line.rstrip(b"\r").decode("utf-8", "replace") for line in complete]
            self._last.extend(line for line in lines if line.strip())
            self._emit(lines)

    def tail(self, lines: int) -> tuple[str, ...]:
        """The last lines that the step printed."""
        with self._lock:
            last = [*self._last, *([self._rest.decode("utf-8", "replace")] if self._rest.strip() else [])]
        return tuple(last[-lines:])

    def _emit(self, lines: list[str]) -> None:
        if not lines:
            return
        stamp = now()
        encoded = [f"{stamp} {line}\n".encode() for line in lines]
        room = KEPT_BYTES - self._written
        if not self._dropped and sum(map(len, encoded)) <= room:
            self._write(b"".join(encoded))
        else:
            self._overflow.extend(line if len(line) <= HELD_BYTES else line[:HELD_BYTES] + b"\n" for line in encoded)
            self._dropped += len(encoded)
        if self._on_line:
            for line in lines:
                self._on_line(line)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._written += len(data)

    def close(self) -> None:
        """Write what is still held back."""
        if self._rest:
            self.output(b"\n")
        with self._lock:
            if self._dropped:
                lost = self._dropped - len(self._overflow)
                self._write(
                    f"{now()} {OWN_MARK}{lost} lines beyond 16 MiB were not kept; the last ones follow\n".encode()
                )
                self._write(b"".join(self._overflow))
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def utc_now() -> datetime:
    """This moment, with its time zone."""
    return datetime.now(UTC)


def now() -> str:
    """This moment, UTC, ISO 8601 with milliseconds."""
    return utc_now().isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log_path(home: Path, run_id: str, step: str) -> Path:
    """Where the log of a run's step lies."""
    return home / "logs" / "runs" / run_id / f"{step}.log"


def read_log(path: Path, *, offset: int = 0, limit_bytes: int = 4 * 1024 * 1024) -> tuple[tuple[LogLine, ...], int]:
    """
    Complete lines from a byte offset on, and the offset to go on from. A log that is not there yet is empty.
    """
    if not path.exists():
        return (), offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(limit_bytes)
    complete = data[: data.rfind(b"\n") + 1]
    return tuple(_lines(complete)), offset + len(complete)


def read_tail(path: Path, lines: int = TAIL_LINES, *, limit_bytes: int = 64 * 1024) -> tuple[LogLine, ...]:
    """The last complete lines of a log, of its last `limit_bytes`. A log that is not there yet is empty."""
    size = path.stat().st_size if path.exists() else 0
    found, _ = read_log(path, offset=max(0, size - limit_bytes))
    whole = found if size <= limit_bytes else found[1:]
    return whole[-lines:]


def _lines(data: bytes) -> Iterator[LogLine]:
    for raw in data.decode("utf-8", "replace").split("\n")[:-1]:
        at, _, text = raw.partition(" ")
        own = text.startswith(OWN_MARK)
        yield LogLine(at, text.removeprefix(OWN_MARK) if own else text, own)
