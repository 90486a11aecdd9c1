"""
Write to the warehouse: each call is one transaction, and writing the same thing twice is writing it once.

DuckLake has no unique keys, so "once" needs writers that take turns: a transaction-level advisory lock in the
catalog's PostgreSQL, held for one ingest, released by the server when the writer dies. Measured with four writers on
two cores: with the lock 6.7 ingests a second and no conflict, without it 4.5 and some twenty conflicts each.
"""

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from penstock.errors import InputError, PlatformError
from penstock.warehouse.connect import Location, connect, redact
from penstock.warehouse.lifecycle import CommitBefore, record_events
from penstock.warehouse.rows import (
    Artifact,
    Commit,
    IngestError,
    ListedComponent,
    PluginMetric,
    Release,
    Row,
    Run,
    Sbom,
    Scan,
    Step,
    TestResult,
    last_of_each_key,
    to_table,
)
from penstock.warehouse.schema import ensure_schema

if TYPE_CHECKING:
    from penstock.findings.finding import Finding

T = TypeVar("T")

LOCK_CLASS = 1_348_825_940  # the first half of every advisory lock of a warehouse; the schema's name is the other
LOCK_TIMEOUT = timedelta(seconds=120)
ATTEMPTS = 8

_CONFLICTS = ("conflict", "could not serialize", "deadlock detected", "duplicate key", "maximum retry")
_LOST = ("connection", "terminating", "server closed", "shutting down", "starting up")


@frozen(kw_only=True)
class ScanReport:
    """
    A scan with what it found.

    findings: of this tool and category only, as values or as the Arrow table of `penstock.findings.to_arrow`.
    errors: what was quarantined.
    base_branch: where the branch will be merged; what is open there is not introduced here.
    """

    scan: Scan
    findings: "Sequence[Finding] | pa.Table" = ()
    errors: tuple[IngestError, ...] = ()
    base_branch: str | None = None


@frozen(kw_only=True)
class ComponentList:
    """A list of components with what it lists; all of the list's commit, step and source."""

    sbom: Sbom
    components: "Sequence[ListedComponent]" = ()
    errors: tuple[IngestError, ...] = ()


class Warehouse:
    """
    A writer. Opens on first use; threads may share it; a fork waits for its turn to end and closes it, so that both
    processes open it again. Close it, or use it in `with`.

    Every method raises PlatformError when the catalog stays away or others keep it busy for too long. What was
    acknowledged (the method returned) is on disk; what was not is invisible.
    """

    def __init__(self, location: Location, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.location = location
        self._sleep = sleep
        self._guard = threading.RLock()
        self._lake: duckdb.DuckDBPyConnection | None = None
        self._catalog: psycopg.Connection | None = None
        _close_at_fork(self)

    def __enter__(self) -> "Warehouse":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both connections; using the writer again opens them again."""
        with self._guard:
            for each in (self._lake, self._catalog):
                if each is not None:
                    with suppress(duckdb.Error, psycopg.Error):
                        each.close()
            self._lake = self._catalog = None

    def before_fork(self) -> None:
        """Keep other threads out and close: a child has none of the threads of DuckDB that its exit would wait for."""
        self._guard.acquire()
        self.close()

    def after_fork(self, *, is_child: bool) -> None:
        """Let others in again; the child gets a lock of its own, since it has none of the threads that wait for it."""
        if is_child:
            self._guard = threading.RLock()
        else:
            self._guard.release()

    def create(self) -> None:
        """Make the lake and its tables, or bring them up to date, so that readers find them."""
        self.write(lambda _: None)

    def record(self, *items: Row | ScanReport | ComponentList) -> None:
        """Rows, scans and lists of any kinds, in one transaction. A row replaces the one with its key."""
        self.write(lambda lake: _insert_all(lake, items))

    def record_commit(self, commit: Commit) -> None:
        """One row in `commits`."""
        self.record(commit)

    def record_run(self, run: Run, steps: Sequence[Step] = ()) -> None:
        """One row in `runs`, with its steps when they are known."""
        self.record(run, *steps)

    def record_steps(self, steps: Sequence[Step]) -> None:
        """One row each in `steps`."""
        self.record(*steps)

    def record_tests(self, results: Sequence[TestResult]) -> None:
        """One row each in `test_results`; results of the same step of the same run are replaced."""
        self.record(*results)

    def record_release(self, release: Release) -> None:
        """One row in `releases`."""
        self.record(release)

    def record_artifacts(self, artifacts: Sequence[Artifact]) -> None:
        """One row each in `artifacts`."""
        self.record(*artifacts)

    def record_metrics(self, metrics: Sequence[PluginMetric]) -> None:
        """One row each in `plugin_metrics`; metrics of the same plugin in the same step of a run are replaced."""
        self.record(*metrics)

    def record_scan(
        self,
        scan: Scan,
        findings: "Sequence[Finding] | pa.Table" = (),
        *,
        errors: Sequence[IngestError] = (),
        base_branch: str | None = None,
    ) -> bool:
        """
        A scan, its findings, and what they change in the history of the branch.

        Returns: False when this report of this step was recorded before; nothing is written then.
        Raises: InputError when the findings are of another tool or category, or a failed scan brings some.
        """
        report = ScanReport(scan=scan, findings=findings, errors=tuple(errors), base_branch=base_branch)
        return self.write(lambda lake: insert_scan(lake, report))

    def write(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """
        Run `work` in one transaction of the lake, alone among writers; again from the start after a conflict or a lost
        connection, so it must have no effects elsewhere.
        """
        return self.alone(lambda lake: _in_transaction(lake, work))

    def alone(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """As `write`, for work that makes its own transactions (maintenance)."""
        with self._guard:
            for attempt in range(ATTEMPTS):
                try:
                    with self._turn() as lake:
                        return work(lake)
                except (duckdb.Error, psycopg.Error) as error:
                    self._recover(error, last=attempt == ATTEMPTS - 1)
                self._sleep(random.uniform(0.5, 1.0) * min(0.05 * 2**attempt, 2.0))
        raise AssertionError("unreachable: the last attempt returns or raises")

    @contextmanager
    def _turn(self) -> Iterator[duckdb.DuckDBPyConnection]:
        catalog = self._open_catalog()
        with catalog.transaction():
            timeout_ms = int(LOCK_TIMEOUT.total_seconds() * 1000)
            catalog.execute(f"SET LOCAL lock_timeout = {timeout_ms}; SET LOCAL idle_in_transaction_session_timeout = 0")
            catalog.execute(
                "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK_CLASS, self.location.catalog_schema)
            )
            yield self._open_lake()

    def _open_catalog(self) -> psycopg.Connection:
        if self._catalog is None:
            self._catalog = psycopg.connect(self.location.catalog_url, autocommit=True, connect_timeout=10)
        return self._catalog

    def _open_lake(self) -> duckdb.DuckDBPyConnection:
        if self._lake is None:
            lake = connect(self.location)
            ensure_schema(lake)
            self._lake = lake
        return self._lake

    def _recover(self, error: duckdb.Error | psycopg.Error, *, last: bool) -> None:
        text = redact(str(error), self.location)
        if isinstance(error, psycopg.errors.LockNotAvailable):
            raise PlatformError(
                f"other writers kept the warehouse busy for {LOCK_TIMEOUT.total_seconds():.0f} s",
                remedy="see which process holds it (pg_locks), then try again",
            ) from None
        lost = isinstance(error, psycopg.OperationalError) or _mentions(text, _LOST)
        if last or not (lost or _mentions(text, _CONFLICTS)):
            raise PlatformError(f"the warehouse could not be written: {text}", remedy=_remedy(lost)) from None
        if lost:
            self.close()


def _close_at_fork(warehouse: Warehouse) -> None:
    known = weakref.ref(warehouse)

    def before() -> None:
        if found := known():
            found.before_fork()

    def after(is_child: bool) -> None:
        if found := known():
            found.after_fork(is_child=is_child)

    os.register_at_fork(before=before, after_in_parent=lambda: after(False), after_in_child=lambda: after(True))


def _remedy(lost: bool) -> str | None:
    return "see that PostgreSQL runs and PENSTOCK_DATABASE_URL is right" if lost else None


def _mentions(text: str, words: Sequence[str]) -> bool:
    return any(word in text.lower() for word in words)


def _in_transaction(lake: duckdb.DuckDBPyConnection, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    lake.execute("BEGIN")
    try:
        result = work(lake)
        lake.execute("COMMIT")
    except BaseException:
        # A failed COMMIT has already rolled back; saying so twice is an error in DuckDB.
        with suppress(duckdb.Error):
            lake.execute("ROLLBACK")
        raise
    return result


def _insert_all(lake: duckdb.DuckDBPyConnection, items: Sequence[Row | ScanReport | ComponentList]) -> None:
    kinds: dict[type[Row], list[Row]] = {}
    for item in items:
        if isinstance(item, ScanReport):
            insert_scan(lake, item)
        elif isinstance(item, ComponentList):
            insert_components(lake, item)
        else:
            kinds.setdefault(type(item), []).append(item)
    for rows in kinds.values():
        replace_rows(lake, rows)


def replace_rows(lake: duckdb.DuckDBPyConnection, rows: Sequence[Row]) -> None:
    """Rows of one kind, at least one, in the place of those with their keys; within a transaction."""
    table, key = rows[0].TABLE, rows[0].KEY
    same = " AND ".join(f"{table}.{name} IS NOT DISTINCT FROM incoming_rows.{name}" for name in key)
    # Constants let DuckLake leave out the files that cannot match: 3 ms instead of 12.
    first = sorted({getattr(row, key[0]) for row in rows})[:50]
    marks = ", ".join("?" * len(first))
    narrow = f"{table}.{key[0]} IN ({marks}) AND" if len(first) < 50 else ""
    with _registered(lake, "incoming_rows", to_table(last_of_each_key(rows))):
        lake.execute(
            f"DELETE FROM {table} WHERE {narrow} EXISTS (SELECT 1 FROM incoming_rows WHERE {same})",
            first if narrow else [],
        )
        lake.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming_rows")


def insert_components(lake: duckdb.DuckDBPyConnection, listed: ComponentList) -> None:
    """A list in the place of an earlier one of its commit, step and source; within a transaction."""
    replace_rows(lake, [listed.sbom])
    key = {name: getattr(listed.sbom, name) for name in ListedComponent.KEY}
    lake.execute(f"DELETE FROM components WHERE {' AND '.join(f'{name} = ${name}' for name in key)}", key)
    if listed.components:
        with _registered(lake, "incoming_rows", to_table(listed.components)):
            lake.execute("INSERT INTO components BY NAME SELECT * FROM incoming_rows ORDER BY name")
    if listed.errors:
        replace_rows(lake, listed.errors)


def insert_scan(lake: duckdb.DuckDBPyConnection, report: ScanReport) -> bool:
    """What `Warehouse.record_scan` does within its transaction."""
    scan, findings = report.scan, _checked(report)
    earlier = _earlier_scans(lake, scan, report.base_branch)
    if earlier.is_known:
        return False
    if scan.state == "succeeded":
        record_events(
            lake,
            scan,
            findings,
            before=earlier.before,
            base_branch=report.base_branch,
            base_was_scanned=earlier.of_base,
        )
    if earlier.is_replaced and scan.state == "succeeded":
        lake.execute(
            "DELETE FROM findings WHERE project = ? AND commit = ? AND tool = ? AND category = ?",
            [scan.project, scan.commit, scan.tool, scan.category],
        )
    with _registered(lake, "incoming_rows", to_table([scan])):
        lake.execute("INSERT INTO scans BY NAME SELECT * FROM incoming_rows")
    if findings.num_rows:
        _insert_findings(lake, scan, findings)
    if report.errors:
        replace_rows(lake, report.errors)
    return True


@frozen
class _Earlier:
    is_known: bool
    is_replaced: bool
    before: CommitBefore | None
    of_base: bool


def _earlier_scans(lake: duckdb.DuckDBPyConnection, scan: Scan, base: str | None) -> _Earlier:
    """
    Whether this very report is there, whether its commit was scanned with success, the newest such commit, and whether
    a commit of the base, no newer than this one, was.
    """
    same = " AND ".join(f"{name} = ${name}" for name in Scan.KEY)
    here = "branch = $branch AND state = 'succeeded'"
    row = lake.execute(
        f"""
        SELECT
            count(*) FILTER ({same}) > 0,
            count(*) FILTER (state = 'succeeded' AND commit = $commit) > 0,
            arg_max(commit, (committed_at, scanned_at)) FILTER ({here}),
            max(committed_at) FILTER ({here}),
            count(*) FILTER (
                state = 'succeeded' AND branch = $base AND branch <> $branch AND committed_at <= $committed_at
            ) > 0
        FROM scans WHERE project = $project AND tool = $tool AND category = $category
        """,
        {name: getattr(scan, name) for name in {*Scan.KEY, "project", "commit", "branch", "committed_at"}}
        | {"base": base},
    ).fetchone()
    assert row is not None  # an aggregate without GROUP BY
    known, replaced, commit, committed_at, of_base = row
    return _Earlier(known, replaced, CommitBefore(commit, committed_at) if commit else None, of_base)


def _insert_findings(lake: duckdb.DuckDBPyConnection, scan: Scan, findings: pa.Table) -> None:
    context = ("project", "commit", "run_id", "step", "scanned_at")
    columns = ", ".join(f"${name} AS {name}" for name in context)
    with _registered(lake, "incoming_findings", findings):
        lake.execute(
            f"INSERT INTO findings BY NAME SELECT {columns}, * FROM incoming_findings",
            {name: getattr(scan, name) for name in context},
        )


def _checked(report: ScanReport) -> pa.Table:
    scan, findings = report.scan, _arrow(report.findings)
    if scan.state != "succeeded" and findings.num_rows:
        raise InputError("a failed scan brings no findings", where=f"{scan.project} {scan.step}")
    for name in ("tool", "category"):
        strange = [value for value in pc.unique(findings[name]).to_pylist() if value != getattr(scan, name)]
        if strange:
            raise InputError(
                f'findings of {name} "{strange[0]}" in a scan of "{getattr(scan, name)}"',
                where=f"{scan.project} {scan.step}",
                remedy="record one scan per tool and category",
            )
    return findings


def _arrow(findings: "Sequence[Finding] | pa.Table") -> pa.Table:
    if isinstance(findings, pa.Table):
        return findings
    from penstock.findings.table import to_arrow

    return to_arrow(findings)


@contextmanager
def _registered(lake: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> Iterator[None]:
    lake.register(name, table)
    try:
        yield
    finally:
        lake.unregister(name)
