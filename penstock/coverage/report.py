"""
Which form a report of coverage has, and what all of them give.

A report is written by the repository's own commands, so nothing of it is trusted: it has a size limit, declares no
entities, its numbers are checked, its texts are cut.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

import attrs

from penstock.errors import ReportError
from penstock.findings.documents import source_of_bytes

SIZE_LIMIT_BYTES = 128 * 1024 * 1024
FILE_LIMIT = 200_000
PATH_LIMIT = 1000
_MOST = 2**40


@attrs.frozen
class FileCoverage:
    """A file by its path in the repository (as far as the report tells): lines and branches, and those reached."""

    path: str
    lines: int
    lines_covered: int
    branches: int = 0
    branches_covered: int = 0


@attrs.frozen
class Summary:
    """The sum over files. percent: of lines, as a person reads it (two decimals); None where there are no lines."""

    files: int
    lines: int
    lines_covered: int
    branches: int
    branches_covered: int

    @property
    def percent(self) -> float | None:
        """Lines that were reached, of a hundred; 100 only when all were."""
        return None if not self.lines else int(10_000 * self.lines_covered / self.lines) / 100


class Counted(NamedTuple):
    """Lines or branches of a file, by what names them, and whether they were reached."""

    lines: Mapping[int, bool]
    branches: int = 0
    branches_covered: int = 0


def read_coverage(data: bytes, where: str, roots: Iterable[str] = ()) -> tuple[FileCoverage, ...]:
    """
    The files of a report: Cobertura XML, LCOV, or coverage.py's JSON, whichever it is.

    roots: folders where the repository lay when the report was written; they are taken off absolute paths.
    Raises: ReportError when it is none of them, too large, or declares entities.
    """
    from penstock.coverage import cobertura, coverage_json, lcov

    if len(data) > SIZE_LIMIT_BYTES:
        raise ReportError(f"larger than {SIZE_LIMIT_BYTES // 2**20} MiB", where=where, remedy="split it")
    start = source_of_bytes(data[:4096], where).data.lstrip()
    read: Callable[[bytes, str], tuple[FileCoverage, ...]]
    if start.startswith(b"<"):
        read = cobertura.read
    elif start.startswith(b"{"):
        read = coverage_json.read
    elif start.startswith((b"TN:", b"SF:")):
        read = lcov.read
    else:
        remedy = "let the tool write Cobertura XML, LCOV or coverage.py's JSON"
        raise ReportError("no report of coverage", where=where, remedy=remedy)
    tops = tuple(sorted((f"{root.rstrip('/')}/" for root in roots if root), key=len, reverse=True))
    found = merged(attrs.evolve(one, path=_relative(one.path, tops)) for one in read(data, where))
    if len(found) > FILE_LIMIT:
        raise ReportError(f"more than {FILE_LIMIT} files", where=where, remedy="leave out what is not the project's")
    return found


def merged(files: Iterable[FileCoverage]) -> tuple[FileCoverage, ...]:
    """One value per path, ascending; where a file stands twice, the one of which more was reached."""
    best: dict[str, FileCoverage] = {}
    for one in files:
        known = best.get(one.path)
        if known is None or (one.lines_covered, one.lines) > (known.lines_covered, known.lines):
            best[one.path] = one
    return tuple(best[path] for path in sorted(best))


def summarise(files: Iterable[FileCoverage]) -> Summary:
    """Everything added up."""
    known = tuple(files)
    return Summary(
        files=len(known),
        lines=sum(one.lines for one in known),
        lines_covered=sum(one.lines_covered for one in known),
        branches=sum(one.branches for one in known),
        branches_covered=sum(one.branches_covered for one in known),
    )


def file_coverage(path: str, counted: Counted) -> FileCoverage:
    """A file's value from its lines; never more reached than there are."""
    covered = min(max(counted.branches_covered, 0), max(counted.branches, 0))
    return FileCoverage(path, len(counted.lines), sum(counted.lines.values()), max(counted.branches, 0), covered)


def number(text: str | None) -> int | None:
    """A count as a report writes it; None for what is none. Negative ones (a tool's overflow) count as 0."""
    shown = (text or "").strip()
    if not shown.isascii() or not shown.removeprefix("-").isdigit() or len(shown) > 15:
        return None
    return min(max(int(shown), 0), _MOST)


def _relative(path: str, tops: tuple[str, ...]) -> str:
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in path[:PATH_LIMIT])
    text = shown.replace("\\", "/").removeprefix("file://")
    top = next((top for top in tops if text.startswith(top)), "")
    parts = [part for part in PurePosixPath(text[len(top) :]).parts if part not in ("/", ".")]
    return "/".join(parts) or "?"
