"""
Which findings of two commits are the same, by the code around them.

Line numbers move, files are renamed, texts are edited. So findings of one tool, category and rule are matched
in tiers, the surest first; a pair is settled by the first tier that finds it:

    fingerprint  a package or a trusted fingerprint of the tool
    package      another version of a package, same advisory and path
    context-3    the line, and three lines before and behind, in the same file (renamed files count as the same)
    context-1    the line, and one before and behind
    line         the line
    moved        context-3 or context-1, in another file
    order        lines within the same edited stretch of the file, in their order
    snippet      without sources: path and code
    message      without sources: path and message, digits aside, in their order
    renamed      without sources: a file that went, and the one that came with exactly its findings

Within a file, findings that look alike are paired in the order of their lines. Across files a pair must be the
only one, so that a copy is a new finding.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from difflib import SequenceMatcher
from functools import partial
from hashlib import blake2b

from attrs import field, frozen
from msgspec.structs import replace

from penstock.findings.finding import Finding
from penstock.findings.identity import VERSION, image_path, place_of
from penstock.findings.packages import unversioned_purl

Lines = Sequence[str]
Source = Callable[[str], Lines | None]
"""The lines of a file at a commit, without line ends; None if there is no such file."""

_DIGITS = re.compile(r"\d+")
_ALIKE = 0.6
_MAX_DIFF_LINES = 20_000


@frozen
class Match:
    """old and new are places in the sequences that were matched."""

    old: int
    new: int
    tier: str


@frozen
class Matching:
    """Pairs by ascending `new`; introduced and fixed are the places of those without a pair, ascending."""

    pairs: tuple[Match, ...]
    introduced: tuple[int, ...]
    fixed: tuple[int, ...]


@frozen
class _Side:
    """The findings and sources of one commit."""

    findings: Sequence[Finding]
    source: Source | None
    files: dict[str, Lines | None] = field(factory=dict)

    def lines(self, path: str | None) -> Lines | None:
        """The lines of a file, normalised, read once."""
        if path is None or self.source is None:
            return None
        if path not in self.files:
            found = self.source(path)
            self.files[path] = None if found is None else [" ".join(line.split()) for line in found]
        return self.files[path]

    def context(self, place: int, reach: int) -> tuple[str, ...] | None:
        """The line of a finding with `reach` lines around it; None without its source, and for packages."""
        finding = self.findings[place]
        lines = self.lines(finding.path) if finding.package is None else None
        if lines is None or finding.line is None or not 0 < finding.line <= len(lines):
            return None
        here = finding.line - 1
        return tuple(lines[at] if 0 <= at < len(lines) else "" for at in range(here - reach, here + reach + 1))


def match_findings(
    old: Sequence[Finding],
    new: Sequence[Finding],
    source_old: Source | None = None,
    source_new: Source | None = None,
) -> Matching:
    """
    Pair the findings of an older commit with those of a newer one.

    source_old, source_new: the files at each commit; without both, tiers that need code are left out.
    Returns: every finding once, in a pair or left over.
    """
    both = source_old is not None and source_new is not None
    return _Matcher(_Side(old, source_old if both else None), _Side(new, source_new if both else None)).match()


class _Matcher:
    """What is not paired yet, on both sides, and the tiers that pair it."""

    def __init__(self, old: _Side, new: _Side) -> None:
        self._old, self._new = old, new
        self._left_old = set(range(len(old.findings)))
        self._left_new = set(range(len(new.findings)))
        self._pairs: list[Match] = []
        self._renames: dict[str, str] = {}

    def match(self) -> Matching:
        """Go through the tiers."""
        self._tier("fingerprint", _own_identity)
        self._tier("package", _package_identity)
        if self._old.source is not None:
            self._renames = _renamed_files(self._old, self._new, self._left_old, self._left_new)
            self._match_by_code()
        self._match_by_report()
        self._pairs.sort(key=lambda pair: pair.new)
        return Matching(tuple(self._pairs), tuple(sorted(self._left_new)), tuple(sorted(self._left_old)))

    def _match_by_code(self) -> None:
        self._tier("package", self._renamed_package)
        for reach, tier in ((3, "context-3"), (1, "context-1"), (0, "line")):
            for said in (True, False):
                self._tier(tier, partial(self._in_file, reach=reach, said=said))
        for reach in (3, 1):
            self._tier("moved", partial(_anywhere, reach=reach), alone=True)
        self._match_by_order()

    def _match_by_report(self) -> None:
        self._tier("snippet", self._by_snippet)
        self._tier("message", self._by_message)
        for place_old, place_new in _renamed_alike(self._old, self._new, self._left_old, self._left_new):
            self._pair(place_old, place_new, "renamed")

    def _tier(self, name: str, key: Callable[[_Side, int], Hashable | None], *, alone: bool = False) -> None:
        """Pair what has the same key: in the order of place, or only if it is alone with it."""
        theirs = _buckets(self._old, self._left_old, key)
        ours = _buckets(self._new, self._left_new, key)
        for value, places in ours.items():
            others = theirs.get(value, ())
            if not alone or len(places) == len(others) == 1:
                for place_old, place_new in _in_order(self._old, others, self._new, places):
                    self._pair(place_old, place_new, name)

    def _pair(self, place_old: int, place_new: int, tier: str) -> None:
        self._left_old.discard(place_old)
        self._left_new.discard(place_new)
        self._pairs.append(Match(place_old, place_new, tier))

    def _path(self, side: _Side, at: int) -> str | None:
        """The path of a finding, an old one by its present name."""
        path = side.findings[at].path
        return self._renames.get(path, path) if side is self._old and path is not None else path

    def _in_file(self, side: _Side, at: int, reach: int, *, said: bool) -> Hashable | None:
        context = side.context(at, reach)
        finding = side.findings[at]
        if context is None or (reach == 0 and not context[0]):
            return None
        return _rule(finding), self._path(side, at), context, _said(finding) if said else None

    def _renamed_package(self, side: _Side, at: int) -> Hashable | None:
        finding = side.findings[at]
        if finding.package is None:
            return None
        return _rule(finding), unversioned_purl(finding.package), self._path(side, at)

    def _by_snippet(self, side: _Side, at: int) -> Hashable | None:
        finding = side.findings[at]
        code = " ".join((finding.snippet or "").split())
        if not code or finding.package is not None or side.context(at, 0) is not None:
            return None
        return _rule(finding), self._path(side, at), code

    def _by_message(self, side: _Side, at: int) -> Hashable | None:
        finding = side.findings[at]
        if finding.package is not None or side.context(at, 0) is not None:
            return None
        return _rule(finding), self._path(side, at), _said(finding)

    def _match_by_order(self) -> None:
        """Pair what stands in the same edited stretch of a file, such as a line that was itself edited."""
        ours: dict[Hashable, list[int]] = defaultdict(list)
        theirs: dict[Hashable, list[int]] = defaultdict(list)
        for at in self._left_new:
            ours[_rule(self._new.findings[at]), self._path(self._new, at)].append(at)
        for at in self._left_old:
            theirs[_rule(self._old.findings[at]), self._path(self._old, at)].append(at)
        stretches: dict[tuple[str, str], _Stretches | None] = {}
        for key in ours.keys() & theirs.keys():
            self._match_edited(theirs[key], ours[key], stretches)

    def _match_edited(
        self, theirs: list[int], ours: list[int], known: dict[tuple[str, str], _Stretches | None]
    ) -> None:
        path_old, path_new = self._old.findings[theirs[0]].path, self._new.findings[ours[0]].path
        if path_old is None or path_new is None:
            return
        if (path_old, path_new) not in known:
            known[path_old, path_new] = _stretches(self._old.lines(path_old), self._new.lines(path_new))
        found = known[path_old, path_new]
        if found is None:
            return
        in_old: dict[int, list[int]] = defaultdict(list)
        in_new: dict[int, list[int]] = defaultdict(list)
        for at in theirs:
            if (stretch := found.of_old(self._old.findings[at].line)) is not None:
                in_old[stretch].append(at)
        for at in ours:
            if (stretch := found.of_new(self._new.findings[at].line)) is not None:
                in_new[stretch].append(at)
        for stretch, places in in_new.items():
            for one, other in _in_order(self._old, in_old.get(stretch, []), self._new, places):
                self._pair(one, other, "order")


@frozen
class _Stretches:
    """The edited stretches of a file: (first, end) of each in lines from 0, before and after."""

    old: tuple[tuple[int, int], ...]
    new: tuple[tuple[int, int], ...]

    def of_old(self, line: int | None) -> int | None:
        """The stretch that an old line lies in."""
        return _stretch_of(self.old, line)

    def of_new(self, line: int | None) -> int | None:
        """The stretch that a new line lies in."""
        return _stretch_of(self.new, line)


def _stretch_of(stretches: Sequence[tuple[int, int]], line: int | None) -> int | None:
    for number, (first, end) in enumerate(stretches):
        if line is not None and first <= line - 1 < end:
            return number
    return None


def _stretches(before: Lines | None, after: Lines | None) -> _Stretches | None:
    if before is None or after is None or len(before) + len(after) > _MAX_DIFF_LINES:
        return None
    codes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    edited = [code for code in codes if code[0] == "replace"]
    return _Stretches(tuple((a, b) for _, a, b, _, _ in edited), tuple((c, d) for _, _, _, c, d in edited))


def _buckets(
    side: _Side, places: Iterable[int], key: Callable[[_Side, int], Hashable | None]
) -> dict[Hashable, list[int]]:
    buckets: dict[Hashable, list[int]] = {}
    for place in places:
        value = key(side, place)
        if value is not None:
            buckets.setdefault(value, []).append(place)
    return buckets


def _in_order(old: _Side, theirs: Sequence[int], new: _Side, ours: Sequence[int]) -> list[tuple[int, int]]:
    first = sorted(theirs, key=lambda at: (place_of(old.findings[at]), at))
    second = sorted(ours, key=lambda at: (place_of(new.findings[at]), at))
    return list(zip(first, second, strict=False))


def _rule(finding: Finding) -> tuple[str, str, str]:
    return finding.tool, finding.category, finding.rule_id


def _said(finding: Finding) -> str:
    return _DIGITS.sub("", finding.message)


def _own_identity(side: _Side, at: int) -> Hashable | None:
    finding = side.findings[at]
    return (_rule(finding), finding.fingerprint) if finding.identity in {"package", "tool"} else None


def _package_identity(side: _Side, at: int) -> Hashable | None:
    finding = side.findings[at]
    if finding.package is None:
        return None
    return _rule(finding), unversioned_purl(finding.package), image_path(finding.path or "")


def _anywhere(side: _Side, at: int, reach: int) -> Hashable | None:
    context = side.context(at, reach)
    if context is None or sum(1 for line in context if line) < 2:
        return None  # a single line says too little about where it came from
    return _rule(side.findings[at]), context, _said(side.findings[at])


def _renamed_files(old: _Side, new: _Side, left_old: Iterable[int], left_new: Iterable[int]) -> dict[str, str]:
    """Old path → new path, for files that went while one much like it came."""
    went = sorted({path for at in left_old if (path := old.findings[at].path) and new.lines(path) is None})
    came = sorted({path for at in left_new if (path := new.findings[at].path) and old.lines(path) is None})
    scored = [(_likeness(old.lines(one), new.lines(other)), one, other) for one in went for other in came]
    renames: dict[str, str] = {}
    for score, one, other in sorted(scored, key=lambda item: (-item[0], item[1], item[2])):
        if score >= _ALIKE and one not in renames and other not in renames.values():
            renames[one] = other
    return renames


def _likeness(before: Lines | None, after: Lines | None) -> float:
    """The share of lines that two files have in common, from 0 to 1."""
    if not before or not after:
        return 0.0
    one, other = Counter(filter(None, before)), Counter(filter(None, after))
    return 2 * (one & other).total() / max(one.total() + other.total(), 1)


def _renamed_alike(old: _Side, new: _Side, left_old: Iterable[int], left_new: Iterable[int]) -> list[tuple[int, int]]:
    theirs, ours = _by_file(old, left_old, new), _by_file(new, left_new, old)
    pairs: list[tuple[int, int]] = []
    for signature, paths in ours.items():
        others = theirs.get(signature, [])
        if len(paths) == len(others) == 1:
            pairs += _in_order(old, others[0], new, paths[0])
    return pairs


def _by_file(side: _Side, left: Iterable[int], other: _Side) -> dict[Hashable, list[list[int]]]:
    """What is left in files that the other side has no findings in, by all that it says but the path."""
    known = {None, *(finding.path for finding in other.findings)}
    files: dict[str | None, list[int]] = defaultdict(list)
    for at in left:
        finding = side.findings[at]
        if finding.package is None and finding.path not in known and side.context(at, 0) is None:
            files[finding.path].append(at)
    alike: dict[Hashable, list[list[int]]] = defaultdict(list)
    for places in files.values():
        alike[tuple(sorted(_signature(side.findings[at]) for at in places))].append(places)
    return alike


def _signature(finding: Finding) -> tuple[str, ...]:
    code = " ".join((finding.snippet or "").split())
    return *_rule(finding), _said(finding), code or f"{finding.line}:{finding.column}"


def carry_identity(old: Sequence[Finding], new: Sequence[Finding], matching: Matching) -> list[Finding]:
    """
    The new findings, each that has a pair with its pair's fingerprint.

    A finding without a pair keeps its own, unless one of the old findings had it: then it gets another,
    for it is another finding. Returns: len(new) findings, no two with one fingerprint.
    """
    carried = {pair.new: old[pair.old].fingerprint for pair in matching.pairs}
    taken = {finding.fingerprint for finding in old} | set(carried.values())
    result = []
    for at, finding in enumerate(new):
        value = carried.get(at)
        if value is None:
            value = _free(finding.fingerprint, taken)
            taken.add(value)
        result.append(finding if value == finding.fingerprint else replace(finding, fingerprint=value))
    return result


def _free(fingerprint: str, taken: AbstractSet[str]) -> str:
    number = 0
    candidate = fingerprint
    while candidate in taken:
        number += 1
        candidate = blake2b(f"{VERSION}{fingerprint}+{number}".encode(), digest_size=16).hexdigest()
    return candidate
