"""
Plausible history of two projects over twelve weeks, the same at every call but for the day on which it ends.

It is written where Penstock itself writes it: state tables, log files, the warehouse through `Warehouse`.
"""

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import msgspec
import sqlalchemy as sa

from penstock.deploy.plan import ServiceConfiguration
from penstock.findings import Finding
from penstock.pipeline.log import FileLog, log_path
from penstock.settings import Settings
from penstock.state import tables
from penstock.warehouse import (
    Commit,
    Release,
    Run,
    Scan,
    ScanReport,
    Step,
    TestResult,
    Warehouse,
)
from penstock.warehouse.home import warehouse_location

AUTHORS = ("Ada Moreno", "Kofi Asante", "Lin Wei", "Sara Lind")
TITLES = (
    "Show the price with tax",
    "Round cents once, at the end",
    "Import orders from the old system",
    "Keep the basket for a week",
    "Send the receipt as HTML too",
    "Search by article number",
    "Let customers change their address",
    "Log slow queries",
    "Pay by invoice",
    "Tidy up the checkout",
)
WEAKNESSES = (
    ("B608", "high", "Possible SQL injection through string-based query construction.", "shop/orders.py", "CWE-89"),
    ("B602", "high", "subprocess call with shell=True identified, security issue.", "shop/export.py", "CWE-78"),
    ("B324", "medium", "Use of weak MD5 hash for security.", "shop/customers.py", "CWE-327"),
    ("B104", "medium", "Possible binding to all interfaces.", "shop/server.py", "CWE-605"),
    ("B311", "low", "Standard pseudo-random generators are not suitable for this.", "shop/codes.py", "CWE-330"),
    ("B110", "low", "Try, Except, Pass detected.", "shop/mail.py", "CWE-703"),
    ("B105", "info", "Possible hardcoded password: 'changeme'", "shop/settings.py", "CWE-259"),
    ("B301", "critical", "Pickle of data that came over the network.", "shop/sessions.py", "CWE-502"),
)
STEPS = (
    ("test", "step.shell_exec", "test", 14.0),
    ("build", "step.shell_exec", "build", 6.0),
    ("sast", "step.scan_sast", "scan", 9.0),
    ("deploy", "step.deploy", "deploy", 4.0),
)
HOSTILE_TITLE = 'Escape <script>alert("x")</script> and <b>tags</b> & *stars*'


@attrs.frozen
class Known:
    """What tests look for."""

    failed_run: str
    running_run: str
    live_release: int
    introduced_fingerprint: str


def digest(*words: object) -> str:
    """64 hexadecimal digits that depend on the words alone."""
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()


def write_history(settings: Settings, database: sa.Engine, *, now: datetime | None = None, commits: int = 14) -> Known:
    """Write two projects' history that ends at `now`. One run has failed in a test, one is running."""
    now = now or datetime.now(UTC)
    known = [_Project(settings, database, name, now, commits).write() for name in ("billing", "shop")]
    return known[1]


def weakness(project: str, number: int) -> Finding:
    """The finding of that number."""
    rule, severity, message, path, cwe = WEAKNESSES[number % len(WEAKNESSES)]
    return Finding(
        tool="bandit",
        category="sast",
        tool_version="1.8.6",
        rule_id=rule,
        severity=severity,
        severity_source="level",
        message=message,
        path=path.replace("shop/", f"{project}/"),
        line=12 + 7 * number,
        cwe=(cwe,),
        snippet=f'    rows = connection.execute(f"SELECT * FROM orders WHERE id = {{{number}}}")\n',
        help_uri=f"https://bandit.readthedocs.io/en/1.8.6/plugins/{rule.lower()}.html",
        fingerprint=digest(project, "finding", number)[:32],
    )


class _Project:
    def __init__(self, settings: Settings, database: sa.Engine, name: str, now: datetime, commits: int) -> None:
        self.settings, self.database, self.name, self.now, self.commits = settings, database, name, now, commits
        self.random = random.Random(name)
        self.release = 0
        self.items: list[Any] = []
        self.releases: list[Release] = []

    def write(self) -> Known:
        with self.database.begin() as connection:
            row = {"name": self.name, "url": f"https://git.example/{self.name}.git", "default_branch": "main"}
            connection.execute(sa.insert(tables.projects).values(row))
        for number in range(1, self.commits + 1):
            self._commit(number)
        with Warehouse(warehouse_location(self.settings)) as warehouse:
            warehouse.record(*self.items, *self.releases)
        self._write_releases()
        return Known(
            failed_run=self._run_id(self.commits - 1),
            running_run=self._run_id(self.commits),
            live_release=self.release,
            introduced_fingerprint=weakness(self.name, 7).fingerprint,
        )

    def _at(self, number: int) -> datetime:
        age = (self.commits - number) * timedelta(weeks=12) / self.commits
        return self.now - age - timedelta(seconds=40)

    def _run_id(self, number: int) -> str:
        return digest(self.name, "run", number)[:32]

    def _state(self, number: int) -> str:
        if number == self.commits and self.name == "shop":
            return "running"
        if number == self.commits - 1 or number % 9 == 4:
            return "failed"
        return "succeeded"

    def _commit(self, number: int) -> None:
        state, at, commit = self._state(number), self._at(number), digest(self.name, number)[:40]
        hostile = number == self.commits - 2
        title = HOSTILE_TITLE if hostile else TITLES[number % len(TITLES)]
        of = {"project": self.name, "commit": commit, "run_id": self._run_id(number)}
        author = AUTHORS[number % len(AUTHORS)]
        steps = list(self._steps(of, state, at))
        finished = None if state == "running" else max(step.finished_at or at for step in steps)
        reason = "test: 1 of 12 tests failed: test_checkout::test_total_is_rounded_once" if state == "failed" else None
        run = Run(
            **of,
            state=state,
            ref="refs/heads/main",
            trigger="push",
            event="push",
            author=author,
            reason=reason,
            queued_at=at,
            started_at=at,
            finished_at=finished,
            duration_s=(finished - at).total_seconds() if finished else None,
            graph_hash=digest("graph"),
            structure_hash=digest("structure"),
        )
        self._write_state(run, steps, title, at)
        self._write_logs(steps)
        if state == "running":
            return
        message = f"{title}\n\nas the customers asked"
        self.items += [
            Commit(project=self.name, commit=commit, ref=run.ref, author=author, message=message, committed_at=at)
        ]
        self.items += [run, *steps, *self._tests(of, state, at), *self._scans(of, number, at, author)]
        if state == "succeeded":
            self._release(of, at + timedelta(seconds=30))

    def _steps(self, of: dict[str, str], state: str, at: datetime) -> Iterator[Step]:
        begins = at + timedelta(seconds=0.3)
        for name, kind, short, typical_s in STEPS:
            seconds = typical_s * self.random.uniform(0.8, 1.4)
            step_state, ends = "succeeded", begins + timedelta(seconds=seconds)
            if state == "failed":
                step_state = "failed" if name == "test" else "skipped" if name == "deploy" else "succeeded"
            if state == "running":
                step_state = {"test": "succeeded", "build": "succeeded", "sast": "running"}.get(name, "queued")
            began = step_state not in ("skipped", "queued")
            yield Step(
                **of,
                step=name,
                type=kind,
                kind=short,
                state=step_state,
                reason=_why(step_state),
                queued_at=at,
                started_at=begins if began else None,
                finished_at=None if step_state in ("running", "queued") else ends,
                seconds=seconds if began else None,
                exit_code=1 if step_state == "failed" else 0 if step_state == "succeeded" else None,
            )
            if name != "build":
                begins = ends

    def _tests(self, of: dict[str, str], state: str, at: datetime) -> Iterator[TestResult]:
        for index, name in enumerate(("total_is_rounded_once", "empty_basket", "tax_by_country", "big_order")):
            failed = state == "failed" and index == 0
            yield TestResult(
                **of,
                step="test",
                suite="test_checkout",
                name=f"test_{name}",
                state="failed" if failed else "passed",
                seconds=(0.02 + index * 0.4) * self.random.uniform(0.8, 1.3),
                message="assert Decimal('9.99') == Decimal('10.00')" if failed else None,
                file="tests/test_checkout.py",
                finished_at=at + timedelta(seconds=14),
            )

    def _scans(self, of: dict[str, str], number: int, at: datetime, author: str) -> Iterator[ScanReport]:
        found = [weakness(self.name, each) for each in self._present(number)]
        scan = Scan(
            **of,
            branch="main",
            step="sast",
            tool="bandit",
            category="sast",
            state="succeeded",
            tool_version="1.8.6",
            results=len(found),
            findings=len(found),
            committed_at=at,
            scanned_at=at + timedelta(seconds=20),
            report_sha256=digest(self.name, "report", number),
            author=author,
        )
        yield ScanReport(scan=scan, findings=found)

    def _present(self, number: int) -> list[int]:
        """Weaknesses of a commit: some from the first scan on, others come and some of them go again."""
        some = [each for each in range(5) if number < 4 + 4 * each]
        later = [5 + each for each in range(14) if 2 + each <= number < 9 + each * 3]
        new = [7] if number >= self.commits - 1 else []
        return sorted({each for each in some + later if each != 7} | set(new))

    def _release(self, of: dict[str, str], at: datetime) -> None:
        self.release += 1
        if self.releases:
            self.releases[-1] = attrs.evolve(self.releases[-1], state="superseded", ended_at=at)
        self.releases.append(
            Release(
                project=self.name,
                environment="production",
                service="web",
                number=self.release,
                commit=of["commit"],
                run_id=of["run_id"],
                state="live",
                artifact_digest=digest(of["commit"]),
                graph_hash=digest("graph"),
                created_at=at,
                live_at=at + timedelta(seconds=3),
            )
        )

    def _write_state(self, run: Run, steps: list[Step], title: str, at: datetime) -> None:
        own = ("project", "commit", "ref", "trigger", "author", "graph_hash", "structure_hash", "state", "reason")
        times = ("queued_at", "started_at", "finished_at")
        row = {name: getattr(run, name) for name in (*own, *times)}
        row |= {"id": run.run_id, "title": title, "committed_at": at, "graph": {}, "ingested_at": run.finished_at}
        of_step = ("run_id", "step", "type", "state", "reason", "exit_code", *times)
        produced = {"text": "", "outputs": {}}
        with self.database.begin() as connection:
            connection.execute(sa.insert(tables.runs).values(row))
            rows = [{name: getattr(step, name) for name in of_step} | {"produced": produced} for step in steps]
            connection.execute(sa.insert(tables.steps), rows)

    def _write_releases(self) -> None:
        same = ("project", "environment", "service", "number", "commit", "run_id", "graph_hash", "state", "created_at")
        configuration = msgspec.to_builtins(ServiceConfiguration(command="python -m shop"))
        ids = [digest(self.name, "release", each.number)[:16] for each in self.releases]
        port = self.settings.ports["apps"] + (self.name == "shop")
        with self.database.begin() as connection:
            for own, each in zip(ids, self.releases, strict=True):
                row = {name: getattr(each, name) for name in (*same, "live_at", "ended_at")}
                row |= {"id": own, "digest": each.artifact_digest, "configuration": configuration}
                connection.execute(sa.insert(tables.releases).values(row))
            route = {"environment": "production", "project": self.name, "service": "web", "port": port}
            connection.execute(sa.insert(tables.routes).values(**route, release_id=ids[-1]))

    def _write_logs(self, steps: list[Step]) -> None:
        for step in steps:
            if step.started_at is None:
                continue
            with FileLog(log_path(self.settings.home, step.run_id, step.step)) as log:
                log.line(f"{step.step} begins")
                log.output(b"".join(b"tests/test_checkout.py line %d \x1b[32mok\x1b[0m\n" % each for each in range(40)))
                log.output(b"<img src=x onerror=alert(1)> is only text\n")


def _why(state: str) -> str | None:
    reasons = {
        "failed": "1 of 12 tests failed: test_checkout::test_total_is_rounded_once",
        "skipped": "a step that it needs did not succeed",
    }
    return reasons.get(state)
