"""The warehouse's tables built again: findings and their history from the archived reports, the rest from the state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import attrs
import duckdb
import pyarrow as pa
import sqlalchemy as sa

from penstock.artifacts.errors import BlobDamaged, BlobLost
from penstock.artifacts.store import ArtifactStore
from penstock.errors import ReportError
from penstock.findings import Finding, Report, Scope, read_report
from penstock.pipeline import records
from penstock.pipeline.ingest import Ingest
from penstock.pipeline.relist import relist
from penstock.pipeline.spec import WORKSPACE
from penstock.settings import Settings
from penstock.state.tables import runs
from penstock.steps.listing import REPORTS
from penstock.warehouse.imports import IMPORTED, About, imported_scans
from penstock.warehouse.rows import EMPTY_SHA256, IngestError, Scan
from penstock.warehouse.write import ScanReport, Warehouse, insert_scan

_SCANNED = ("findings", "finding_events", "scans")
_Read = Callable[[str], bytes | None]


@attrs.frozen
class Rebuilt:
    """
    What was built again. lists: of components.

    missing: scans whose report is no longer in the archive, or damaged; their findings stay as they were.
    """

    runs: int
    scans: int
    findings: int
    missing: int
    lists: int = 0


def rebuild(
    settings: Settings,
    database: sa.Engine,
    store: ArtifactStore,
    warehouse: Warehouse,
    tell: Callable[[str], None] = lambda _: None,
) -> Rebuilt:
    """
    Build the tables again, a project per transaction: readers see a project as it was or as it is after, and ingests
    get in between. Doing it again changes nothing.

    Raises: PlatformError when the database, the archive or the catalog does not answer.
    """
    ingest = Ingest(settings, database)
    warehouse.create()
    finished = _finished(database)
    for number, run_id in enumerate(finished, 1):
        ingest.run(run_id)
        if number % 100 == 0 or number == len(finished):
            tell(f"{number} of {len(finished)} runs")
    done = Rebuilt(runs=len(finished), scans=0, findings=0, missing=0)
    for project in sorted(_projects(warehouse) | {records.load_run(database, one).info.project for one in finished}):
        again = _Again(project, ingest.base_branch(project), settings, _reader(store))
        kept = [scan for run_id in finished for scan in _kept_reports(database, run_id, project)]
        counts = warehouse.write(lambda lake, again=again, kept=kept: again.build(lake, kept))  # type: ignore[misc]
        done = attrs.evolve(done, **{name: getattr(done, name) + count for name, count in counts.items()})
        tell(f"{project}: {counts['scans']} scans, {counts['findings']} findings")
    return attrs.evolve(done, lists=relist(database, warehouse, _reader(store), finished))


def _finished(database: sa.Engine) -> list[str]:
    wanted = sa.select(runs.c.id).where(runs.c.finished_at.is_not(None)).order_by(runs.c.finished_at)
    with database.connect() as connection:
        return list(connection.execute(wanted).scalars())


def _projects(warehouse: Warehouse) -> set[str]:
    return warehouse.write(lambda lake: {name for (name,) in lake.sql("SELECT DISTINCT project FROM scans").fetchall()})


def _reader(store: ArtifactStore) -> _Read:
    def read(digest: str) -> bytes | None:
        try:
            return b"".join(store.read(digest))
        except (BlobLost, BlobDamaged):
            return None

    return read


@attrs.frozen
class _Kept:
    """A report among a run's artifacts."""

    run: records.RunRecord
    step: str
    digest: str


def _kept_reports(database: sa.Engine, run_id: str, project: str) -> Iterator[_Kept]:
    run = records.load_run(database, run_id)
    if run.info.project != project:
        return
    for step, made in records.artifacts_by_step(database, run_id):
        if PurePosixPath(made.path) == PurePosixPath(REPORTS) / f"{step}.sarif":
            yield _Kept(run, step, made.digest)


@attrs.frozen
class _Again:
    """One project's scans, replayed in the order in which they came."""

    project: str
    base: str | None
    settings: Settings
    read: _Read

    def build(self, lake: duckdb.DuckDBPyConnection, kept: list[_Kept]) -> dict[str, int]:
        """Replace the project's scans, findings and history, within a transaction."""
        recorded = list(self._recorded(lake))
        known = {(one.run_id, one.step, one.report_sha256) for one in recorded}
        lost = [one for one in kept if (one.run.info.id, one.step, one.digest) not in known]
        scans = sorted([*recorded, *filter(None, map(self._found, lost))], key=lambda one: one.scanned_at)
        held = {one: _held(lake, one) for one in scans if self._result(one) is None}
        for table in _SCANNED:
            lake.execute(f"DELETE FROM {table} WHERE project = ?", [self.project])
        findings = 0
        for scan in scans:
            found, errors = (held[scan], ()) if scan in held else self._result(scan) or ([], ())
            base = scan.base_branch or self.base
            insert_scan(lake, ScanReport(scan=scan, findings=found, errors=errors, base_branch=base))
            findings += len(found)
        missing = [one for one in held if _has_report(one)]
        return {"scans": len(scans), "findings": findings, "missing": len(missing)}

    def _recorded(self, lake: duckdb.DuckDBPyConnection) -> Iterator[Scan]:
        names = [one.name for one in attrs.fields(Scan)]
        columns = ", ".join(names)
        for row in lake.execute(f"SELECT {columns} FROM scans WHERE project = ?", [self.project]).fetchall():
            values = dict(zip(names, row, strict=True))
            yield Scan(**values | {"roots": None if values["roots"] is None else tuple(values["roots"])})

    def _found(self, kept: _Kept) -> Scan | None:
        """The scan of a report that only the state database still knows of."""
        info, at = kept.run.info, kept.run.finished_at or kept.run.queued_at
        report = self._parsed(kept.digest, kept.step, self._roots(info.id, kept.step))
        if report is None or not report.runs:
            return None
        first, counts = report.runs[0], report.summary
        return Scan(
            **_scanned(info.commit, info.branch, info.committed_at or at, at),
            project=self.project,
            run_id=info.id,
            step=kept.step,
            tool=first.tool,
            category=kept.step,
            state="succeeded",
            results=counts.results,
            findings=counts.findings,
            not_findings=counts.not_findings,
            quarantined=counts.quarantined,
            report_sha256=kept.digest,
            author=info.author,
        )

    def _roots(self, run_id: str, step: str) -> tuple[str, ...]:
        folder = self.settings.home / "workspaces" / run_id
        return (WORKSPACE, str(folder / step), str(folder))

    def _imported(self, scan: Scan) -> ScanReport | None:
        """An imported scan as its report gives it: by the category that was said then, or by the report's own."""
        same = ("project", "commit", "branch", "committed_at", "author", "tool", "base_branch")
        about = About(**{name: getattr(scan, name) for name in same}, roots=scan.roots or ())
        for category in dict.fromkeys((scan.category or None, None)):
            report = self._parsed(scan.report_sha256, category, about.roots)
            for one in imported_scans(report, scan.report_sha256, about) if report else ():
                if (one.scan.category, one.scan.findings) == (scan.category, scan.findings):
                    return one
        return None

    def _parsed(self, digest: str, category: str | None, roots: tuple[str, ...]) -> Report | None:
        data = self.read(digest)
        if data is None:
            return None
        try:
            return read_report(data, scope=Scope(repository=self.project, category=category, roots=roots))
        except ReportError:
            return None

    def _result(self, scan: Scan) -> tuple[Sequence[Finding] | pa.Table, tuple[IngestError, ...]] | None:
        """What the archived report says; None where there is none."""
        if not _has_report(scan):
            return None
        if scan.run_id.startswith(IMPORTED):
            imported = self._imported(scan)
            return (imported.findings, imported.errors) if imported else None
        report = self._parsed(scan.report_sha256, scan.category, self._roots(scan.run_id, scan.step))
        if report is None:
            return None
        of: Mapping[str, Any] = {"project": scan.project, "commit": scan.commit, "run_id": scan.run_id}
        errors = tuple(
            IngestError(
                **of,
                step=scan.step,
                source=scan.tool,
                message=broken.reason,
                report_sha256=scan.report_sha256,
                location=f"run {broken.run}, result {broken.index}",
                occurred_at=scan.scanned_at,
            )
            for broken in report.quarantined
        )
        return [one for one in report.findings if one.tool == scan.tool], errors


def _has_report(scan: Scan) -> bool:
    # `roots` is known of an imported scan exactly when its report was archived.
    is_archived = scan.roots is not None or not scan.run_id.startswith(IMPORTED)
    return scan.state == "succeeded" and scan.report_sha256 != EMPTY_SHA256 and is_archived


def _scanned(commit: str, branch: str, committed_at: datetime, scanned_at: datetime) -> dict[str, Any]:
    return {"commit": commit, "branch": branch, "committed_at": committed_at, "scanned_at": scanned_at}


def _held(lake: duckdb.DuckDBPyConnection, scan: Scan) -> pa.Table:
    """The findings that the table has of a scan, as they would be ingested."""
    from penstock.findings import FINDING_SCHEMA_NAMES

    columns = ", ".join(f'"{name}"' for name in FINDING_SCHEMA_NAMES)
    where = "project = ? AND commit = ? AND run_id = ? AND step = ? AND tool = ? AND category = ?"
    about = [scan.project, scan.commit, scan.run_id, scan.step, scan.tool, scan.category]
    return lake.execute(f"SELECT {columns} FROM findings WHERE {where}", about).to_arrow_table()
