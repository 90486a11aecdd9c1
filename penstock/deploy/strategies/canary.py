"""Canary: a few per cent of the requests first, measured, then more; the old release stays whole until the end."""

import msgspec

from penstock.deploy.strategies import CanaryStep, Observed, Progress, Settings, Verdict, Wanted
from penstock.deploy.strategies.trouble import trouble
from penstock.deploy.strategies.way_back import go_back, is_back, is_promoted_from_stuck

SCALE, HOLD, FULL, RETIRE = "begin", "hold", "full", "retire"
GONE_S = 10.0  # an old release of which nothing is healthy for so long is no measure; one that restarts is


class Canary:
    """
    See `Strategy`. Phases: for each step begin (until there are enough new instances) and hold; then full (all new
    instances, all traffic), retire; or back.

    Each step wants at least its weight's part of the replicas, rounded up. Where an analysis is wanted, a step is left
    only after a measurement that passed, or when somebody promotes it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._steps = settings, settings.steps

    def next(self, progress: Progress, seen: Observed) -> tuple[Progress, Wanted]:
        """See `Strategy`."""
        if is_promoted_from_stuck(progress, seen):
            progress = Progress(phase=FULL, step=len(self._steps), since_s=seen.now_s)
        elif is_back(progress) or (why := trouble(seen)):
            return self._back(progress, seen, "going back" if is_back(progress) else why)
        progress = _measured(_old_watched(progress, seen), seen)
        if progress.failures > self._settings.failure_limit and not _is_old_gone(progress, seen):
            return self._back(progress, seen, f"the analysis failed in step {progress.step + 1}")
        progress = self._advanced(progress, seen)
        return progress, self._wanted(progress, seen)

    def _back(self, progress: Progress, seen: Observed, why: str) -> tuple[Progress, Wanted]:
        return go_back(progress, seen, why, floor=min(seen.replicas, seen.old_replicas))

    def _advanced(self, progress: Progress, seen: Observed) -> Progress:
        if progress.phase == SCALE and seen.old_replicas == 0:  # nobody to share with
            progress = _entered(progress, seen, FULL, len(self._steps))
        if progress.phase == SCALE and seen.weight == self._step(progress).weight and self._may_serve(progress, seen):
            return _entered(progress, seen, HOLD, progress.step)
        if progress.phase == HOLD and self._is_held_enough(progress, seen):
            following = progress.step + 1
            return _entered(progress, seen, FULL if following == len(self._steps) else SCALE, following)
        if progress.phase == FULL and seen.weight == 100 and seen.new.healthy >= seen.replicas:
            return _entered(progress, seen, RETIRE, progress.step)
        return progress

    def _step(self, progress: Progress) -> CanaryStep:
        return self._steps[min(progress.step, len(self._steps) - 1)]

    def _needed(self, progress: Progress, seen: Observed) -> int:
        if progress.phase in (FULL, RETIRE):
            return seen.replicas
        return max(1, -(-self._step(progress).weight * seen.replicas // 100))

    def _may_serve(self, progress: Progress, seen: Observed) -> bool:
        return bool(seen.verified) and seen.new.healthy >= self._needed(progress, seen)

    def _is_held_enough(self, progress: Progress, seen: Observed) -> bool:
        if seen.command == "promote" or _is_old_gone(progress, seen):
            return True
        hold_s = self._step(progress).hold_s
        if hold_s is None or seen.now_s - progress.since_s < hold_s or self._says_nothing(progress):
            return False
        return self._settings.analysis is None or (progress.measured > 0 and seen.analysis == "passed")

    def _says_nothing(self, progress: Progress) -> bool:
        return progress.inconclusive > self._settings.inconclusive_limit

    def _wanted(self, progress: Progress, seen: Observed) -> Wanted:
        needed, served = self._needed(progress, seen), self._may_serve(progress, seen)
        if progress.phase == RETIRE:
            over = seen.old.total == 0 and served and seen.weight == 100
            verdict: Verdict = "succeeded" if over else "going"
            return Wanted(new=needed, old=0, weight=100, verify=True, verdict=verdict, why="")
        weight = (
            max(seen.weight, 100 if progress.phase == FULL else self._step(progress).weight) if served else seen.weight
        )
        return Wanted(
            new=max(needed, seen.new.total),
            old=seen.old_replicas,
            weight=weight,
            analyse=progress.phase == HOLD and self._settings.analysis is not None,
            verify=seen.new.healthy > 0,
            why=self._why(progress, seen, served),
            look_again_s=self._look_again_s(progress, seen),
        )

    def _why(self, progress: Progress, seen: Observed, served: bool) -> str:
        if progress.phase == FULL:
            return f"all steps are done; {seen.new.healthy} of {seen.replicas} new instances are healthy"
        step = f"step {progress.step + 1} of {len(self._steps)}, {self._step(progress).weight} %"
        if progress.phase == SCALE:
            return f"{step}: {'switching' if served else 'waiting for instances'}"
        return f"{step}: {self._why_held(progress, seen)}"

    def _why_held(self, progress: Progress, seen: Observed) -> str:
        hold_s = self._step(progress).hold_s
        if hold_s is None:
            return "waiting for somebody to promote it"
        if self._says_nothing(progress):
            return f"{progress.inconclusive} measurements in a row say nothing: promote or abort"
        if seen.now_s - progress.since_s >= hold_s:
            return "waiting for a measurement that passes"
        return f"held for {hold_s:g} s"

    def _look_again_s(self, progress: Progress, seen: Observed) -> float:
        hold_s = self._step(progress).hold_s
        if progress.phase != HOLD or hold_s is None:
            return 1.0
        return min(1.0, max(0.01, progress.since_s + hold_s - seen.now_s))


def _entered(progress: Progress, seen: Observed, phase: str, step: int) -> Progress:
    return Progress(phase=phase, step=step, since_s=seen.now_s, gone_s=progress.gone_s)


def _old_watched(progress: Progress, seen: Observed) -> Progress:
    if seen.old.healthy:
        return msgspec.structs.replace(progress, gone_s=None)
    return progress if progress.gone_s is not None else msgspec.structs.replace(progress, gone_s=seen.now_s)


def _is_old_gone(progress: Progress, seen: Observed) -> bool:
    """Nothing to compare with, and nothing to go back to."""
    return seen.old_replicas == 0 or (progress.gone_s is not None and seen.now_s - progress.gone_s >= GONE_S)


def _measured(progress: Progress, seen: Observed) -> Progress:
    """Each measurement counts once, however often it is seen."""
    if progress.phase != HOLD or seen.analysis == "none" or seen.measured <= progress.measured:
        return progress
    failed, unclear = seen.analysis == "failed", seen.analysis == "inconclusive"
    return msgspec.structs.replace(
        progress,
        measured=seen.measured,
        failures=progress.failures + failed,
        inconclusive=progress.inconclusive + 1 if unclear else 0,
    )
