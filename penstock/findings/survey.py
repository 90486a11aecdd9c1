"""
A walk over a SARIF document that finds its parts without keeping them: the first of two readings.

msgspec has no incremental reader, but it says exactly where a value ends ("trailing characters (byte N)"),
and it says so at the speed of C. Structure down to the results array is walked here, values are skipped by
msgspec, and the results are cut into blocks. A cut is guessed (the last place that looks like the border of
two results) and then proved: a block that is not a whole number of results does not parse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import msgspec
import msgspec.structs
from attrs import frozen

from penstock.errors import ReportError
from penstock.findings.documents import Source, ViewSource

T = TypeVar("T")

BLOCK_BYTES = 256 * 1024
_SPACE = re.compile(rb"[ \t\r\n]*")
_KEY = re.compile(rb'[ \t\r\n]*"[^"\\]*"[ \t\r\n]*:')
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")
_BYTE = re.compile(r"\(byte (\d+)\)")
_skip = msgspec.json.Decoder(msgspec.Raw).decode
_text = msgspec.json.Decoder(str).decode


class Span(NamedTuple):
    """A piece of a results array: whole results and the commas between them."""

    start: int
    end: int


@frozen
class RunSketch:
    """
    A run: its small parts as raw JSON by name, and where its results are.

    blocks: the results of a document that is walked. results: the raw array of one that is in memory.
    """

    parts: dict[str, bytes]
    blocks: tuple[Span, ...] = ()
    results: memoryview | None = None


@frozen
class Sketch:
    """A document: its runs (None without any such key), its version and schema as raw JSON, its keys."""

    version: bytes | None
    schema: bytes | None
    runs: tuple[RunSketch, ...] | None
    keys: frozenset[str]


_ABSENT = msgspec.Raw(b"")


class _RawRun(msgspec.Struct, gc=False, rename="camel"):
    """A run, nothing of it decoded."""

    results: msgspec.Raw = _ABSENT
    tool: msgspec.Raw = _ABSENT
    invocations: msgspec.Raw = _ABSENT
    original_uri_base_ids: msgspec.Raw = _ABSENT
    artifacts: msgspec.Raw = _ABSENT
    automation_details: msgspec.Raw = _ABSENT
    taxonomies: msgspec.Raw = _ABSENT
    logical_locations: msgspec.Raw = _ABSENT
    version_control_provenance: msgspec.Raw = _ABSENT


class _RawLog(msgspec.Struct, gc=False, rename={"schema": "$schema"}):
    """A document, nothing of its runs decoded."""

    runs: list[_RawRun]
    version: msgspec.Raw = _ABSENT
    schema: msgspec.Raw = _ABSENT


_PARTS = {one.encode_name: one.name for one in msgspec.structs.fields(_RawRun) if one.name != "results"}
_raw_log = msgspec.json.Decoder(_RawLog).decode

RUN_PARTS = frozenset(_PARTS)
"""The parts of a run that reading needs besides its results."""


def outline(data: bytes) -> Sketch | None:
    """
    The parts of a document in memory, by one decoding in which every part stays raw.

    Returns: None if it is not as SARIF should be; `survey` tells what it is then.
    """
    try:
        log = _raw_log(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    runs = tuple(_outlined(run) for run in log.runs)
    return Sketch(_said(log.version), _said(log.schema), runs, frozenset(("runs",)))


def _outlined(run: _RawRun) -> RunSketch:
    parts = {name: said for name, field in _PARTS.items() if (said := _said(getattr(run, field))) is not None}
    results = memoryview(run.results)
    return RunSketch(parts, results=results if bytes(results[:1]) == b"[" else None)


def _said(raw: msgspec.Raw) -> bytes | None:
    return bytes(raw) or None


class _Truncated(Exception):
    """The value goes on beyond the window."""


class _Window:
    """The part of the source around a position that only moves forward."""

    def __init__(self, source: Source, where: str, block_bytes: int) -> None:
        self._source, self.where, self.block = source, where, block_bytes
        self.base, self.data = 0, source.read_at(0, block_bytes)
        self.at = 0

    def grow(self, size: int) -> None:
        """Make the window reach `size` bytes beyond the position, or to the end of the source."""
        self.data = self.data[self.at :]
        self.base += self.at
        self.at = 0
        missing = size - len(self.data)
        if missing > 0:
            self.data += self._source.read_at(self.base + len(self.data), missing)

    @property
    def ends(self) -> bool:
        """Whether the window reaches the end of the source."""
        return self.base + len(self.data) >= self._source.size

    def skip_space(self) -> int | None:
        """The next byte in the window that is no space; the position moves to it."""
        self.at = _SPACE.match(self.data, self.at).end()  # type: ignore[union-attr]
        return self.data[self.at] if self.at < len(self.data) else None

    def peek(self) -> int:
        """The next byte that is no space; the position moves to it."""
        while (byte := self.skip_space()) is None:
            if self.ends:
                raise self.broken("it ends in the middle")
            self.grow(self.block)
        return byte

    def take(self, expected: bytes) -> None:
        """Move over one byte that must come next."""
        if self.peek() != expected[0]:
            raise self.broken(f"expected {expected.decode()!r} at byte {self.base + self.at}")
        self.at += 1

    def value(self) -> bytes:
        """The raw bytes of the value that comes next, spaces behind it included; the position moves over it."""
        self.peek()
        size = self.block
        while True:
            try:
                length = self.length()
            except _Truncated:
                size *= 2
                if self.ends:
                    raise self.broken("it ends in the middle") from None
                self.grow(size)
                continue
            start, self.at = self.at, self.at + length
            return self.data[start : self.at]

    def length(self) -> int:
        """The length of the value at the position. Raises: _Truncated if the window holds too little of it."""
        view = memoryview(self.data)[self.at :]
        try:
            _skip(view)
        except msgspec.DecodeError as error:
            return self._end_in(error, len(view))
        except RecursionError:
            raise self.broken("its values are nested too deeply") from None
        if not self.ends:
            raise _Truncated  # a number may go on in the next piece
        return len(view)

    def _end_in(self, error: msgspec.DecodeError, seen: int) -> int:
        if found := _TRAILING.search(str(error)):
            return int(found[1]) - 1  # msgspec counts the byte that it has just read
        at = _BYTE.search(str(error))
        if at is None or (not self.ends and int(at[1]) > seen - 16):
            raise _Truncated
        raise self.broken(f"not JSON at byte {self.base + self.at + int(at[1]) - 1}")

    def broken(self, what: str) -> ReportError:
        """The error for a document that does not parse."""
        return ReportError(f"cannot be read as JSON: {what}", where=self.where, remedy="run the scanner again")


def survey(source: Source, where: str, block_bytes: int = BLOCK_BYTES) -> Sketch:
    """
    Find the parts of a document in one reading, keeping about a block of it in memory.

    Raises: ReportError if the document is not well-formed.
    """
    window = _Window(source, where, block_bytes)
    if window.peek() not in b"{[":
        raise ReportError("not JSON, so not SARIF", where=where, remedy="have the scanner write SARIF 2.1.0")
    if window.peek() == ord("["):
        window.value()
        return Sketch(None, None, None, frozenset())
    said: dict[str, bytes] = {}
    runs: tuple[RunSketch, ...] | None = None
    keys: set[str] = set()
    for key in _members(window):
        keys.add(key)
        if key == "runs" and window.peek() == ord("["):
            runs = tuple(_run(window) for _ in _elements(window))
        else:
            raw = window.value()
            if key in {"version", "$schema"}:
                said[key] = raw
            runs = () if key == "runs" and raw.strip() == b"null" else runs
    _check_end(window)
    return Sketch(said.get("version"), said.get("$schema"), runs, frozenset(keys))


def _check_end(window: _Window) -> None:
    while window.skip_space() is None and not window.ends:
        window.grow(window.block)
    if window.skip_space() is not None:
        raise window.broken(f"something follows the document at byte {window.base + window.at}")


def _members(window: _Window) -> Iterator[str]:
    """Yield each key of the object that comes next, with the position at its value, which the caller takes."""
    window.take(b"{")
    while window.peek() != ord("}"):
        if window.peek() != ord('"'):
            raise window.broken(f"expected a key at byte {window.base + window.at}")
        key = _text(window.value())
        window.take(b":")
        yield key
        _step(window, b"}")
    window.at += 1


def _elements(window: _Window) -> Iterator[None]:
    """Yield once per element of the array that comes next; the caller takes the element."""
    window.take(b"[")
    while window.peek() != ord("]"):
        yield
        _step(window, b"]")
    window.at += 1


def _step(window: _Window, closing: bytes) -> None:
    """Over the comma to the next member, or stay at the closing bracket."""
    if window.peek() == closing[0]:
        return
    window.take(b",")
    if window.peek() == closing[0]:
        raise window.broken(f"nothing follows the comma at byte {window.base + window.at}")


def _run(window: _Window) -> RunSketch:
    parts: dict[str, bytes] = {}
    blocks: tuple[Span, ...] = ()
    if window.peek() != ord("{"):
        window.value()
        return RunSketch({}, ())
    for key in _members(window):
        if key == "results" and window.peek() == ord("["):
            blocks = tuple(_blocks(window))
        else:
            raw = window.value()
            if key in RUN_PARTS:
                parts[key] = raw
    return RunSketch(parts, blocks)


def _blocks(window: _Window) -> Iterator[Span]:
    """Yield the spans of the results array that comes next; the position ends behind its bracket."""
    window.take(b"[")
    if window.peek() == ord("]"):
        window.at += 1
        return
    border: bytes | None = None
    ended = False
    while not ended:
        window.peek()
        window.grow(window.block)
        border = _border(window) if border is None else border
        start = window.base + window.at
        ended = _pass_block(window, border)
        yield Span(start, window.base + window.at)
        window.take(b"]" if ended else b",")


def results_in(array: memoryview, take: Callable[[bytes], T | None], block_bytes: int = BLOCK_BYTES) -> Iterator[T]:
    """
    Yield what `take` makes of each block of an array of results that is known to be JSON.

    take: gets whole results, each block an array of its own, or a cut that was guessed wrongly; None says so.
    """
    window = _Window(ViewSource(array), "results", block_bytes)
    window.take(b"[")
    border: bytes | None = None
    ended = window.peek() == ord("]")
    while not ended:
        window.peek()
        window.grow(window.block)
        border = _border(window) if border is None else border
        ended = window.ends
        length = window.data.rindex(b"]") if ended else window.data.rfind(border, 1) if border else 0
        length += border.index(b"}") + 1 if border and not ended and length > 0 else 0
        made = take(b"[" + window.data[:length] + b"]") if length > 0 else None
        if made is None:
            start = window.base
            ended = _walk_block(window)
            made = take(b"[" + bytes(array[start : window.base + window.at]) + b"]")
        else:
            window.at = length
        if made is not None:
            yield made
        window.take(b"]" if ended else b",")


def _border(window: _Window) -> bytes:
    """What stands between the first result and the second, up to the second's first key; b"" if unknown."""
    try:
        first = window.data[window.at : window.at + window.length()].rstrip()
    except (_Truncated, ReportError):
        return b""
    closing = window.at + len(first) - 1
    start = window.at + len(first[:-1].rstrip())
    comma = _SPACE.match(window.data, closing + 1).end()  # type: ignore[union-attr]
    opening = _SPACE.match(window.data, comma + 1).end()  # type: ignore[union-attr]
    key = _KEY.match(window.data, opening + 1)
    objects = first.endswith(b"}") and window.data[opening : opening + 1] == b"{"
    whole = objects and window.data[comma : comma + 1] == b","
    return window.data[start : key.end()] if key and whole else b""


def _pass_block(window: _Window, border: bytes) -> bool:
    """Move the position behind the next block; whether the array ends there."""
    found = window.data.rfind(border, window.at, window.at + window.block) if border else -1
    if found > window.at:
        length = found - window.at + border.index(b"}") + 1
        proved = _prove(window, b"[" + window.data[window.at : window.at + length] + b"]")
    else:  # perhaps the rest of the array is here
        length = len(window.data) - window.at
        proved = _prove(window, b"[" + window.data[window.at :]) if window.ends else None
    if proved is None:
        return _walk_block(window)
    window.at += length if proved < 0 else proved
    return proved >= 0


def _prove(window: _Window, block: bytes) -> int | None:
    """-1 if the block is whole, the length up to the array's end if that comes first, None if neither."""
    try:
        _skip(block)
    except msgspec.DecodeError as error:
        found = _TRAILING.search(str(error))
        return block.rindex(b"]", 0, int(found[1]) - 1) - 1 if found else None
    except RecursionError:
        raise window.broken("its values are nested too deeply") from None
    return -1


def _walk_block(window: _Window) -> bool:
    """Move the position over results, one by one, up to half a block; whether the array ends there."""
    size = 0
    while True:
        size += len(window.value())
        following = window.peek()
        if following != ord(",") or size >= window.block // 2:
            return following == ord("]")
        window.at += 1
        if window.peek() == ord("]"):
            raise window.broken(f"nothing follows the comma at byte {window.base + window.at}")
