"""
Cobertura XML, as coverage.py, gcovr, JaCoCo converters, Istanbul and .NET's coverlet write it.

Source: https://raw.githubusercontent.com/cobertura/web/master/htdocs/xml/coverage-04.dtd
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from xml.etree import ElementTree

from penstock.coverage.report import Counted, FileCoverage, file_coverage, number
from penstock.errors import ReportError
from penstock.findings.documents import source_of_bytes

_ENCODING = re.compile(rb"\s*<\?xml[^>]*?\bencoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
_ENCODINGS = frozenset((b"utf-8", b"utf8", b"us-ascii", b"ascii", b"iso-8859-1"))
_CONDITIONS = re.compile(r"\((\d{1,9})/(\d{1,9})\)")
# Cobertura itself writes a document type, which is read over; what it could define is refused.
_DOCTYPE = re.compile(rb"<!DOCTYPE\s+coverage\s+(?:SYSTEM|PUBLIC\s+[\"'][^\"'<>\[]*[\"'])\s*[\"'][^\"'<>\[]*[\"']\s*>")


def read(data: bytes, where: str) -> tuple[FileCoverage, ...]:
    """
    The files of a report; classes of one file are added up.

    Raises: ReportError when it is no Cobertura XML, or declares entities.
    """
    plain = _DOCTYPE.sub(b"", source_of_bytes(data, where).data, count=1)
    declared = _ENCODING.match(plain)
    if declared and declared[1].lower() not in _ENCODINGS:  # another could hide what is refused below
        raise ReportError(f"its encoding is {declared[1].decode()[:40]}", where=where, remedy="write it as UTF-8")
    if b"<!ENTITY" in plain or b"<!DOCTYPE" in plain:
        raise ReportError("declares entities, which are not read", where=where)
    try:
        root = ElementTree.fromstring(plain)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ReportError(f"no XML: {error}", where=where, remedy="let the tool write Cobertura XML") from error
    if root.tag != "coverage" or (root.find("packages") is None and root.find(".//class") is None):
        what = "JaCoCo's own XML" if root.tag == "report" else f"<{str(root.tag)[:40]}>"
        raise ReportError(f"starts with {what}, not with Cobertura's <coverage>", where=where)
    source = _source(root)
    files: dict[str, list[ElementTree.Element]] = {}
    for each in root.iter("class"):
        files.setdefault(str(PurePosixPath(source, each.get("filename") or "")), []).append(each)
    return tuple(file_coverage(path, _counted(classes)) for path, classes in files.items())


def _source(root: ElementTree.Element) -> str:
    """The folder that all paths are relative to; with several it cannot be told to which one a path belongs."""
    sources = [(each.text or "").strip() for each in root.iterfind("sources/source")]
    return sources[0] if len(sources) == 1 else ""


def _counted(classes: list[ElementTree.Element]) -> Counted:
    lines: dict[int, bool] = {}
    branches: dict[int, tuple[int, int]] = {}
    for at, line in _lines(classes):
        lines[at] = lines.get(at, False) or bool(number(line.get("hits")))
        if found := _CONDITIONS.search(line.get("condition-coverage") or ""):
            branches[at] = (int(found[2]), min(int(found[1]), int(found[2])))
    return Counted(lines, sum(all_ for all_, _ in branches.values()), sum(one for _, one in branches.values()))


def _lines(classes: list[ElementTree.Element]) -> Iterator[tuple[int, ElementTree.Element]]:
    for each in classes:
        for line in each.iterfind("lines/line"):  # those of methods stand here again
            if at := number(line.get("number")):
                yield at, line
