"""Reports of scanners that ran elsewhere, brought in as scans of a commit."""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen

from penstock.errors import ReportError
from penstock.findings import Report, RunOutcome, Scope, read_report
from penstock.warehouse.rows import Commit, IngestError, Scan
from penstock.warehouse.write import ScanReport, Warehouse

IMPORTED = "import-"
"""How the run of an imported scan begins; the commit follows."""


@frozen(kw_only=True)
class About:
    """What imported reports are about. committed_at orders the branch's commits; base_branch: see ScanReport."""

    project: str
    commit: str
    branch: str
    committed_at: datetime
    author: str | None = None
    tool: str | None = None
    category: str | None = None
    roots: tuple[str, ...] = ()
    base_branch: str | None = None


@frozen
class Imported:
    """What an import brought; is_new: False when this very report of the commit had been imported before."""

    tool: str
    category: str
    findings: int
    is_new: bool


def import_report(warehouse: Warehouse, path: Path, about: About, archive: Callable[[bytes], object]) -> list[Imported]:
    """
    Record a report as one scan per tool and category; a second time, nothing happens.

    archive: keeps the bytes by their hash, so that the tables can be built again; before anything is recorded.
    Raises: ReportError when it cannot be read, holds no run, or says that the scan failed; what `Warehouse` raises.
    """
    scope = Scope(repository=about.project, category=about.category, roots=about.roots)
    data = _bytes(path)
    report = read_report(data, scope=scope, where=str(path))
    _check(report, path)
    archive(data)
    return [
        Imported(one.scan.tool, one.scan.category, one.scan.findings, is_new)
        for one in imported_scans(report, hashlib.sha256(data).hexdigest(), about)
        for is_new in [warehouse.record_scan(one.scan, one.findings, errors=one.errors, base_branch=one.base_branch)]
    ]


def record_commit(warehouse: Warehouse, about: About) -> None:
    """The commit that reports are about, for the questions that join it."""
    commit = Commit(
        project=about.project,
        commit=about.commit,
        ref=f"refs/heads/{about.branch}",
        author=about.author,
        committed_at=about.committed_at,
    )
    warehouse.record_commit(commit)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReportError(f"cannot be opened: {error.strerror}", where=str(path), remedy="check the path") from error


def _check(report: Report, path: Path) -> None:
    failed = [one for one in report.runs if one.succeeded is False]
    if failed:
        why = failed[0].failure or "its report says so"
        raise ReportError(f"{failed[0].tool} did not finish: {why}", where=str(path), remedy="run the scanner again")
    if not report.runs:
        raise ReportError("it holds no run of a tool", where=str(path), remedy="run the scanner again")


def imported_scans(report: Report, digest: str, about: About) -> Iterator[ScanReport]:
    """A report's scans, one per tool and category. digest: what it is archived under."""
    pairs: dict[tuple[str, str], RunOutcome] = {(one.tool, one.category): one for one in report.runs}
    for (tool, category), outcome in pairs.items():
        if about.tool is not None and about.tool.lower() != tool.lower():
            continue
        found = [one for one in report.findings if (one.tool, one.category) == (tool, category)]
        runs = {number for number, one in enumerate(report.runs) if (one.tool, one.category) == (tool, category)}
        broken = [one for one in report.quarantined if one.run in runs]
        results = sum(report.runs[number].results for number in runs)
        scan = Scan(
            project=about.project,
            commit=about.commit,
            branch=about.branch,
            run_id=f"{IMPORTED}{about.commit}",
            step=f"{IMPORTED}{about.branch}",
            tool=tool,
            tool_version=outcome.tool_version,
            category=category,
            state="succeeded",
            committed_at=about.committed_at,
            scanned_at=datetime.now(UTC),
            results=results,
            findings=len(found),
            not_findings=results - len(found) - len(broken),
            quarantined=len(broken),
            report_sha256=digest,
            author=about.author,
            roots=about.roots,
            base_branch=about.base_branch,
        )
        errors = tuple(
            IngestError(
                project=about.project,
                commit=about.commit,
                run_id=scan.run_id,
                step=scan.step,
                source=tool,
                message=one.reason,
                report_sha256=digest,
                location=f"run {one.run}, result {one.index}",
                occurred_at=scan.scanned_at,
            )
            for one in broken
        )
        yield ScanReport(scan=scan, findings=found, errors=errors, base_branch=about.base_branch)
