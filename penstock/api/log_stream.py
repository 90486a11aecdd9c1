"""A step's log as a stream: its bytes or its lines from an offset on, for as long as the step writes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import attrs
import msgspec
from starlette.concurrency import run_in_threadpool

from penstock.pipeline.log import OWN_MARK, LogLine

BLOCK_BYTES = 256 * 1024
LINE_BYTES = 1024 * 1024  # what has no end by then is given as a line
END_ID = "end"

# Whether the step has ended, and how; None while it may still write.
Ending = Callable[[], Awaitable[str | None]]


@attrs.frozen
class Pace:
    """look_every_s: between two looks at a log that is followed. heartbeat_s: its longest silence."""

    look_every_s: float
    heartbeat_s: float


@attrs.frozen
class Block:
    """Bytes of a log and the offset after them; without bytes a sign of life. ended: the step's state, at the end."""

    data: bytes
    offset: int
    ended: str | None = None


@attrs.frozen
class Source:
    """
    A step's log from an offset on.

    follow: wait for more until the step has ended. whole_lines: begin and end with lines, not with any byte.
    """

    path: Path
    offset: int
    ending: Ending
    pace: Pace
    follow: bool = False
    whole_lines: bool = False

    async def blocks(self) -> AsyncIterator[Block]:
        """What is there and what comes, block by block; the last one says how the step ended, if it has."""
        offset, last_sign = await run_in_threadpool(self._start), time.monotonic()
        while True:
            # Asked before the file is read: what a step wrote before it ended is there by then.
            ended = await self.ending()
            while data := await run_in_threadpool(self._read, offset):
                offset, last_sign = offset + len(data), time.monotonic()
                yield Block(data, offset)
            if ended or not self.follow:
                yield Block(b"", offset, ended)
                return
            if time.monotonic() - last_sign >= self.pace.heartbeat_s:
                last_sign = time.monotonic()
                yield Block(b"", offset)
            await asyncio.sleep(self.pace.look_every_s)

    def _start(self) -> int:
        return start_of_line(self.path, self.offset) if self.whole_lines else self.offset

    def _read(self, offset: int) -> bytes:
        data = read_from(self.path, offset, BLOCK_BYTES)
        if not self.whole_lines:
            return data
        if b"\n" not in data and len(data) == BLOCK_BYTES:
            data = read_from(self.path, offset, LINE_BYTES)
            if b"\n" not in data and len(data) == LINE_BYTES:
                return data
        return data[: data.rfind(b"\n") + 1]


def read_from(path: Path, offset: int, limit_bytes: int) -> bytes:
    """Bytes from an offset on; none of a log that is not there yet."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit_bytes)
    except FileNotFoundError:
        return b""


def start_of_line(path: Path, offset: int) -> int:
    """The offset itself where a line begins, else that of the next line."""
    before = read_from(path, offset - 1, LINE_BYTES) if offset else b""
    end = before.find(b"\n")
    return offset if end <= 0 else offset + end


def size_of(path: Path) -> int:
    """Of a log; 0 when it is not there yet."""
    return path.stat().st_size if path.exists() else 0


async def as_text(source: Source) -> AsyncIterator[bytes]:
    """The file as it is: who received n bytes goes on at offset + n. No heartbeats, for these would count."""
    async for block in source.blocks():
        if block.data:
            yield block.data


async def as_ndjson(source: Source) -> AsyncIterator[bytes]:
    """A JSON object for each line, with the offset after it; an empty line is a heartbeat."""
    async for block in source.blocks():
        if block.data:
            yield b"".join(_json(line, offset) + b"\n" for line, offset in _lines(block))
        elif source.follow and not block.ended:
            yield b"\n"


async def as_events(source: Source) -> AsyncIterator[bytes]:
    """Server-sent events: a message for each line, whose id is the offset after it; `end` says how the step ended."""
    async for block in source.blocks():
        if block.data:
            yield b"".join(b"id: %d\ndata: %s\n\n" % (offset, _json(line, offset)) for line, offset in _lines(block))
        elif block.ended:
            end = msgspec.json.encode({"state": block.ended, "next_offset": block.offset})
            yield b"id: %s\nevent: end\ndata: %s\n\n" % (END_ID.encode(), end)
        else:
            yield b": \n\n"


def _json(line: LogLine, offset: int) -> bytes:
    return msgspec.json.encode({"at": line.at, "text": line.text, "own": line.own, "next_offset": offset})


def _lines(block: Block) -> Iterator[tuple[LogLine, int]]:
    """Each line with the offset after it."""
    offset = block.offset - len(block.data)
    for raw in block.data.removesuffix(b"\n").split(b"\n"):
        offset = min(offset + len(raw) + 1, block.offset)
        yield read_line(raw), offset


def read_line(raw: bytes) -> LogLine:
    """A line as `FileLog` writes it, without its end."""
    at, _, text = raw.decode("utf-8", "replace").partition(" ")
    own = text.startswith(OWN_MARK)
    return LogLine(at, text.removeprefix(OWN_MARK) if own else text, own)
