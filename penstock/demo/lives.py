"""
Findings that come and go, as the lifecycle of the warehouse would tell it of the scans that are made up here.

A scan that failed changes nothing; whatever happened meanwhile shows at the next one that succeeded.
"""

import hashlib
import heapq
import itertools
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import attrs

from penstock.demo.words import MODULES, REASONS, Rule, Tool

MEAN_DAYS = {"critical": 9.0, "high": 24.0, "medium": 60.0, "low": 150.0, "info": 250.0}
"""How long a finding of a severity stays on average."""
SUPPRESSED, REOPENED = 0.04, 0.05


@attrs.frozen
class Scanned:
    """A commit that a scanner read with success: where it stands among those of its branch, and by which run."""

    commit: str
    committed_at: datetime
    author: str
    run_id: str
    branch: str = "main"


@attrs.define(eq=False)
class Life:
    """One finding. present: (first scan, last scan, suppressed) by number, the last None while it goes on."""

    fingerprint: str
    rule: Rule
    path: str | None
    line: int | None
    introduced: Scanned
    baseline: bool
    suppressed: bool = False
    reason: str | None = None
    times_fixed: int = 0
    present: list[tuple[int, int | None, bool]] = attrs.field(factory=list)

    @property
    def state(self) -> str:
        """As long as it is there."""
        return "suppressed" if self.suppressed else "open"

    def begin(self, scan: int) -> None:
        """It is there from this scan on."""
        self.present.append((scan, None, self.suppressed))

    def end(self, scan: int) -> None:
        """It was there for the last time at the scan before this one."""
        first, _, suppressed = self.present.pop()
        if first < scan:
            self.present.append((first, scan - 1, suppressed))


class Population:
    """The findings of one tool in one project on its default branch."""

    def __init__(self, chance: random.Random, project: str, tool: Tool, size: float) -> None:
        self._random, self._project, self.tool, self._size = chance, project, tool, size
        self._weights = [rule.often for rule in tool.rules]
        mean = sum(MEAN_DAYS[rule.severity] * rule.often for rule in tool.rules) / sum(self._weights)
        self._per_day = size / mean
        self._due: list[tuple[datetime, int, str, Life]] = []
        self._order = itertools.count()
        self._before: Scanned | None = None
        self._seq = 0
        self.scans = 0
        self.lives: list[Life] = []
        self.events: list[dict[str, Any]] = []
        self.there: dict[str, Life] = {}

    def scan(self, scanned: Scanned) -> int:
        """What the next scan that succeeds finds and changes. Returns: how many findings there are."""
        happened = list(self._first(scanned) if self._before is None else self._since(self._before, scanned))
        self._seq += bool(happened)
        self.events += [self._event(name, life, scanned) for name, life in happened]
        self._before = scanned
        self.scans += 1
        return len(self.there)

    def _first(self, scanned: Scanned) -> Iterator[tuple[str, Life]]:
        for _ in range(round(self._size)):
            yield "introduced", self._new(scanned, baseline=True)

    def _since(self, before: Scanned, scanned: Scanned) -> Iterator[tuple[str, Life]]:
        while self._due and self._due[0][0] <= scanned.committed_at:
            _, _, what, life = heapq.heappop(self._due)
            yield from self._do(what, life, scanned)
        days = (scanned.committed_at - before.committed_at) / timedelta(days=1)
        for _ in range(about(self._random, self._per_day * days)):
            yield "introduced", self._new(scanned, baseline=False)

    def _new(self, scanned: Scanned, *, baseline: bool) -> Life:
        (rule,) = self._random.choices(self.tool.rules, self._weights)
        number = len(self.lives)
        is_code = rule.package is None
        life = Life(
            fingerprint=digest(self._project, self.tool.name, number)[:32],
            rule=rule,
            path=f"{self._project}/{self._random.choice(MODULES)}.py" if is_code else "requirements.lock",
            line=self._random.randint(3, 900) if is_code else None,
            introduced=scanned,
            baseline=baseline,
        )
        self.lives.append(life)
        self._appear(life, scanned)
        return life

    def _appear(self, life: Life, scanned: Scanned) -> None:
        life.begin(self.scans)
        self.there[life.fingerprint] = life
        noise = SUPPRESSED * life.rule.often**2  # what is met everywhere is not taken seriously
        what = "suppressed" if self._random.random() < noise and not life.suppressed else "fixed"
        stays = self._random.expovariate(1 / MEAN_DAYS[life.rule.severity])
        self._plan(what, life, scanned.committed_at + timedelta(days=stays))

    def _plan(self, what: str, life: Life, at: datetime) -> None:
        heapq.heappush(self._due, (at, next(self._order), what, life))

    def _do(self, what: str, life: Life, scanned: Scanned) -> Iterator[tuple[str, Life]]:
        if what == "suppressed":
            life.end(self.scans)
            life.suppressed, life.reason = True, self._random.choice(REASONS)
            life.begin(self.scans)
        elif what == "fixed":
            life.end(self.scans)
            del self.there[life.fingerprint]
            if self._random.random() < REOPENED:
                self._plan("reopened", life, scanned.committed_at + timedelta(days=self._random.uniform(2, 20)))
        else:
            self._appear(life, scanned)
        yield what, life

    def _event(self, name: str, life: Life, scanned: Scanned) -> dict[str, Any]:
        before = self._before.commit if self._before and name == "fixed" else None
        return self.row(name, life, scanned, seq=self._seq) | {"last_seen_commit": before}

    def row(self, name: str, life: Life, scanned: Scanned, *, seq: int, baseline: bool | None = None) -> dict[str, Any]:
        """A row of `finding_events`."""
        is_new = name == "introduced"
        return {
            "project": self._project,
            "branch": scanned.branch,
            "fingerprint": life.fingerprint,
            "tool": self.tool.name,
            "category": self.tool.category,
            "seq": seq,
            "event": name,
            "state": "fixed" if name == "fixed" else life.state,
            "commit": life.introduced.commit if is_new else scanned.commit,
            "committed_at": life.introduced.committed_at if is_new else scanned.committed_at,
            "author": life.introduced.author if is_new else scanned.author,
            "last_seen_commit": None,
            "baseline": is_new and (life.baseline if baseline is None else baseline),
            "run_id": scanned.run_id,
            "rule_id": life.rule.id,
            "severity": life.rule.severity,
            "path": life.path,
            "suppression_reason": life.reason if life.suppressed and name != "fixed" else None,
        }

    def fork(self, scanned: Scanned, brought: int) -> "Fork":
        """A branch of the present state, with `brought` findings more."""
        return Fork(self, scanned, brought, self._random)


class Fork:
    """The same findings on a branch: its first scan shows those of the base and what it brought; its second mends."""

    def __init__(self, base: Population, scanned: Scanned, brought: int, chance: random.Random) -> None:
        self.tool = base.tool
        name = f"{scanned.branch}/{base.tool.name}"
        rules = chance.choices(base.tool.rules, [rule.often for rule in base.tool.rules], k=brought)
        self.brought = [
            Life(digest(name, scanned.commit, n)[:32], rule, "src/new.py", 10 + 7 * n, scanned, baseline=False)
            for n, rule in enumerate(rules)
        ]
        self._base = base
        self._first = scanned
        self.there = {**base.there, **{life.fingerprint: life for life in self.brought}}
        inherited = [base.row("introduced", life, scanned, seq=1) for life in base.there.values()]
        new = [base.row("introduced", life, scanned, seq=1, baseline=False) for life in self.brought]
        self.events = inherited + new

    def mend(self, scanned: Scanned, chance: random.Random) -> None:
        """The branch's next scan: some of what it brought is gone, and something that was there before."""
        gone = [life for life in self.there.values() if life in self.brought and chance.random() < 0.6]
        gone += chance.sample(sorted(self._base.there.values(), key=_name), min(2, len(self._base.there)))
        for life in gone:
            row = self._base.row("fixed", life, scanned, seq=2) | {"last_seen_commit": self._first.commit}
            self.events.append(row)
            del self.there[life.fingerprint]


def _name(life: Life) -> str:
    return life.fingerprint


def about(chance: random.Random, mean: float) -> int:
    """A Poisson number; near enough a normal one where the mean is large."""
    if mean > 30:
        return max(0, round(chance.gauss(mean, mean**0.5)))
    left, count = chance.expovariate(1), 0
    while left < mean:
        left, count = left + chance.expovariate(1), count + 1
    return count


def digest(*words: object) -> str:
    """64 hexadecimal digits that depend on the words alone."""
    return hashlib.blake2b(" ".join(map(str, words)).encode(), digest_size=32).hexdigest()
