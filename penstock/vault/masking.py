"""
Masking: what a step prints, without its secrets.

Every byte that belongs to an occurrence of a variant (see `variants`) is left out, and each such stretch becomes
`***`; everything else passes byte for byte. Where occurrences overlap they are one stretch. The result does not
depend on how the stream was cut into chunks: of what has come, only the end that some variant could begin with is
held back.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from struct import Struct
from typing import Self

import attrs

from penstock.vault.variants import SHORTEST_BYTES, variants

MASK = b"***"
MANY = 32  # needles from which on one look at blocks is faster than a search for each
_BLOCK = Struct("Q")
_BLOCK_BYTES = _BLOCK.size
_LONG_BYTES = 2 * _BLOCK_BYTES - 1  # what is as long as this has an aligned block inside, wherever it lies

# Tools wrap base64 and hex at 60, 64 or 76 columns. A line's end after that many of their characters is *soft*:
# variants are looked for as if it were not there.
_COLUMNS = 60
_CONTEXT_BYTES = _COLUMNS + 1
_SOFT_N = re.compile(rb"\n(?<=[A-Za-z0-9+/_-]{60}\n)")
_SOFT_R = re.compile(rb"\r(?<=[A-Za-z0-9+/_-]{60}\r)\n?")

Span = tuple[int, int]


@attrs.frozen
class Needles:
    """
    A set of variants, made ready for the search.

    extended: each needle (no needle is the beginning of another) with the variants that begin with it, longest first.
    short, long: the needles that are searched one by one, and those for which `blocks` is asked first.
    blocks: every eight bytes that follow each other in a variant, as a number.
    heads: the first four bytes → the variants that begin so. starts: whatever one, two or three bytes begin with one.
    """

    extended: Mapping[bytes, tuple[bytes, ...]] = attrs.field(repr=False)
    short: tuple[bytes, ...] = attrs.field(repr=False)
    long: tuple[bytes, ...] = attrs.field(repr=False)
    blocks: frozenset[int] = attrs.field(repr=False)
    heads: Mapping[bytes, tuple[bytes, ...]] = attrs.field(repr=False)
    starts: frozenset[bytes] = attrs.field(repr=False)
    longest: int

    @classmethod
    def of(cls, found: frozenset[bytes]) -> Self:
        """found: each at least four bytes."""
        extended = _extended(found)
        heads = _grouped((variant[:SHORTEST_BYTES], variant) for variant in found)
        long = tuple(each for each in extended if len(each) >= _LONG_BYTES)
        one_by_one = len(long) < MANY
        return cls(
            extended=extended,
            short=tuple(each for each in extended if one_by_one or len(each) < _LONG_BYTES),
            long=() if one_by_one else long,
            blocks=frozenset(block for variant in found for block in _blocks_anywhere(variant)),
            heads=heads,
            starts=frozenset(head[:size] for head in heads for size in range(1, SHORTEST_BYTES)),
            longest=max(map(len, found), default=0),
        )

    def spans(self, data: bytes) -> list[Span]:
        """Where variants lie in `data`; they may overlap, and are in no order."""
        found = [span for needle in self.short for span in self._spans_of(needle, data)]
        if self.long and not self.blocks.isdisjoint(_aligned_blocks(data)):
            found.extend(span for needle in self.long for span in self._spans_of(needle, data))
        return found

    def _spans_of(self, needle: bytes, data: bytes) -> Iterator[Span]:
        at = data.find(needle)
        while at >= 0:
            # The needle is the last of its own extensions, so one of them fits.
            yield at, at + next(len(longer) for longer in self.extended[needle] if data.startswith(longer, at))
            at = data.find(needle, at + 1)

    def open_end(self, data: bytes) -> int:
        """Where the longest end of `data` begins that a variant begins with, and goes on from; else its length."""
        return next((at for at in range(self._earliest(data), len(data)) if self._begins(data, at)), len(data))

    def _earliest(self, data: bytes) -> int:
        """No end that is open begins before this: it would hold eight bytes that no variant holds."""
        at = len(data) - _BLOCK_BYTES
        while at >= 0 and _BLOCK.unpack_from(data, at)[0] in self.blocks:
            at -= _BLOCK_BYTES
        return max(0, at + 1, len(data) - self.longest + 1)

    def _begins(self, data: bytes, at: int) -> bool:
        rest = data[at:]
        if len(rest) < SHORTEST_BYTES:
            return rest in self.starts
        longer = self.heads.get(rest[:SHORTEST_BYTES], ())
        return any(len(each) > len(rest) and each.startswith(rest) for each in longer)


def _extended(found: Iterable[bytes]) -> Mapping[bytes, tuple[bytes, ...]]:
    needles, pairs = [b""], list[tuple[bytes, bytes]]()
    for variant in sorted(found):  # what begins with another comes right after it
        if not needles[-1] or not variant.startswith(needles[-1]):
            needles.append(variant)
        pairs.append((needles[-1], variant))
    return _grouped(pairs)


def _grouped(pairs: Iterable[tuple[bytes, bytes]]) -> Mapping[bytes, tuple[bytes, ...]]:
    """Key → its values, longest first."""
    found = dict[bytes, list[bytes]]()
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: tuple(sorted(values, key=len, reverse=True)) for key, values in found.items()}


def _blocks_anywhere(variant: bytes) -> Iterator[int]:
    for shift in range(_BLOCK_BYTES):
        yield from _aligned_blocks(variant[shift:])


def _aligned_blocks(data: bytes) -> "memoryview[int]":
    """Its bytes as numbers of eight bytes each, without the rest."""
    return memoryview(data)[: len(data) // _BLOCK_BYTES * _BLOCK_BYTES].cast("Q")


@attrs.frozen
class _Joined:
    """`data` without its soft line ends. cuts: their spans in `data`, ascending."""

    data: bytes
    kept_before: tuple[int, ...]  # bytes of the joined data before each piece
    starts: tuple[int, ...]  # where each piece begins in the whole

    @classmethod
    def of(cls, data: bytes, cuts: Sequence[Span]) -> Self:
        edges = [0, *(edge for cut in cuts for edge in cut), len(data)]
        pieces = [(edges[at], edges[at + 1]) for at in range(0, len(edges), 2)]
        kept = accumulate((end - start for start, end in pieces), initial=0)
        return cls(
            data=b"".join(data[start:end] for start, end in pieces),
            kept_before=tuple(kept)[:-1],
            starts=tuple(start for start, _ in pieces),
        )

    def original(self, at: int) -> int:
        """Where the byte number `at` of the joined data lies in the whole."""
        piece = bisect_left(self.kept_before, at + 1) - 1
        return self.starts[piece] + at - self.kept_before[piece]


@attrs.frozen
class _Secrets:
    """What all streams of one step share."""

    everything: Needles
    wrapped: Needles

    def spans_and_end(self, data: bytes, cuts: Sequence[Span]) -> tuple[list[Span], int]:
        """Where variants lie, and from where on more must come before that is known."""
        spans, end = self.everything.spans(data), self.everything.open_end(data)
        if cuts:
            joined = _Joined.of(data, cuts)
            here = joined.original
            spans += [(here(start), here(stop - 1) + 1) for start, stop in self.wrapped.spans(joined.data)]
            opened = self.wrapped.open_end(joined.data)
            end = min(end, here(opened)) if opened < len(joined.data) else end
        return spans, end


class Masker:
    """
    Masks one stream. `feed` it chunks of any size and `flush` it at the end; one thread at a time.

    values: the secrets. Those of fewer than four bytes are not masked.
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        found = [variants(value) for value in set(values)]
        self._secrets = _Secrets(
            Needles.of(frozenset().union(*(every for every, _ in found))),
            Needles.of(frozenset().union(*(wrapped for _, wrapped in found))),
        )
        self._restart()

    def __repr__(self) -> str:
        return "Masker()"

    def _restart(self) -> None:
        self._context = b""  # what came last before the held bytes, masked or not
        self._held = b""
        self._covered = 0  # so many of the held bytes belong to a stretch whose mask has been given out

    def fresh(self) -> "Masker":
        """A masker of the same secrets for another stream."""
        other = object.__new__(type(self))
        other._secrets = self._secrets
        other._restart()
        return other

    def feed(self, chunk: bytes) -> bytes:
        """The next bytes that may be shown."""
        if not self._secrets.everything.longest:
            return chunk
        data = self._held + chunk if self._held else chunk
        spans, end = self._secrets.spans_and_end(data, self._soft_ends(data))
        return self._give(data, spans, end)

    def flush(self) -> bytes:
        """What was held back. The masker is then ready for another stream."""
        spans, _ = self._secrets.spans_and_end(self._held, self._soft_ends(self._held))
        shown = self._give(self._held, spans, len(self._held))
        self._restart()
        return shown

    def mask(self, text: str) -> str:
        """A text that is complete, such as a reason or an output; the stream is left alone."""
        data = text.encode("utf-8", "surrogatepass")
        other = self.fresh()
        masked = other.feed(data) + other.flush()
        return text if masked == data else _decoded(masked)

    def _soft_ends(self, data: bytes) -> list[Span]:
        """Spans of the soft line ends in `data`; whether one is soft is known from what is before it."""
        whole, shift = self._context + data, len(self._context)
        found = [match.span() for match in _SOFT_N.finditer(whole)]
        if b"\r" in whole:
            found = sorted([*found, *(match.span() for match in _SOFT_R.finditer(whole))])
        return [(max(start - shift, 0), stop - shift) for start, stop in found if stop > shift]

    def _give(self, data: bytes, spans: list[Span], end: int) -> bytes:
        """Give out what lies before `end`, and hold the rest."""
        given, at = list[bytes](), min(self._covered, end)
        covered = self._covered
        for start, stop in sorted(spans):
            if start >= end:
                break
            if start >= covered:
                given += (data[at:start], MASK)
            covered = max(covered, stop)
            at = min(covered, end)
        given.append(data[at:end])
        self._covered = max(covered - end, 0)
        self._context = (self._context + data[max(0, end - _CONTEXT_BYTES) : end])[-_CONTEXT_BYTES:]
        self._held = data[end:]
        return b"".join(given)


def _decoded(masked: bytes) -> str:
    """A mask may have cut into a character when a secret is no UTF-8."""
    try:
        return masked.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return masked.decode("utf-8", "replace")
