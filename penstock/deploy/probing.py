"""How the instances of a release are: asked again and again, at once and beside everything else."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import attrs
import msgspec

from penstock.deploy.health import HealthCheck, HealthCount, ProbeResult, gap_s
from penstock.deploy.releases import Instance, Release
from penstock.deploy.strategies import Fleet
from penstock.deploy.targets import Target
from penstock.errors import PlatformError

AT_ONCE = 8  # probes under way, so that one that does not answer keeps no other waiting
Condition = Literal["starting", "healthy", "failed"]


@attrs.frozen
class Health:
    """How one instance is. text: its last answer, or how it ended."""

    condition: Condition
    text: str = ""


@attrs.define
class _Asked:
    """
    What is known of one instance. Times are monotonic seconds.

    restarts: how many it had when it was first seen; more of them is a crash, if it shall have none.
    """

    first_s: float
    restarts: int
    count: HealthCount
    was_healthy: bool
    port: int | None = None
    began_s: float = 0.0
    away_since_s: float | None = None
    due_s: float = 0.0
    asked: int = 0
    last: str = ""
    under_way: "Future[ProbeResult] | None" = None


class Probes:
    """
    Asks the instances of one release. `look` never blocks.

    strict: whether an instance that ends has failed for good, as one of a release on its way; else it may come back.
    """

    def __init__(self, target: Target, release: Release, *, strict: bool) -> None:
        self._target, self._release, self._strict = target, release, strict
        self._check = release.configuration.health
        self._asked: dict[str, _Asked] = {}
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="probe")

    def look(self, instances: Iterable[Instance]) -> dict[str, Health]:
        """
        How each of them is now, by id.

        Raises: PlatformError when what runs them (the keeper, an engine) is away, if strict.
        """
        return {one.id: self._look(one, time.monotonic()) for one in instances}

    def close(self) -> None:
        """Ask no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def next_due_s(self) -> float:
        """Seconds until somebody is to be asked; a probe under way is looked at soon."""
        now_s = time.monotonic()
        return max(
            0.0, min((0.01 if one.under_way else one.due_s - now_s for one in self._asked.values()), default=1.0)
        )

    def _look(self, instance: Instance, now_s: float) -> Health:
        one = self._asked.get(instance.id) or self._first(instance, now_s)
        if self._strict and (instance.state == "exited" or instance.restarts > one.restarts):
            return Health("failed", f"crashed: {instance.reason}")
        if instance.state != "running" or instance.port is None:
            return self._away(one, instance, now_s)
        one.away_since_s = None
        if instance.port != one.port:  # it was started, perhaps by a new keeper and on another port
            self._begin(one, instance.port, now_s)
        self._take(one, now_s)
        if one.under_way is None and now_s >= one.due_s:
            one.under_way = self._pool.submit(self._target.probe, self._check, instance)
        return self._judge(one, now_s)

    def _first(self, instance: Instance, now_s: float) -> _Asked:
        """One that is ready was healthy before: it is asked whether it still is."""
        count = self._lively() if instance.ready else HealthCount(self._check)
        restarts = instance.restarts if instance.ready else 0
        one = _Asked(now_s, restarts, count, instance.ready, instance.port if instance.ready else None, now_s)
        self._asked[instance.id] = one
        return one

    def _lively(self) -> HealthCount:
        """The start is over: failures count from the first."""
        return HealthCount(msgspec.structs.replace(self._check, start_period_s=0.0), good=self._check.healthy_after)

    def _begin(self, one: _Asked, port: int, now_s: float) -> None:
        one.port, one.began_s, one.due_s, one.asked = port, now_s, now_s, 0
        one.count, one.was_healthy, one.under_way = HealthCount(self._check), False, None

    def _away(self, one: _Asked, instance: Instance, now_s: float) -> Health:
        """It is being started; that it cannot be for so long is the platform's fault."""
        one.away_since_s = one.away_since_s or now_s
        if self._strict and now_s - one.away_since_s > self._target.start_limit_s:
            why = f": {instance.reason}" if instance.reason else ""
            what = f"the keeper has not started {self._release}{why}"
            raise PlatformError(what, remedy="see that penstock's keeper runs")
        return Health("starting", instance.reason or "")

    def _take(self, one: _Asked, now_s: float) -> None:
        """The answer, if there is one."""
        if one.under_way is None or not one.under_way.done():
            return
        answered, one.under_way = one.under_way, None
        try:
            result = answered.result()
        except PlatformError:
            if self._strict:
                raise
            one.due_s = now_s + self._check.interval_s
            return
        one.last, one.count = result.text, one.count.after(result, now_s - one.began_s)
        one.asked += 1
        if one.count.verdict == "healthy" and not one.was_healthy:
            one.was_healthy, one.count = True, attrs.evolve(self._lively(), counted_at_s=now_s - one.began_s)
        one.due_s = now_s + (self._check.interval_s if one.was_healthy else gap_s(self._check, one.asked))

    def _judge(self, one: _Asked, now_s: float) -> Health:
        late = not one.was_healthy and now_s - one.first_s > self._check.limit_s
        if late or one.count.verdict == "unhealthy":
            how = "no longer healthy" if one.was_healthy else f"not healthy after {now_s - one.began_s:.1f} s"
            return Health("failed", f"{how}, last answer {one.last}")
        return Health("healthy" if one.was_healthy else "starting", one.last)


def fleet(seen: Mapping[str, Health]) -> Fleet:
    """The instances, counted."""
    conditions = [one.condition for one in seen.values()]
    return Fleet(**{name: conditions.count(name) for name in ("starting", "healthy", "failed")})


def quick(check: HealthCheck) -> float:
    """How often a driver looks while it waits for instances, in seconds."""
    return min(0.05, check.interval_s)
