"""Blue/green: all new instances beside the old ones, one switch, and the old ones kept for an instant way back."""

from penstock.deploy.strategies import Observed, Progress, Settings, Wanted
from penstock.deploy.strategies.trouble import trouble
from penstock.deploy.strategies.way_back import go_back, is_back, is_promoted_from_stuck

WARM, SWITCH, KEEP, RETIRE = "begin", "switch", "keep", "retire"


class BlueGreen:
    """See `Strategy`. Phases: begin (until all are healthy and verified), switch, keep, retire, back."""

    def __init__(self, settings: Settings) -> None:
        self._keep_s = settings.keep_s

    def next(self, progress: Progress, seen: Observed) -> tuple[Progress, Wanted]:
        """See `Strategy`."""
        if is_promoted_from_stuck(progress, seen):
            progress = Progress(phase=RETIRE, since_s=seen.now_s)
        elif is_back(progress) or (why := trouble(seen)):
            floor = min(seen.replicas, seen.old_replicas)
            return go_back(progress, seen, "going back" if is_back(progress) else why, floor=floor)
        progress = self._advanced(progress, seen)
        return progress, self._wanted(progress, seen)

    def _advanced(self, progress: Progress, seen: Observed) -> Progress:
        now_s, phase = seen.now_s, progress.phase
        if phase == WARM and seen.new.healthy >= seen.replicas and seen.verified:
            return Progress(phase=SWITCH, since_s=now_s)
        if phase == SWITCH and seen.weight == 100:
            progress = Progress(phase=KEEP, since_s=now_s)
        if progress.phase == KEEP and (now_s - progress.since_s >= self._keep_s or seen.command == "promote"):
            return Progress(phase=RETIRE, since_s=now_s)
        return progress

    def _wanted(self, progress: Progress, seen: Observed) -> Wanted:
        new, old = seen.replicas, seen.old_replicas
        if progress.phase == WARM:
            all_well = seen.new.healthy >= new
            why = "verifying" if all_well else f"{seen.new.healthy} of {new} new instances are healthy"
            return Wanted(new=new, old=old, weight=0, verify=all_well, why=why)
        if progress.phase == SWITCH:
            weight = 100 if seen.new.healthy >= new else seen.weight
            return Wanted(new=new, old=old, weight=weight, verify=True, why="switching")
        if progress.phase == KEEP:
            left_s = progress.since_s + self._keep_s - seen.now_s
            why = f"the former release is kept for {self._keep_s:g} s"
            return Wanted(new=new, old=old, weight=100, verify=True, why=why, look_again_s=min(1.0, max(0.01, left_s)))
        over = seen.old.total == 0 and seen.new.healthy >= new and seen.weight == 100
        return Wanted(new=new, old=0, weight=100, verify=True, verdict="succeeded" if over else "going", why="")
