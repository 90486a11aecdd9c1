"""From runs to the warehouse: what the state database and the steps know, as rows for questions."""

import functools
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import attrs
import sqlalchemy as sa

from penstock import warehouse
from penstock.deploy.recording import newest_rows
from penstock.errors import PlatformError
from penstock.pipeline import records
from penstock.pipeline.approval_rows import read_requests
from penstock.pipeline.log import utc_now
from penstock.pipeline.spec import StepFields
from penstock.settings import Settings
from penstock.state.people_tables import approval_requests
from penstock.state.tables import projects, runs
from penstock.steps import step_types
from penstock.steps.context import BillOutcome, RunInfo, ScanOutcome, StepResult
from penstock.warehouse.home import warehouse_location
from penstock.warehouse.rows import Row

_log = logging.getLogger(__name__)

Item = Row | warehouse.ScanReport | warehouse.ComponentList


@attrs.frozen(slots=False)
class Ingest:
    """Writes to the warehouse; opened when first used."""

    settings: Settings
    database: sa.Engine

    @functools.cached_property
    def _warehouse(self) -> warehouse.Warehouse:
        return warehouse.Warehouse(warehouse_location(self.settings))

    def step(self, info: RunInfo, config: StepFields, result: StepResult) -> None:
        """
        Bring a step's findings, components, images, tests and coverage in, in one transaction.

        Raises: PlatformError when the warehouse cannot take them.
        """
        rows: list[Item] = [*self._scans(info, config, result), *_tests(info, config, result)]
        rows += [component_list(info, config.name, one, utc_now()) for one in result.bills]
        rows += [*_images(info, config.name, result), *_coverage(info, config.name, result)]
        if rows:
            self._warehouse.record(*rows)

    def run(self, run_id: str) -> bool:
        """
        Bring a finished run in: its commit, steps and artifacts. Returns: False when it has to be tried again.
        """
        run = records.load_run(self.database, run_id)
        try:
            self._warehouse.record(*self._run_rows(run))
        except PlatformError as error:
            _log.warning("run %s is not in the warehouse yet: %s", run_id, error)
            return False
        with self.database.begin() as connection:
            connection.execute(sa.update(runs).where(runs.c.id == run_id).values(ingested_at=sa.func.now()))
        return True

    def told(self) -> None:
        """Bring in what plugins have told, where no platform's thread does it; what is left waits for the next time."""
        from penstock.plugins.data.mover import Mover

        try:
            Mover(self.database, self._warehouse).move_all()
        except PlatformError as error:
            _log.warning("what plugins told is not in the warehouse yet: %s", error)

    def left_behind(self) -> int:
        """Bring in every finished run that is not there yet. Returns: how many were brought in."""
        wanted = sa.select(runs.c.id).where(runs.c.ingested_at.is_(None), runs.c.finished_at.is_not(None))
        with self.database.connect() as connection:
            waiting = connection.execute(wanted.order_by(runs.c.finished_at)).scalars().all()
        return sum(self.run(run_id) for run_id in waiting)

    def base_branch(self, project: str) -> str | None:
        """The branch that a project's other branches are merged into; None when the project is unknown."""
        wanted = sa.select(projects.c.default_branch).where(projects.c.name == project)
        with self.database.connect() as connection:
            return connection.execute(wanted).scalar()

    def _scans(self, info: RunInfo, config: StepFields, result: StepResult) -> Iterator[warehouse.ScanReport]:
        base = self.base_branch(info.project) if result.scans else None
        for outcome in result.scans:
            yield _scan_report(info, config.name, outcome, base)

    def _run_rows(self, run: records.RunRecord) -> Iterator[Item]:
        info = run.info
        at: dict[str, Any] = {"queued_at": run.queued_at, "started_at": run.started_at, "finished_at": run.finished_at}
        of: dict[str, Any] = {"run_id": info.id, "project": info.project, "commit": info.commit}
        yield warehouse.Commit(
            project=info.project,
            commit=info.commit,
            ref=info.ref,
            author=info.author,
            message=info.title,
            committed_at=info.committed_at,
        )
        yield warehouse.Run(
            **of,
            **at,
            state=run.state,
            ref=info.ref,
            event=info.trigger,
            trigger=info.trigger,
            author=info.author,
            reason=run.reason,
            duration_s=run.seconds,
            graph_hash=info.graph_hash,
            structure_hash=info.structure_hash,
        )
        yield from newest_rows(self.database, info.project)
        yield from self._approvals(info)
        for step in records.list_steps(self.database, info.id):
            yield _step_row(step, of)
        for step_name, made in records.artifacts_by_step(self.database, info.id):
            yield warehouse.Artifact(
                **of,
                step=step_name,
                name=made.key,
                digest=made.digest,
                size_bytes=made.size_bytes,
                created_at=run.finished_at,
            )

    def _approvals(self, info: RunInfo) -> Iterator[warehouse.Approval]:
        """Everything that was said about the commit's gates, in whatever run they asked."""
        of_commit = (approval_requests.c.project == info.project, approval_requests.c.commit == info.commit)
        with self.database.connect() as connection:
            for request in read_requests(connection, *of_commit):
                same = ("project", "commit", "run_id", "step", "graph_hash", "digest", "author", "asked_at")
                values = {name: getattr(request, name) for name in same}
                for number, said in enumerate(request.answers, start=1):
                    told: dict[str, Any] = {
                        "decision": said.decision,
                        "why": said.why,
                        "how": said.how,
                        "answered_at": said.at,
                    }
                    yield warehouse.Approval(
                        request=request.id, number=number, person=said.person or None, **values, **told
                    )


def _step_row(step: records.StepRecord, of: dict[str, Any]) -> warehouse.Step:
    same = ("step", "state", "attempt", "type", "reason", "queued_at", "started_at", "finished_at", "seconds")
    more = ("exit_code", "reused_from", "cpu_s", "memory_peak_bytes")
    values = {name: getattr(step, name) for name in (*same, *more)}
    return warehouse.Step(**of, kind=step_types()[step.type].kind, **values)


def _scan_report(info: RunInfo, step: str, outcome: ScanOutcome, base: str | None) -> warehouse.ScanReport:
    of: dict[str, Any] = {"project": info.project, "commit": info.commit, "run_id": info.id, "step": step}
    summary = outcome.report.summary if outcome.report else None
    scan = warehouse.Scan(
        **of,
        branch=info.branch,
        tool=outcome.tool,
        category=outcome.category,
        state="succeeded" if outcome.report else "failed",
        reason=outcome.failure,
        committed_at=info.committed_at or utc_now(),
        scanned_at=utc_now(),
        results=summary.results if summary else 0,
        findings=summary.findings if summary else 0,
        not_findings=summary.not_findings if summary else 0,
        quarantined=summary.quarantined if summary else 0,
        report_sha256=outcome.report_digest or warehouse.EMPTY_SHA256,
        author=info.author,
    )
    if outcome.report is None:
        return warehouse.ScanReport(scan=scan, base_branch=base)
    errors = tuple(
        warehouse.IngestError(
            **of,
            source=outcome.tool,
            message=broken.reason,
            report_sha256=outcome.report_digest,
            location=f"run {broken.run}, result {broken.index}",
            occurred_at=utc_now(),
        )
        for broken in outcome.report.quarantined
    )
    return warehouse.ScanReport(scan=scan, findings=outcome.report.findings, errors=errors, base_branch=base)


def component_list(info: RunInfo, step: str, found: BillOutcome, listed_at: datetime) -> warehouse.ComponentList:
    """A list of components as rows of a run's step."""
    of: dict[str, Any] = {"project": info.project, "commit": info.commit, "run_id": info.id, "step": step}
    bill = found.bill
    about: dict[str, Any] = {"source": found.source, "image_digest": bill.image_digest, "listed_at": listed_at}
    sbom = warehouse.Sbom(
        **of,
        **about,
        branch=info.branch,
        tool=bill.tool,
        components=len(bill.components),
        quarantined=bill.broken,
        report_sha256=found.report_digest,
        committed_at=info.committed_at or listed_at,
    )
    rows = [warehouse.ListedComponent(**of, **about, **attrs.asdict(one)) for one in bill.components]
    return warehouse.ComponentList(sbom=sbom, components=rows)


def _images(info: RunInfo, step: str, result: StepResult) -> Iterator[warehouse.Image]:
    of: dict[str, Any] = {"project": info.project, "commit": info.commit, "run_id": info.id, "step": step}
    for one in result.images:
        yield warehouse.Image(**of, **attrs.asdict(one), made_at=utc_now())


def _coverage(info: RunInfo, step: str, result: StepResult) -> Iterator[warehouse.Coverage]:
    of: dict[str, Any] = {"project": info.project, "commit": info.commit, "run_id": info.id, "step": step}
    for one in result.coverage:
        yield warehouse.Coverage(**of, **attrs.asdict(one), measured_at=utc_now())


def _tests(info: RunInfo, config: StepFields, result: StepResult) -> Iterator[warehouse.TestResult]:
    finished = utc_now()
    for case in result.tests:
        yield warehouse.TestResult(
            project=info.project,
            commit=info.commit,
            run_id=info.id,
            step=config.name,
            name=case.name,
            state=case.state,
            suite=case.suite,
            seconds=case.seconds,
            message=case.message,
            file=case.file,
            finished_at=finished,
        )
