"""
Which instances a service's requests go to, in whole per cent: a hundred slots, each of which names one instance.

The router picks one slot at random for each request, so that weights hold whatever order clients ask in; when it cannot
connect it picks again, and so reaches another instance.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import attrs

SLOTS = 100
NOWHERE = {0: SLOTS}  # nobody can listen there: requests wait for as long as the router tries
_Key = TypeVar("_Key", str, int)


@attrs.frozen
class Candidate:
    """
    A wanted instance that has an address.

    ready: it answered its health check. running: it has not just ended; one that has will be started again.
    """

    release_id: str
    port: int
    ready: bool = True
    running: bool = True


_USABLE: tuple[Callable[[Candidate], bool], ...] = (
    lambda one: one.ready and one.running,
    lambda one: one.ready,
    lambda _: True,
)


def spread(shares: Mapping[str, int], live: str | None, candidates: Sequence[Candidate]) -> dict[int, int]:
    """
    Slots per instance's port, in all SLOTS of them; none at all where there is no instance.

    shares: release → weight; empty when the live one has everything. The share of a release that has no usable
    instance goes to the others that have a share, and while none of them has one, to what is live. If there is no
    instance that is well, those that are being started again get the requests, which wait for them; else those
    that are not ready: a bad answer is better than none.
    """
    ways = (shares, {} if live is None else {live: SLOTS})
    for is_usable in _USABLE:
        well = [one for one in candidates if is_usable(one)]
        for weights in ways:
            if ports := _ports_by_release(weights, well):
                return _divided({release_id: weights[release_id] for release_id in ports}, ports)
    return {}


def _ports_by_release(weights: Mapping[str, int], candidates: Sequence[Candidate]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for one in candidates:
        if weights.get(one.release_id, 0) > 0:
            found.setdefault(one.release_id, []).append(one.port)
    return found


def _divided(shares: Mapping[str, int], ports: Mapping[str, Sequence[int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for release_id, slots in _apportioned(shares, SLOTS).items():
        found |= _apportioned(dict.fromkeys(sorted(ports[release_id]), 1), slots)
    return {port: slots for port, slots in found.items() if slots}


def _apportioned(weights: Mapping[_Key, int], seats: int) -> dict[_Key, int]:
    """`seats` by weight, whole, by largest remainder; nobody with a weight goes without while there are enough."""
    total = sum(weights.values())
    found = {key: max(min(1, weight), weight * seats // total) for key, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda key: -(weights[key] * seats % total))
    for key in by_remainder[: max(0, seats - sum(found.values()))]:
        found[key] += 1
    while sum(found.values()) > seats:  # more keys than seats, or a small weight that got its one
        most = max(found, key=lambda key: found[key])
        found[most] -= 1
    return found


def filled(now: Sequence[int | None], wanted: Mapping[int, int]) -> list[int]:
    """
    The port of each slot; slots that may stay as they are do. wanted: what `spread` gave, not empty.

    now: each slot's port, None where it has none.
    """
    left = dict(wanted)
    kept: list[int | None] = []
    for port in now:
        stays = port is not None and left.get(port, 0) > 0
        kept.append(port if stays else None)
        if stays and port is not None:
            left[port] -= 1
    others = (port for port, slots in left.items() for _ in range(slots))
    return [next(others) if port is None else port for port in kept]
