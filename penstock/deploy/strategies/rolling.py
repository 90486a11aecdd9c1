"""Rolling: instance by instance, as many beside each other and as few missing as the settings say."""

from penstock.deploy.strategies import Observed, Progress, Settings, Wanted, portion
from penstock.deploy.strategies.trouble import trouble
from penstock.deploy.strategies.way_back import go_back, is_back, is_promoted_from_stuck, share

FIRST, REST = "begin", "rest"


class Rolling:
    """
    See `Strategy`. Phases: begin (until the first new instance is healthy and verified), rest, back.

    Until then no old instance goes, unless without one gone there is no room for the first new one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def next(self, progress: Progress, seen: Observed) -> tuple[Progress, Wanted]:
        """See `Strategy`."""
        surge, unavailable = self._limits(seen.replicas)
        if is_promoted_from_stuck(progress, seen):
            progress = Progress(phase=REST, since_s=seen.now_s)
        elif is_back(progress) or (why := trouble(seen)):
            floor = max(0, min(seen.replicas, seen.old_replicas) - unavailable)
            return go_back(progress, seen, "going back" if is_back(progress) else why, surge=surge, floor=floor)
        if progress.phase == FIRST and seen.new.healthy and seen.verified:
            progress = Progress(phase=REST, since_s=seen.now_s)
        if progress.phase == FIRST:
            return progress, self._first(seen, surge, unavailable)
        return progress, self._rest(seen, surge, unavailable)

    def _limits(self, replicas: int) -> tuple[int, int]:
        surge = portion(self._settings.max_surge, replicas, where="strategy.max_surge", up=True)
        unavailable = portion(self._settings.max_unavailable, replicas, where="strategy.max_unavailable", up=False)
        return surge, (1 if surge == unavailable == 0 else unavailable)

    def _first(self, seen: Observed, surge: int, unavailable: int) -> Wanted:
        old = seen.old.total
        most = max(seen.replicas, seen.old_replicas) + surge
        if surge == 0 and seen.new.total == 0 and old >= most and _may_go(seen, seen.replicas - unavailable) > 0:
            old = most - 1
        room = most - old - seen.new.total
        new = min(seen.replicas, seen.new.total + max(0, room), max(1, surge, seen.new.total))
        why = "verifying the first instance" if seen.new.healthy else "waiting for the first healthy instance"
        return Wanted(new=new, old=old, weight=0, verify=seen.new.healthy > 0, why=why)

    def _rest(self, seen: Observed, surge: int, unavailable: int) -> Wanted:
        gone = min(seen.old.total, _may_go(seen, seen.replicas - unavailable))
        old = seen.old.total - gone
        room = max(seen.replicas, seen.old_replicas) + surge - old - seen.new.total
        new = min(seen.replicas, seen.new.total + max(0, room))
        weight = share(seen.new.healthy, min(old, seen.old.healthy), otherwise=seen.weight)
        over = seen.new.healthy >= seen.replicas and seen.old.total == 0 and seen.weight == 100
        said = f"{min(seen.new.healthy, seen.replicas)} of {seen.replicas} instances are new and healthy"
        return Wanted(new=new, old=old, weight=weight, verify=True, verdict="succeeded" if over else "going", why=said)


def _may_go(seen: Observed, floor: int) -> int:
    """Old instances that nobody would miss: the unhealthy ones, and healthy ones above the floor."""
    spare = max(0, seen.new.healthy + seen.old.healthy - max(0, floor))
    return seen.old.failed + seen.old.starting + min(spare, seen.old.healthy)
