"""
Lines of JSON that plugins send, as values: typed, bounded, and refused one by one.

    {"name": "lines", "value": 1200, "unit": "lines", "kind": "gauge", "labels": {"language": "go"}, "at": "…"}
    {"kind": "licence", "key": "requests", "value": {"id": "Apache-2.0"}}
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar

import attrs
import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.:/-]{0,127}$")]
Word = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,256}$")]
Key = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,1024}$")]

AHEAD = timedelta(hours=24)
"""A clock may be wrong by so much."""

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number that was measured. kind: how it may be summed up; None is a gauge. at: None is now."""

    name: Name
    value: float
    unit: Word | None = None
    kind: Literal["gauge", "counter", "histogram"] | None = None
    labels: Annotated[dict[Name, Word], Meta(max_length=32)] | None = None
    at: Annotated[datetime, Meta(tz=True)] | None = None


class Datum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Anything else: of which kind, about what (`key`), as JSON."""

    kind: Name
    value: msgspec.Raw
    key: Key | None = None


Line = TypeVar("Line", Metric, Datum)


@attrs.frozen
class Refused:
    """A line that was left out. number: of the line, from 1."""

    number: int
    why: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.why}"


@attrs.frozen
class Reader(Generic[Line]):
    """Reads lines of one kind. line_bytes: the longest line. depth: how deep its values may be nested."""

    decoder: msgspec.json.Decoder[Line]
    line_bytes: int
    depth: int

    def read(self, number: int, line: bytes, now: datetime) -> Line | Refused:
        """The value that a line says, or why it is refused; never raises."""
        if len(line) > self.line_bytes:
            return Refused(number, f"longer than {self.line_bytes} bytes")
        try:
            value = self.decoder.decode(line)
            _check_document(line, self.depth)
            _check_moment(value, now)
        except UnicodeDecodeError:
            return Refused(number, "not UTF-8")
        except RecursionError:
            return Refused(number, f"nested deeper than {self.depth}")
        except (msgspec.MsgspecError, ValueError) as error:
            return Refused(number, str(error)[:200])
        return value


def metric_reader(line_bytes: int, depth: int) -> Reader[Metric]:
    """For lines of metrics."""
    return Reader(msgspec.json.Decoder(Metric), line_bytes, depth)


def datum_reader(line_bytes: int, depth: int) -> Reader[Datum]:
    """For lines of data."""
    return Reader(msgspec.json.Decoder(Datum), line_bytes, depth)


def _pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{twice[:60]}" stands there twice')
    return found


def _number(text: str) -> str:
    # What readers of the warehouse would read as infinite, or could not read at all.
    if len(text) > 400 or not math.isfinite(float(text)):
        raise ValueError("a number that is out of range")
    return text


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


# msgspec takes the last of two equal keys, and looks at neither the numbers nor the depth of a raw value.
_STRICT = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_number, parse_float=_number, parse_constant=_constant, strict=True
)


def _check_document(line: bytes, depth: int) -> None:
    text = line.decode()
    document = _STRICT.decode(text)
    if "\\u" in text:
        _check_escapes(text)
    if text.count("{") + text.count("[") > depth:
        _check_depth(document, depth)


def _check_escapes(text: str) -> None:
    """Half of a surrogate pair is no text that anything else could store; nor is NUL."""
    try:
        said = json.dumps(json.loads(text), ensure_ascii=False)
        said.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair") from None
    if "\\u0000" in said:
        raise ValueError("a NUL character")


def _check_depth(document: Any, depth: int) -> None:
    level = [document]
    for _ in range(depth + 1):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise ValueError(f"nested deeper than {depth}")


def _check_moment(value: Metric | Datum, now: datetime) -> None:
    if isinstance(value, Metric) and value.at is not None and not EARLIEST <= value.at <= now + AHEAD:
        raise ValueError("`at` is before 1970 or more than a day ahead")


def bounded_lines(pieces: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """
    Lines of a stream without their ends; of a line that is longer, its first `longest + 1` bytes.

    So a line of gigabytes costs no memory, and is still refused as too long.
    """
    rest = b""
    for piece in pieces:
        first, *others = piece.split(b"\n")
        rest += first[: max(0, longest + 1 - len(rest))]
        for line in others:
            yield rest
            rest = line[: longest + 1]
    if rest:
        yield rest
