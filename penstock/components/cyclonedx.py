"""
CycloneDX JSON (from 1.2 on) → the components that it lists.

A list comes from a tool that read somebody's repository, so nothing of it is trusted: one broken entry is counted and
left out, texts are cut, and size, number and depth have limits. Source: https://cyclonedx.org/docs/1.6/json/
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import attrs
import msgspec

from penstock.components.component import Bill, Component
from penstock.components.purls import Purl, parse_purl
from penstock.errors import ReportError
from penstock.findings.documents import source_of_bytes
from penstock.findings.packages import bare_purl

SIZE_LIMIT_BYTES = 256 * 1024 * 1024
COMPONENT_LIMIT = 500_000
DEPTH_LIMIT = 64
TEXT_LIMIT = 500

_VERSIONS = re.compile(r"1\.(?:[2-9]|\d\d)")  # JSON began with 1.2; every later 1.x only adds (Trivy 0.76 writes 1.7)
_DIGEST = re.compile(r"sha256(?::|%3A)([0-9a-f]{64})", re.IGNORECASE)
_PLACE = re.compile(r"(?:aquasecurity:trivy:FilePath|syft:location:0:path|SrcFile|cdx:\w+:(?:path|SrcFile))$")
_LOCK_FILE = "aquasecurity:trivy:Class"
_CONTAINERS = frozenset(("application", "operating-system", "container", "platform", "device", "firmware"))

T = TypeVar("T")


class _Licence(msgspec.Struct, frozen=True):
    id: str | None = None
    name: str | None = None


class _LicenceChoice(msgspec.Struct, frozen=True):
    license: _Licence | None = None
    expression: str | None = None


class _Property(msgspec.Struct, frozen=True):
    name: str | None = None
    value: str | int | float | bool | None = None


class _Occurrence(msgspec.Struct, frozen=True):
    location: str | None = None


class _Evidence(msgspec.Struct, frozen=True):
    occurrences: list[_Occurrence] | None = None


class _Component(msgspec.Struct, frozen=True):
    type: str | None = None
    name: str | int | None = None
    group: str | None = None
    version: str | int | float | None = None
    purl: str | None = None
    ref: str | None = msgspec.field(name="bom-ref", default=None)
    licenses: msgspec.Raw = msgspec.Raw()
    properties: msgspec.Raw = msgspec.Raw()
    evidence: msgspec.Raw = msgspec.Raw()
    components: msgspec.Raw = msgspec.Raw()


class _Dependency(msgspec.Struct, frozen=True):
    ref: str
    depends_on: list[str] | None = msgspec.field(name="dependsOn", default=None)


class _Metadata(msgspec.Struct, frozen=True):
    tools: msgspec.Raw = msgspec.Raw()
    component: msgspec.Raw = msgspec.Raw()


class _Document(msgspec.Struct, frozen=True):
    form: str | None = msgspec.field(name="bomFormat", default=None)
    schema: str | None = msgspec.field(name="$schema", default=None)
    version: str | None = msgspec.field(name="specVersion", default=None)
    spdx: str | None = msgspec.field(name="spdxVersion", default=None)
    metadata: msgspec.Raw = msgspec.Raw()
    components: msgspec.Raw = msgspec.Raw()
    dependencies: msgspec.Raw = msgspec.Raw()


def read_bill(data: bytes, where: str = "the SBOM") -> Bill:
    """
    What a CycloneDX document lists, once each, in its order.

    Raises: ReportError when it is none, is too large, or more than half of what it lists cannot be read.
    """
    document = _document(data, where)
    metadata = _typed(document.metadata, _Metadata) or _Metadata()
    subject = _typed(metadata.component, _Component)
    entries, broken = _entries(document, where)
    if broken > len(entries):
        raise ReportError(f"{broken} of {broken + len(entries)} components cannot be read", where=where)
    graph = _graph(document, subject, entries)
    found = dict.fromkeys(one for entry in entries if (one := _component(entry, graph)) is not None)
    return Bill(
        tuple(found),
        subject=_cut(subject.name) if subject else None,
        image_digest=_image_digest(subject) if subject else None,
        tool=_tool(metadata.tools),
        broken=broken,
    )


def _document(data: bytes, where: str) -> _Document:
    if len(data) > SIZE_LIMIT_BYTES:
        raise ReportError(f"larger than {SIZE_LIMIT_BYTES // 2**20} MiB", where=where, remedy="list less")
    text = source_of_bytes(data, where).data
    if text[:64].lstrip().startswith(b"<"):
        raise ReportError("this is XML", where=where, remedy="let the tool write CycloneDX as JSON")
    try:
        document = msgspec.json.decode(text, type=_Document)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ReportError(f"no CycloneDX JSON: {_first_line(error)}", where=where) from error
    if document.spdx:
        raise ReportError("this is an SPDX document", where=where, remedy="let the tool write CycloneDX JSON")
    if document.form != "CycloneDX" and "cyclonedx.org" not in (document.schema or ""):
        raise ReportError("no CycloneDX document: bomFormat is missing", where=where)
    if document.version is not None and not _VERSIONS.fullmatch(document.version):
        what = f"CycloneDX {document.version[:20]} is not known"
        raise ReportError(what, where=where, remedy="let the tool write 1.6")
    return document


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _typed(raw: msgspec.Raw, kind: type[T]) -> T | None:
    """A part of the document; None where it is missing or of another shape."""
    if not memoryview(raw).nbytes:
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _entries(document: _Document, where: str) -> tuple[list[_Component], int]:
    """Every component, nested ones after those that hold them; and how many could not be read."""
    found: list[_Component] = []
    broken = 0
    waiting = [(document.components, 0)]
    while waiting:
        raw, depth = waiting.pop()
        if bytes(memoryview(raw)[:5]) in (b"", b"null"):
            continue
        listed = _typed(raw, list[msgspec.Raw])
        if listed is None or depth > DEPTH_LIMIT:
            broken += 1
            continue
        for one in listed:
            entry = _typed(one, _Component)
            if entry is None or not str(entry.name or entry.purl or "").strip():
                broken += 1
                continue
            found.append(entry)
            waiting.append((entry.components, depth + 1))
        if len(found) > COMPONENT_LIMIT:
            raise ReportError(f"more than {COMPONENT_LIMIT} components", where=where, remedy="list less")
    return found, broken


@attrs.frozen
class _Graph:
    """direct: component → whether the subject asks for it. holders: component → the lock file that names it."""

    direct: Mapping[str, bool]
    holders: Mapping[str, str]


def _graph(document: _Document, subject: _Component | None, entries: list[_Component]) -> _Graph:
    """Who asks for whom. What only groups others (a lock file, a system) is as the subject itself."""
    needs = dict(_needs(document))
    groups = {one.ref: one for one in entries if one.ref and _groups(one)}
    holders = _holders([one for one in groups.values() if _is_lock_file(one)], needs)
    root = subject.ref if subject else None
    if root is None or root not in needs:
        return _Graph({}, holders)
    direct = {ref for top in _closed({root}, needs, frozenset(groups)) for ref in needs.get(top, ())}
    reached = _closed(direct, needs, None)
    return _Graph({ref: ref in direct for ref in reached}, holders)


def _holders(files: list[_Component], needs: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Component → the first lock file that names it, directly or through others."""
    found: dict[str, str] = {}
    for file in files:
        waiting = list(needs.get(file.ref or "", ()))
        while waiting:
            ref = waiting.pop()
            if ref not in found:
                found[ref] = str(file.name)
                waiting += needs.get(ref, ())
    return found


def _needs(document: _Document) -> Iterator[tuple[str, tuple[str, ...]]]:
    for raw in _typed(document.dependencies, list[msgspec.Raw]) or ():
        one = _typed(raw, _Dependency)
        if one is not None:
            yield one.ref, tuple(one.depends_on or ())


def _closed(start: set[str], needs: Mapping[str, tuple[str, ...]], within: frozenset[str] | None) -> set[str]:
    """`start` and what it needs, through others; only those of `within` if it is given."""
    seen, waiting = set(start), list(start)
    while waiting:
        for ref in needs.get(waiting.pop(), ()):
            if ref not in seen and (within is None or ref in within):
                seen.add(ref)
                waiting.append(ref)
    return seen


def _groups(one: _Component) -> bool:
    return not one.purl and one.type in _CONTAINERS


def _is_lock_file(one: _Component) -> bool:
    return not one.purl and one.type in ("application", "file") and not one.version


def _component(entry: _Component, graph: _Graph) -> Component | None:
    """None for what is only a place: a file, or a lock file that names others."""
    if not entry.purl and (entry.type == "file" or _is_lock_file(entry)):
        return None
    purl = parse_purl(entry.purl) if entry.purl and len(entry.purl) <= 4 * TEXT_LIMIT else None
    return Component(
        name=_cut(purl.name if purl else entry.name) or "?",
        version=_cut((purl.version if purl else None) or entry.version) or "",
        purl=bare_purl(entry.purl) if purl and entry.purl else None,
        ecosystem=_cut(purl.ecosystem) or "generic" if purl else "generic",
        namespace=_cut(_namespace(purl, entry)),
        kind=_cut(entry.type) or "library",
        licences=tuple(_licences(entry)),
        path=_place(entry) or _cut(graph.holders.get(entry.ref or "")),
        direct=graph.direct.get(entry.ref or ""),
    )


def _namespace(purl: Purl | None, entry: _Component) -> str | None:
    return (purl.namespace if purl else None) or entry.group or None


def _licences(entry: _Component) -> Iterator[str]:
    for raw in (_typed(entry.licenses, list[msgspec.Raw]) or ())[:50]:
        one = _typed(raw, _LicenceChoice)
        said = one and (one.expression or (one.license and (one.license.id or one.license.name)))
        if said and (text := _cut(said)):
            yield text


def _place(entry: _Component) -> str | None:
    evidence = _typed(entry.evidence, _Evidence)
    for occurrence in (evidence.occurrences if evidence else None) or ():
        if occurrence.location:
            return _relative(occurrence.location)
    return next((_relative(value) for name, value in _properties(entry) if _PLACE.search(name) and value), None)


def _properties(entry: _Component) -> Iterator[tuple[str, str]]:
    for raw in (_typed(entry.properties, list[msgspec.Raw]) or ())[:500]:
        one = _typed(raw, _Property)
        if one is not None and one.name and one.value is not None:
            yield one.name, str(one.value)


def _relative(path: str) -> str | None:
    return _cut(path.replace("\\", "/").lstrip("/"))


def _image_digest(subject: _Component) -> str | None:
    """What the list says of the image itself: by its own manifest (a purl, a RepoDigest), else by its id."""
    said = dict(_properties(subject))
    places = [subject.purl, said.get("aquasecurity:trivy:RepoDigest"), subject.version]
    places += [said.get("aquasecurity:trivy:ImageID"), said.get("syft:image:digest")]
    found = (_DIGEST.search(str(place)) for place in places if place)
    return next((f"sha256:{one[1].lower()}" for one in found if one), None)


def _tool(raw: msgspec.Raw) -> str | None:
    """The first tool, in the shape of 1.2 (a list) or of 1.5 (an object with components)."""
    known = _typed(raw, dict[str, Any])
    listed = known.get("components") if known is not None else _typed(raw, list[Any])
    first = listed[0] if isinstance(listed, list) and listed else None
    if not isinstance(first, dict) or not isinstance(first.get("name"), str):
        return None
    version = first.get("version")
    return _cut(f"{first['name']} {version}" if isinstance(version, str) else first["name"])


def _cut(text: str | float | None) -> str | None:
    """A text on one line, at most TEXT_LIMIT characters, without what could command a terminal."""
    if text is None:
        return None
    shown = "".join(char if char.isprintable() else " " for char in str(text)[: TEXT_LIMIT + 1])
    return " ".join(shown.split())[:TEXT_LIMIT] or None
