"""LCOV's tracefile, as lcov, c8, Jest, cargo-llvm-cov and others write it. Source: geninfo(1)"""

from penstock.coverage.report import Counted, FileCoverage, file_coverage, number
from penstock.errors import ReportError


def read(data: bytes, where: str) -> tuple[FileCoverage, ...]:
    """
    The files of a tracefile. A file that several tests reached stands in it several times; its lines are put together.

    Raises: ReportError when it names no file.
    """
    lines: dict[str, dict[int, bool]] = {}
    branches: dict[str, dict[str, bool]] = {}
    path = ""
    for row in data.decode("utf-8", "replace").removeprefix("\ufeff").splitlines():
        key, colon, rest = row.strip().partition(":")
        if key == "SF" and colon:
            path = rest
            lines.setdefault(path, {})
            branches.setdefault(path, {})
        elif key == "DA" and path:
            _line(lines[path], rest)
        elif key == "BRDA" and path:
            _branch(branches[path], rest)
        elif key == "end_of_record":
            path = ""
    if not lines:
        raise ReportError("no file is named in it", where=where, remedy="let the tool write LCOV")
    return tuple(
        file_coverage(path, Counted(found, len(branches[path]), sum(branches[path].values())))
        for path, found in lines.items()
    )


def _line(found: dict[int, bool], text: str) -> None:
    at, _, hits = text.partition(",")
    line, count = number(at), number(hits.partition(",")[0])
    if line and count is not None:
        found[line] = found.get(line, False) or count > 0


def _branch(found: dict[str, bool], text: str) -> None:
    """`line,block,branch,taken`; taken is `-` where the line itself was never reached."""
    name, comma, taken = text.rpartition(",")
    if comma and len(name) <= 200:
        found[name] = found.get(name, False) or bool(number(taken))
