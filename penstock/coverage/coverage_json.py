"""coverage.py's own JSON (`coverage json`). Source: https://coverage.readthedocs.io/en/latest/commands/cmd_json.html"""

import msgspec

from penstock.coverage.report import FileCoverage
from penstock.errors import ReportError

_MOST = 2**40


class _Summary(msgspec.Struct, frozen=True):
    covered_lines: int
    num_statements: int
    num_branches: int = 0
    covered_branches: int = 0


class _File(msgspec.Struct, frozen=True):
    summary: _Summary


class _Document(msgspec.Struct, frozen=True):
    files: dict[str, _File]


def read(data: bytes, where: str) -> tuple[FileCoverage, ...]:
    """
    The files of a report.

    Raises: ReportError when it is none.
    """
    try:
        document = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=_Document)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        remedy = "write it with `coverage json`"
        raise ReportError(f"not coverage.py's JSON: {str(error)[:200]}", where=where, remedy=remedy) from error
    return tuple(_file(path, one.summary) for path, one in document.files.items())


def _file(path: str, found: _Summary) -> FileCoverage:
    lines, branches = _count(found.num_statements), _count(found.num_branches)
    return FileCoverage(
        path, lines, min(_count(found.covered_lines), lines), branches, min(_count(found.covered_branches), branches)
    )


def _count(value: int) -> int:
    return min(max(value, 0), _MOST)
