"""
Identity, `fp v1`: which findings are the same one.

A fingerprint is BLAKE2b-128 over length-prefixed parts: the version, tenant, repository, tool, category and
rule, what the identity stands on, and that thing itself. It stands on, in this order:

    package   purl (bare) and path, a container image's tag left out; never a line
    tool      the tool's own fingerprint, if it can be trusted
    snippet   path and the code, spaces made even
    message   path and the message without its digits

A tool's fingerprint is not trusted if it is a known placeholder, or if two results of the report share it.
Findings alike in all this are numbered by their place, so that no two of a report ever share a fingerprint.
Where the sources of both commits can be had, `matching` carries fingerprints over instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import Any

from penstock.findings.finding import Finding, Scope
from penstock.findings.packages import bare_purl

VERSION = "fp v1"
_DIGITS = b"0123456789"
_PLACEHOLDERS = frozenset(
    ("requires login", "", "unknown", "n/a", "na", "none", "null", "nil", "undefined", "tbd", "todo", "placeholder",
     "redacted", "not available", "empty", "default", "fingerprint", "string", "false", "true")
)  # fmt: skip
_LONGEST_WORD = max(map(len, _PLACEHOLDERS))
_SHORTEST = 6
_UNFIT = frozenset(  # they tell a column, a commit or a whole file, not a finding
    ("primaryLocationStartColumnFingerprint", "commitSha", "email", "author", "date", "commitMessage",
     "scanFileHash", "fileHash", "file", "line", "UniqueId")
)  # fmt: skip
_PREFERRED = "primaryLocationLineHash"
_IMAGE_TAG = re.compile(r"(?<=\w):[A-Za-z0-9_][\w.+-]{0,127}(?=$|[/@ ])|@sha256:[0-9a-f]{64}| \([\w .:-]+\)$")
_LAYER = re.compile(r"\b[0-9a-f]{64}\b")


def is_placeholder(value: object) -> bool:
    """Whether a tool's fingerprint identifies nothing: too short, words, one character over and over."""
    if not isinstance(value, str):
        return True
    size = len(value)
    if size < _SHORTEST or " " in value:
        return size < _SHORTEST or not value.strip() or " " in value.strip()
    if size <= _LONGEST_WORD and value.lower() in _PLACEHOLDERS:
        return True
    return value[0] == value[1] and value.count(value[0]) == size


def tool_fingerprint(full: dict[str, object] | None, partial: dict[str, object] | None) -> str | None:
    """The tool's own fingerprint as `key:value`, the latest version if there are several; None if unfit."""
    found = _fit(full) if full else None
    if found is not None:
        return found
    found = _fit(partial) if partial else None
    return None if found is None else "partial/" + found


def _fit(table: dict[str, object]) -> str | None:
    value = table.get(_PREFERRED)
    if value is not None and not is_placeholder(value):
        return f"{_PREFERRED}:{value}"
    for key in list(table) if len(table) == 1 else sorted(table, reverse=True):
        value = table[key]
        if isinstance(value, dict) and len(value) == 1:  # Black Duck: {"csvRowSha256": {"value": "…"}}
            value = next(iter(value.values()))
        if key not in _UNFIT and not is_placeholder(value):
            return f"{key}:{value}"
    return None


def repeated(fingerprints: Sequence[str | None]) -> frozenset[str]:
    """The tool fingerprints that more than one result has."""
    counts = Counter(fingerprints)
    return frozenset(value for value, count in counts.items() if count > 1 and value is not None)


def image_path(path: str) -> str:
    """A path without what a rebuilt container image changes in it: tag, digest, layer."""
    return _LAYER.sub("*", _IMAGE_TAG.sub("", path))


def _part(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return b"%d:%b" % (len(raw), raw)


_ON_TOOL = _part("tool") + _part("")
_Copy = Callable[[], Any]


class Fingerprinter:
    """
    Fingerprints in one scope.

    untrusted: tool fingerprints that identify nothing in this report.
    """

    def __init__(self, scope: Scope) -> None:
        self.untrusted: AbstractSet[str] = frozenset()
        self._scope = b"".join(_part(text) for text in (VERSION, scope.tenant, scope.repository))
        self._prints: dict[tuple[str, str], ToolPrints] = {}

    def of(self, tool: str, category: str) -> ToolPrints:
        """The fingerprints of one tool and category."""
        if (tool, category) not in self._prints:
            self._prints[tool, category] = ToolPrints(self, self._scope + _part(tool) + _part(category))
        return self._prints[tool, category]

    def again(self, finding: Finding) -> tuple[str, str]:
        """What a finding's identity stands on by what is trusted now, and its fingerprint."""
        return self.of(finding.tool, finding.category).identify(
            finding.rule_id, finding.tool_fingerprint, finding.path, finding.package, finding.snippet, finding.message
        )


class ToolPrints:
    """Fingerprints of one tool and category; what findings share is hashed once."""

    def __init__(self, shared: Fingerprinter, head: bytes) -> None:
        self._shared, self._head = shared, head
        self._heads: dict[str, tuple[_Copy, _Copy]] = {}
        self._on_package: dict[str | None, bytes] = {}
        self._on_snippet: dict[str | None, bytes] = {}
        self._on_message: dict[str | None, bytes] = {}
        self._purls: dict[str, bytes] = {}

    def _begin(self, rule_id: str) -> tuple[_Copy, _Copy]:
        """Two ways to begin a digest that has taken in the rule, the second also what all on a tool's own share."""
        head = self._head + _part(rule_id)
        begun = blake2b(head, digest_size=16).copy, blake2b(head + _ON_TOOL, digest_size=16).copy
        return self._heads.setdefault(rule_id, begun)

    def _purl(self, purl: str) -> bytes:
        return self._purls.setdefault(purl, _part(bare_purl(purl)))

    def identify(  # noqa: PLR0917  called once per finding; names cost a tenth of it
        self, rule_id: str, own: str | None, path: str | None, package: str | None, snippet: str | None, message: str
    ) -> tuple[str, str]:
        """What a finding's identity stands on, and its fingerprint before numbering. own: the tool's fingerprint."""
        begin, begin_on_tool = self._heads.get(rule_id) or self._begin(rule_id)
        if package is None and own is not None and own not in self._shared.untrusted:
            digest, raw = begin_on_tool(), own.encode()
            digest.update(b"%d:%b" % (len(raw), raw))
            return "tool", digest.hexdigest()
        digest = begin()
        if package is not None:
            where = self._on_package.get(path) or _place(self._on_package, "package", path)
            digest.update(where + (self._purls.get(package) or self._purl(package)))
            return "package", digest.hexdigest()
        if snippet and (raw := b" ".join(snippet.encode().split())):
            where = self._on_snippet.get(path) or _place(self._on_snippet, "snippet", path)
            digest.update(b"%b%d:%b" % (where, len(raw), raw))
            return "snippet", digest.hexdigest()
        raw = message.encode().translate(None, _DIGITS)
        where = self._on_message.get(path) or _place(self._on_message, "message", path)
        digest.update(b"%b%d:%b" % (where, len(raw), raw))
        return "message", digest.hexdigest()


def _place(places: dict[str | None, bytes], basis: str, path: str | None) -> bytes:
    where = image_path(path or "") if basis == "package" else path or ""
    return places.setdefault(path, _part(basis) + _part(where))


def numbered(fingerprint: str, number: int) -> str:
    """The fingerprint of the number-th of several findings alike; the first (0) keeps the one they share."""
    if number == 0:
        return fingerprint
    return blake2b(f"{VERSION}{fingerprint}#{number}".encode(), digest_size=16).hexdigest()


def number_by_place(findings: Sequence[Finding], prints: list[str]) -> list[str]:
    """Fingerprints made unique: those alike are numbered by line and column, whatever the order of the report."""
    if len(set(prints)) == len(prints):
        return prints
    alike: dict[str, list[int]] = {}
    for place, value in enumerate(prints):
        alike.setdefault(value, []).append(place)
    unique = list(prints)
    for value, places in alike.items():
        if len(places) > 1:
            for number, place in enumerate(sorted(places, key=lambda one: place_of(findings[one]))):
                unique[place] = numbered(value, number)
    return unique


def place_of(finding: Finding) -> tuple[str, int, int, int, str]:
    """By what findings alike are put in order."""
    place = finding.path or "", finding.line or 0, finding.column or 0, finding.end_line or 0
    return *place, finding.message


class NumberByArrival:
    """Fingerprints made unique in the order of the report, for a report too large to be sorted."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._counts: Counter[str] = Counter()

    def number(self, prints: list[str]) -> list[str]:
        """The same fingerprints, those seen before numbered. About 100 bytes are kept for each."""
        unique = []
        for value in prints:
            short = int(value[:16], 16)
            if short in self._seen:
                self._counts[value] += 1
                unique.append(numbered(value, self._counts[value]))
            else:
                self._seen.add(short)
                unique.append(value)
        return unique
