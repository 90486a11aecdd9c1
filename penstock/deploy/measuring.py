"""Measures a rollout while a step of it is held: what the router sees, and what the warehouse says."""

import time
from concurrent.futures import Future, ThreadPoolExecutor

import sqlalchemy as sa

from penstock.deploy.analysis import Analysis, Measurement, Requests, ask_warehouse, judge, one_number
from penstock.deploy.releases import Release, of_service
from penstock.deploy.requests import Meter, instance_releases
from penstock.deploy.site import Site
from penstock.deploy.strategies import Analysis as Verdict
from penstock.errors import PenstockError
from penstock.state.tables import routes


class Measuring:
    """
    Measurements of one rollout, each made beside the driving; only the newest matters, and how many there were.

    counted: how many an earlier driver had taken into account in this step.
    """

    def __init__(self, site: Site, release: Release, former: Release | None, analysis: Analysis) -> None:
        self._site, self._release, self._former, self._analysis = site, release, former, analysis
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="measuring")
        self._meter: Meter | None = None
        self._step = -1
        self._due_s = 0.0
        self._under_way: Future[Measurement] | None = None
        self.counted = 0
        self.verdict: Verdict = "none"
        self.text = ""

    def go_on(self, step: int, counted: int, *, is_old_well: bool) -> str | None:
        """
        Measure when it is time. Returns: what a measurement that is just over says, in one line.

        step: which is held; another one begins anew. counted: what the strategy has taken into account already.
        is_old_well: whether there is something to compare with.
        """
        if step != self._step:
            self._begin(step, counted)
        if self._under_way is not None:
            return self._taken()
        if time.monotonic() >= self._due_s:
            self._due_s += self._analysis.every_s
            self._under_way = self._pool.submit(self._measure, is_old_well=is_old_well)
        return None

    def end(self) -> None:
        """Measure no more."""
        self._step = -1
        if self._meter is not None:
            self._meter.end()
            self._meter = None

    def close(self) -> None:
        """For good; a measurement under way is waited for by nobody."""
        self.end()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, step: int, counted: int) -> None:
        self._step, self.counted, self.verdict = step, counted, "none"
        self._due_s, self._under_way = time.monotonic() + self._analysis.every_s, None
        if self._analysis.asks_proxy:
            self._meter = self._meter or self._opened()
            self._meter.begin()
            self._meter.read({})  # what came before belongs to the step before

    def _opened(self) -> Meter:
        with self._site.engine.begin() as connection:
            query = sa.select(routes.c.port).where(of_service(routes, self._site.service))
            return Meter(self._site.settings, connection.execute(query).scalar_one())

    def _taken(self) -> str | None:
        if self._under_way is None or not self._under_way.done():
            return None
        made, self._under_way = self._under_way, None
        try:
            found = made.result()
        except (PenstockError, OSError, sa.exc.DBAPIError) as error:  # nothing was learned
            self.verdict, self.text = "inconclusive", f"inconclusive: {error}"
        else:
            self.verdict, self.text = found.verdict, found.text
        self.counted += 1
        return self.text

    def _measure(self, *, is_old_well: bool) -> Measurement:
        seen = self._read_meter()
        new = seen.get(self._release.id, Requests())
        old = seen.get(self._former.id, Requests()) if self._former and is_old_well else None
        answers = [(query, ask_warehouse(query, self._about(), self._ask)) for query in self._analysis.queries]
        return judge(self._analysis, new, old, answers)

    def _read_meter(self) -> dict[str, Requests]:
        if self._meter is None:
            return {}
        sides = [self._release.id, *([self._former.id] if self._former else [])]
        with self._site.engine.begin() as connection:
            ports = instance_releases(connection, sides)
        return self._meter.read(ports)

    def _ask(self, sql: str) -> int | float | bool | None:
        return one_number(self._site.settings, sql)

    def _about(self) -> dict[str, str | int]:
        service = self._release.service
        own = {"project": service.project, "environment": service.environment, "service": service.name}
        return {**own, "release": self._release.number, "commit": self._release.commit}
