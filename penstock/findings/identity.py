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
    return value.lower() in _PLACEHOLDERS or value.count(value[0]) == size


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
    return _prefixed(text.encode("utf-8", "surrogatepass"))


def _prefixed(raw: bytes) -> bytes:
    return b"%d:%b" % (len(raw), raw)


_ON_TOOL = _part("tool") + _part("")


class Fingerprinter:
    """Fingerprints in one scope."""

    def __init__(self, scope: Scope) -> None:
        self._scope = b"".join(_part(text) for text in (VERSION, scope.tenant, scope.repository))
        self._heads: dict[tuple[str, str], dict[str, Callable[[], Any]]] = {}
        self._places: dict[tuple[str, str | None], bytes] = {}
        self._purls: dict[str, bytes] = {}

    def _head(self, tool: str, category: str, rule_id: str) -> Callable[[], Any]:
        """A way to begin a digest that has taken in all that findings of one rule share."""
        parts = b"".join(map(_part, (tool, category, rule_id)))
        copy: Callable[[], Any] = blake2b(self._scope + parts, digest_size=16).copy
        return self._heads[tool, category].setdefault(rule_id, copy)

    def _place(self, basis: str, path: str | None) -> bytes:
        where = image_path(path or "") if basis == "package" else path or ""
        return self._places.setdefault((basis, path), _part(basis) + _part(where))

    def _purl(self, purl: str) -> bytes:
        return self._purls.setdefault(purl, _part(bare_purl(purl)))

    def identify(
        self, findings: Sequence[Finding], untrusted: AbstractSet[str], tool: str, category: str
    ) -> tuple[list[str], list[str]]:
        """
        What each finding's identity stands on, and its fingerprint before numbering.

        findings: all of one tool and category. untrusted: tool fingerprints that identify nothing.
        """
        bases: list[str] = []
        prints: list[str] = []
        heads, places, purls = self._heads.setdefault((tool, category), {}), self._places, self._purls
        for finding in findings:
            rule_id, own, path = finding.rule_id, finding.tool_fingerprint, finding.path
            digest = (heads.get(rule_id) or self._head(tool, category, rule_id))()
            if finding.package is not None:
                basis, purl = "package", finding.package
                where = places.get((basis, path)) or self._place(basis, path)
                digest.update(where + (purls.get(purl) or self._purl(purl)))
            elif own is not None and own not in untrusted:
                basis = "tool"
                digest.update(_ON_TOOL + _prefixed(own.encode()))
            else:
                basis, content = _content(finding)
                digest.update((places.get((basis, path)) or self._place(basis, path)) + _prefixed(content))
            bases.append(basis)
            prints.append(digest.hexdigest())
        return bases, prints


def _content(finding: Finding) -> tuple[str, bytes]:
    if finding.snippet and (content := b" ".join(finding.snippet.encode().split())):
        return "snippet", content
    return "message", finding.message.encode().translate(None, _DIGITS)


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
