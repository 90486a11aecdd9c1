"""From what shall be to what has to be done for it: pure, so that every case can be tried."""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from penstock.deploy.probing import Health
from penstock.deploy.releases import Instance
from penstock.deploy.strategies import Wanted


@attrs.frozen
class Changes:
    """
    What is to be done at once, in one transaction.

    start_new, start_old: how many more instances. drain, ready, unready: ids of instances.
    """

    start_new: int = 0
    start_old: int = 0
    drain: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    unready: tuple[str, ...] = ()


def changes(wanted: Wanted, new: Sequence[Instance], old: Sequence[Instance], seen: Mapping[str, Health]) -> Changes:
    """
    What leads from the instances that there are to those that are wanted.

    new, old: those that shall run. seen: how they are, by id.
    """
    leaving = (*_surplus(new, wanted.new, seen), *_surplus(old, wanted.old, seen))
    staying = [[one for one in side if one.id not in leaving] for side in (new, old)]
    both = [*staying[0], *staying[1]]
    return Changes(
        start_new=max(0, wanted.new - len(new)),
        start_old=max(0, wanted.old - len(old)),
        drain=leaving,
        ready=tuple(one.id for one in both if not one.ready and seen[one.id].condition == "healthy"),
        unready=tuple(name for side in staying for name in _fallen(side, seen)),
    )


def _surplus(there: Sequence[Instance], wanted: int, seen: Mapping[str, Health]) -> tuple[str, ...]:
    """Who goes: the failed first, then those that are not healthy yet, then the youngest."""
    order = {"failed": 0, "starting": 1, "healthy": 2}
    youngest_first = there[::-1]
    ranked = sorted(youngest_first, key=lambda one: order[seen[one.id].condition])
    return tuple(one.id for one in ranked[: max(0, len(there) - wanted)])


def _fallen(side: Sequence[Instance], seen: Mapping[str, Health]) -> Iterable[str]:
    """Failed ones that still get their part, as long as another of the same release is there to take it."""
    well = any(seen[one.id].condition == "healthy" for one in side)
    return [one.id for one in side if well and one.ready and seen[one.id].condition == "failed"]
