"""
One made-up project: its commits, runs, steps, tests, scans, findings and releases, the same for the same seed.

It has what real ones have: tests that fail now and then for nothing, scanners that could not look or have not looked
for weeks, deployments that failed and were mended or taken back, and branches.
"""

import random
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs

from penstock.demo.lives import Fork, Life, Population, Scanned, about, digest
from penstock.demo.releasing import Releasing
from penstock.demo.words import ASPECTS, AUTHORS, BANDIT, GRYPE, NAMES, SEMGREP, TESTS, TITLES, TRIVY, Tool
from penstock.demo.work import Work
from penstock.warehouse.rows import EMPTY_SHA256, Artifact, Commit, Release, Row, Run, Scan, Step, TestResult

FLAKY, BROKEN, AWAY, BLIND = 0.05, 0.05, 0.015, 0.02
"""How often a run meets a flaky failure, code that is broken, no machine, and a scanner that could not look."""


@attrs.frozen
class Scale:
    """How much history. findings: open ones of an average project; commits_per_day: of an average project."""

    projects: int = 20
    days: int = 180
    seed: int = 1
    findings: int = 110
    commits_per_day: float = 2.5

    def names(self, prefix: str) -> list[str]:
        """Names of as many projects."""
        rounds = [f"-{at // len(NAMES) + 1}" if at >= len(NAMES) else "" for at in range(self.projects)]
        return [f"{prefix}{NAMES[at % len(NAMES)]}{rounds[at]}" for at in range(self.projects)]


@attrs.frozen
class Presence:
    """
    A scan that succeeded. number: on the default branch, which of its tool's scans it was; seen: on other branches, the
    findings that were there, each with whether it was suppressed.
    """

    scan: Scan
    number: int = -1
    seen: tuple[tuple[Life, bool], ...] = ()


@attrs.define
class History:
    """What a project has lived through. populations: findings by tool, of the default branch."""

    name: str
    rows: list[Row] = attrs.field(factory=list)
    runs: list[Run] = attrs.field(factory=list)
    steps: list[Step] = attrs.field(factory=list)
    titles: dict[str, str] = attrs.field(factory=dict)
    releases: list[Release] = attrs.field(factory=list)
    presences: list[Presence] = attrs.field(factory=list)
    forks: list[Fork] = attrs.field(factory=list)
    populations: dict[str, Population] = attrs.field(factory=dict)


def live(name: str, scale: Scale, until: datetime) -> History:
    """The history of the project `name` in the days before `until`."""
    return _Project(name, scale, until).live()


@attrs.frozen
class _Change:
    number: str
    at: datetime
    branch: str
    author: str
    commit: str
    run_id: str


class _Project:
    def __init__(self, name: str, scale: Scale, until: datetime) -> None:
        self.random = chance = random.Random(f"{scale.seed} {name}")
        self.name, self.scale, self.until = name, scale, until
        self.size = min(max(chance.lognormvariate(0, 0.6), 0.25), 3.0)
        self.history = History(name)
        self.tools = self._choose_tools()
        self.authors = chance.sample(AUTHORS, 4)
        self.tests = [(f"test_{chance.choice(TESTS)}_{n}", f"test_{aspect}") for n, aspect in enumerate(ASPECTS * 4)]
        self.flaky = chance.sample(self.tests, 3)
        self.stale_from = until - timedelta(days=24) if chance.random() < 0.15 else None
        self.releasing = Releasing(chance, name)
        self.is_broken = False

    def _choose_tools(self) -> list[Tool]:
        tools = [self.random.choice((BANDIT, SEMGREP)), TRIVY]
        tools += [GRYPE] if self.random.random() < 0.85 else []
        weight = sum(len(tool.rules) for tool in tools)
        for tool in tools:
            size = self.scale.findings * self.size * len(tool.rules) / weight
            self.history.populations[tool.name] = Population(self.random, self.name, tool, size)
        return tools

    def live(self) -> History:
        times = list(self._times())
        for number, at in enumerate(times):
            self._commit(self._change(f"m{number}", at, "main"))
            later = times[number + 1] if number + 1 < len(times) else self.until
            if self.random.random() < 0.04 and later - at > timedelta(minutes=50):
                self._branch(number, at, later)
        self.history.releases = self.releasing.made
        self.history.rows += [*self.history.runs, *self.history.steps, *self.history.releases]
        return self.history

    def _times(self) -> Iterator[datetime]:
        for day in range(self.scale.days, 0, -1):
            start = self.until - timedelta(days=day)
            mean = self.scale.commits_per_day * self.size * (0.15 if start.weekday() >= 5 else 1.3)
            hours = sorted(self.random.gauss(13.5, 2.6) for _ in range(about(self.random, mean)))
            yield from (start + timedelta(hours=min(max(hour, 5), 22)) for hour in hours)

    def _change(self, number: str, at: datetime, branch: str) -> _Change:
        words = (self.scale.seed, self.name, number)
        author = self.random.choice(self.authors)
        return _Change(number, at, branch, author, digest(*words, "commit")[:40], digest(*words, "run")[:32])

    def _branch(self, number: int, at: datetime, later: datetime) -> None:
        """Two commits on a branch of their own, before the next one on the default branch."""
        gap = later - at
        first = self._change(f"b{number}", at + gap * 0.25, f"feature/{number}")
        second = self._change(f"c{number}", at + gap * 0.6, first.branch)
        looking = [tool for tool in self._looking(at) if self._population(tool).scans]
        forks = {tool.name: self._population(tool).fork(self._scanned(first), self._brought()) for tool in looking}
        self._commit(first, forks)
        for fork in forks.values():
            fork.mend(self._scanned(second), self.random)
        self._commit(second, forks)
        self.history.forks += forks.values()

    def _brought(self) -> int:
        return self.random.choice((0, 0, 1, 1, 2, 3))

    def _population(self, tool: Tool) -> Population:
        return self.history.populations[tool.name]

    def _looking(self, at: datetime) -> list[Tool]:
        """The scanners that looked at that time: in some projects one has stopped for weeks."""
        return [tool for tool in self.tools if not (self.stale_from and tool is TRIVY and at > self.stale_from)]

    def _scanned(self, change: _Change) -> Scanned:
        return Scanned(change.commit, change.at, change.author, change.run_id, change.branch)

    def _commit(self, change: _Change, forks: Mapping[str, Fork] | None = None) -> None:
        title = self.random.choice(TITLES)
        of: dict[str, Any] = {"project": self.name, "commit": change.commit, "ref": f"refs/heads/{change.branch}"}
        message = f"{title}\n\nGenerated, like everything of this project."
        self.history.rows.append(Commit(**of, author=change.author, message=message, committed_at=change.at))
        self.history.titles[change.commit] = title
        why = self._why() if forks is None else ""
        self._first_run(change, why, forks)
        if why in ("flaky", "away") and self.random.random() < 0.8:
            self._second_run(change)

    def _why(self) -> str:
        """What goes wrong in the next run: nothing, mostly. What is broken is mended soon."""
        if self.is_broken:
            self.is_broken = self.random.random() < 0.35
        elif self.random.random() < BROKEN:
            self.is_broken = True
        if self.is_broken:
            return "broken"
        drawn = self.random.random()
        return "flaky" if drawn < FLAKY else "away" if drawn < FLAKY + AWAY else ""

    def _first_run(self, change: _Change, why: str, forks: Mapping[str, Fork] | None) -> None:
        work = self._work(change, change.at)
        self._test_and_build(work, why)
        for tool in self._looking(change.at):
            if forks is None:
                self._scan(change, work, tool)
            elif tool.name in forks:
                self._scan_branch(change, work, forks[tool.name])
        self._end(change, work, deploys=why not in ("broken", "flaky"))

    def _second_run(self, change: _Change) -> None:
        """The same commit once more: scans are taken over from the first run, the tests are not."""
        again = attrs.evolve(change, run_id=digest(change.run_id, "again")[:32])
        work = self._work(again, change.at + timedelta(minutes=self.random.uniform(8, 14)))
        self._test_and_build(work, "")
        for tool in self._looking(change.at):
            work.step(tool.step, tool.step_type, 0.0, reused_from=change.run_id)
        self._end(again, work, deploys=True)

    def _work(self, change: _Change, at: datetime) -> Work:
        of = {"project": self.name, "commit": change.commit, "run_id": change.run_id}
        return Work(of, at, self.random)

    def _test_and_build(self, work: Work, why: str) -> None:
        state, reason, failed = "succeeded", None, None
        if why == "away":
            state, reason = "infra_error", "the machine went away"
        elif why:
            failed = self.random.choice(self.flaky if why == "flaky" else self.tests)
            state, reason = "failed", f"1 of {len(self.tests)} tests failed: {failed[0]}::{failed[1]}"
        work.step("test", "step.shell_exec", 22 * self.size, state, reason)
        if why != "away":
            self.history.rows += self._tests(work, failed)
        work.step("build", "step.shell_exec", 9 * self.size)

    def _tests(self, work: Work, failed: tuple[str, str] | None) -> Iterator[TestResult]:
        for at, each in enumerate(self.tests):
            is_bad = each == failed
            yield TestResult(
                **work.of,
                step="test",
                suite=each[0],
                name=each[1],
                state="failed" if is_bad else "passed",
                seconds=round((0.01 + 0.002 * at**2) * self.random.uniform(0.8, 1.4), 4),
                message="assert Decimal('9.99') == Decimal('10.00')" if is_bad else None,
                file=f"tests/{each[0]}.py",
                finished_at=work.now,
            )

    def _scan(self, change: _Change, work: Work, tool: Tool) -> None:
        failed = self.random.random() < BLIND
        reason = f"{tool.name} could not look: its database is too old" if failed else None
        work.step(tool.step, tool.step_type, self._seconds(tool), "infra_error" if failed else "succeeded", reason)
        population = self._population(tool)
        number = population.scans
        found = 0 if failed else population.scan(self._scanned(change))
        scan = self._scan_row(change, tool, work.now, found, reason)
        self.history.rows.append(scan)
        if not failed:
            self.history.presences.append(Presence(scan, number))

    def _scan_branch(self, change: _Change, work: Work, fork: Fork) -> None:
        work.step(fork.tool.step, fork.tool.step_type, self._seconds(fork.tool))
        seen = tuple((life, life.suppressed) for life in fork.there.values())
        scan = self._scan_row(change, fork.tool, work.now, len(seen), None)
        self.history.rows.append(scan)
        self.history.presences.append(Presence(scan, seen=seen))

    def _seconds(self, tool: Tool) -> float:
        return tool.typical_s * self.size

    def _scan_row(self, change: _Change, tool: Tool, at: datetime, found: int, reason: str | None) -> Scan:
        passes = self.random.randint(0, 12)
        return Scan(
            project=self.name,
            commit=change.commit,
            branch=change.branch,
            run_id=change.run_id,
            step=tool.step,
            tool=tool.name,
            category=tool.category,
            state="failed" if reason else "succeeded",
            committed_at=change.at,
            scanned_at=at,
            tool_version=tool.version,
            reason=reason,
            results=0 if reason else found + passes,
            findings=found,
            not_findings=0 if reason else passes,
            report_sha256=EMPTY_SHA256 if reason else digest(change.run_id, tool.name),
            author=change.author,
        )

    def _end(self, change: _Change, work: Work, *, deploys: bool) -> None:
        deploys = deploys and change.branch == "main"
        made = self.releasing.deploy(change.commit, work) if deploys and work.state == "succeeded" else []
        if not made:
            work.step("deploy", "step.deploy", 0.0, "skipped", None if deploys else "not on this branch")
        self.history.steps += work.steps
        self.history.runs.append(
            Run(
                **work.of,
                state=work.state,
                ref=f"refs/heads/{change.branch}",
                event="push",
                trigger="generated",
                author=change.author,
                reason=work.reason,
                queued_at=work.queued_at,
                started_at=work.started_at,
                finished_at=work.now,
                duration_s=(work.now - work.started_at).total_seconds(),
                graph_hash=digest(self.name, "graph"),
                structure_hash=digest(self.name, "structure"),
            )
        )
        self.history.rows.append(self._image(work))

    def _image(self, work: Work) -> Artifact:
        return Artifact(
            **work.of,
            step="build",
            name="image",
            digest=digest(work.of["commit"], "image"),
            size_bytes=round(60_000_000 * self.size * self.random.uniform(0.95, 1.05)),
            media_type="application/vnd.oci.image.manifest.v1+json",
            created_at=work.now,
        )
