"""Recreate: the old instances end before the first new one starts, for what cannot run twice."""

from penstock.deploy.strategies import Observed, Progress, Settings, Verdict, Wanted
from penstock.deploy.strategies.trouble import trouble
from penstock.deploy.strategies.way_back import BACK, is_back

STOP, START = "begin", "start"


class Recreate:
    """
    See `Strategy`. Phases: begin (until nothing of the old release runs), start, back.

    The way back is the same way: the new instances end, then the old ones are started.
    """

    def __init__(self, settings: Settings) -> None:
        del settings  # it has none

    def next(self, progress: Progress, seen: Observed) -> tuple[Progress, Wanted]:
        """See `Strategy`."""
        if is_back(progress) or (why := trouble(seen)):
            return self._back(progress, seen, "going back" if is_back(progress) else why)
        if progress.phase == STOP and seen.old.total == seen.leaving == 0:
            progress = Progress(phase=START, since_s=seen.now_s)
        if progress.phase == STOP:
            return progress, Wanted(new=0, old=0, weight=0, why="stopping the former release")
        return progress, self._started(seen)

    def _started(self, seen: Observed) -> Wanted:
        well = seen.new.healthy >= seen.replicas
        weight = 100 if seen.new.healthy and seen.verified else 0
        over = well and seen.verified and seen.weight == 100
        why = "verifying" if well else f"{seen.new.healthy} of {seen.replicas} new instances are healthy"
        verdict: Verdict = "succeeded" if over else "going"
        verify = seen.new.healthy > 0
        return Wanted(new=seen.replicas, old=0, weight=weight, verify=verify, verdict=verdict, why=why)

    def _back(self, progress: Progress, seen: Observed, why: str) -> tuple[Progress, Wanted]:
        progress = progress if is_back(progress) else Progress(phase=BACK, since_s=seen.now_s)
        if seen.new.total:
            return progress, Wanted(new=0, old=seen.old.total, weight=0, why=why)
        if seen.leaving and seen.old.total == 0:  # of whichever release: they must have ended
            return progress, Wanted(new=0, old=0, weight=0, why=why)
        settled = seen.old.total >= seen.old_replicas and seen.old.starting == 0
        verdict: Verdict = "failed" if settled and seen.weight == 0 else "going"
        return progress, Wanted(new=0, old=seen.old_replicas, weight=0, verdict=verdict, why=why)
