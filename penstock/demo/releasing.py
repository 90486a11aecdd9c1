"""Made-up releases: to staging with every success, to production now and then; some fail, some are taken back."""

import random
from datetime import datetime, timedelta

import attrs

from penstock.demo.lives import digest
from penstock.demo.work import Work
from penstock.warehouse.rows import Release

UNHEALTHY, TAKEN_BACK = 0.06, 0.05
"""How many releases to production never get traffic, and how many are taken back soon after they did."""


class Releasing:
    """The releases of one project, oldest first."""

    def __init__(self, chance: random.Random, project: str) -> None:
        self._random, self._project = chance, project
        self._eagerness = chance.uniform(0.15, 0.8)
        self._is_down = False
        self.made: list[Release] = []
        self._live: dict[str, int] = {}
        self._number: dict[str, int] = {}

    def deploy(self, commit: str, work: Work) -> list[Release]:
        """What a run deploys, as its last steps."""
        made = [self._release("staging", commit, work)]
        if self._is_down or self._random.random() < self._eagerness:
            made.append(self._to_production(commit, work))
        return made

    def _to_production(self, commit: str, work: Work) -> Release:
        before = self._live.get("production")
        if before is not None and self._random.random() < UNHEALTHY:
            self._is_down = True  # the next success is deployed at once
            return self._release("production", commit, work, fails=True)
        self._is_down = False
        release = self._release("production", commit, work)
        if before is not None and self._random.random() < TAKEN_BACK:
            self._take_back(self.made[before], work)
        return release

    def _take_back(self, former: Release, work: Work) -> None:
        """Roll back: the commit that was live before is released again, by hand."""
        at = work.now + timedelta(minutes=self._random.uniform(4, 90))
        run_id = former.run_id or work.of["run_id"]
        self._add("production", former.commit, run_id, at, "rolled back by hand", fails=False)

    def _release(self, environment: str, commit: str, work: Work, *, fails: bool = False) -> Release:
        reason = "web: HTTP 503 from /health for 30 s" if fails else None
        work.step(f"deploy-{environment}", "step.deploy", 5.0, "failed" if fails else "succeeded", reason)
        return self._add(environment, commit, work.of["run_id"], work.now, reason, fails=fails)

    def _add(
        self, environment: str, commit: str, run_id: str, at: datetime, reason: str | None, *, fails: bool
    ) -> Release:
        number = self._number[environment] = self._number.get(environment, 0) + 1
        release = Release(
            project=self._project,
            environment=environment,
            service="web",
            number=number,
            commit=commit,
            run_id=run_id,
            artifact_digest=digest(commit, "image"),
            graph_hash=digest(self._project, "graph"),
            state="failed" if fails else "live",
            created_at=at - timedelta(seconds=4),
            live_at=None if fails else at,
            ended_at=at if fails else None,
            reason=reason,
            approved_by="Release Manager" if environment == "production" else None,
        )
        if not fails:
            self._supersede(environment, at)
            self._live[environment] = len(self.made)
        self.made.append(release)
        return release

    def _supersede(self, environment: str, at: datetime) -> None:
        former = self._live.get(environment)
        if former is not None:
            self.made[former] = attrs.evolve(self.made[former], state="superseded", ended_at=at)
