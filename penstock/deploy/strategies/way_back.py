"""
The way back to the old release, the same for every strategy that keeps it: traffic first, then the instances.

Where the old release stands whole, all traffic goes back at once. Where some of it has gone already, it is started
again, and instances of the new one that are healthy serve as long as they are needed for that.
"""

import msgspec

from penstock.deploy.strategies import Observed, Progress, Wanted

BACK = "back"
STUCK_STEP = 1
PATIENCE_S = 120.0  # for old instances that do not become healthy again while others of theirs are


def is_back(progress: Progress) -> bool:
    """Whether it has been decided that the new release has failed."""
    return progress.phase == BACK


def go_back(progress: Progress, seen: Observed, why: str, *, surge: int = 1, floor: int = 0) -> tuple[Progress, Wanted]:
    """
    One turn of it. surge: instances above the greater of both sizes. floor: how many healthy ones are kept, if need be.
    why: what went wrong; said for as long as nothing else is to be said.
    """
    if not is_back(progress):
        progress = Progress(phase=BACK, since_s=seen.now_s)
    waited = seen.now_s - progress.since_s >= PATIENCE_S
    if seen.old_replicas == 0:
        return progress, Wanted(new=0, old=0, weight=0, verdict="failed", why=why)
    if seen.weight == 0:
        return progress, _nobody_there(seen, why, waited=waited)
    if seen.old.healthy >= seen.old_replicas or (waited and seen.old.healthy > 0 and seen.old.starting == 0):
        return progress, Wanted(new=seen.new.healthy, old=seen.old_replicas, weight=0, why=why)
    if _cannot_come_back(seen):
        return _stuck(progress, seen, why)
    progress = msgspec.structs.replace(progress, step=0)
    return progress, _by_and_by(seen, why, surge=max(1, surge), floor=floor)


def _nobody_there(seen: Observed, why: str, *, waited: bool) -> Wanted:
    """The new release has no traffic: what is left of it goes, and the old one becomes as whole as it will."""
    settled = seen.old.total >= seen.old_replicas and seen.old.starting == 0
    over = seen.new.total == 0 and (settled or waited or seen.old.healthy >= seen.old_replicas)
    return Wanted(new=0, old=seen.old_replicas, weight=0, verdict="failed" if over else "going", why=why)


def _cannot_come_back(seen: Observed) -> bool:
    return seen.old.failed > 0 and seen.old.healthy == seen.old.starting == 0


def _stuck(progress: Progress, seen: Observed, why: str) -> tuple[Progress, Wanted]:
    """No old instance can take the traffic: healthy new ones go on until one can, or a person decides."""
    given_up = progress.step == STUCK_STEP and seen.command == "abort"
    if seen.new.healthy == 0 or given_up:
        return progress, Wanted(new=0, old=seen.old_replicas, weight=0, verdict="failed", why=why)
    progress = msgspec.structs.replace(progress, step=STUCK_STEP)
    said = f"{why}; no instance of the former release is healthy, so the new one serves: promote or abort"
    return progress, Wanted(new=seen.new.healthy, old=seen.old.total, weight=100, why=said)


def is_promoted_from_stuck(progress: Progress, seen: Observed) -> bool:
    """A person prefers a new release that has its faults to an old one that does not run."""
    stuck = is_back(progress) and progress.step == STUCK_STEP and seen.old.healthy == 0
    return stuck and seen.command == "promote" and seen.new.healthy > 0


def _by_and_by(seen: Observed, why: str, *, surge: int, floor: int) -> Wanted:
    spare = seen.new.healthy + seen.old.healthy - floor
    new = seen.new.healthy - min(seen.new.healthy, max(0, spare))
    if seen.old.healthy == 0:
        new = max(new, min(1, seen.new.healthy))
    room = max(seen.replicas, seen.old_replicas) + surge - new - seen.old.total
    old = min(seen.old_replicas, seen.old.total + max(0, room))
    weight = share(min(new, seen.new.healthy), seen.old.healthy, otherwise=seen.weight)
    weight = min(weight, seen.weight) if seen.old.healthy else weight
    return Wanted(new=new, old=max(old, min(seen.old.total, seen.old_replicas)), weight=weight, why=why)


def share(new: int, old: int, *, otherwise: int) -> int:
    """Per cent for the new release by healthy instances; whoever has one gets something, and nobody else."""
    if new + old == 0:
        return otherwise
    if new == 0 or old == 0:
        return 100 if new else 0
    return min(99, max(1, round(100 * new / (new + old))))
