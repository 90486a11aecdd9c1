"""What has to be done for what shall be: who goes, who starts, who gets traffic."""

import pytest

from penstock.deploy.changes import Changes, changes
from penstock.deploy.probing import Health
from penstock.deploy.releases import Instance
from penstock.deploy.strategies import Wanted


def instance(name: str, *, ready: bool = False) -> Instance:
    return Instance(name, "release", "running", "running", 1, 20_000, 0, None, ready)


def seen(**conditions: str) -> dict[str, Health]:
    return {name: Health(condition) for name, condition in conditions.items()}


def wanted(new: int, old: int) -> Wanted:
    return Wanted(new=new, old=old, weight=0)


def test_nothing_to_do():
    """What is there is what shall be."""
    assert (
        changes(wanted(1, 1), [instance("n", ready=True)], [instance("o", ready=True)], seen(n="healthy", o="healthy"))
        == Changes()
    )


def test_missing_ones_are_started():
    """On both sides."""
    found = changes(wanted(3, 2), [instance("n")], [], seen(n="starting"))
    assert (found.start_new, found.start_old, found.drain) == (2, 2, ())


@pytest.mark.parametrize(
    ("conditions", "leaves"),
    [
        ({"a": "healthy", "b": "failed", "c": "starting"}, ("b",)),
        ({"a": "healthy", "b": "starting", "c": "healthy"}, ("b",)),
        ({"a": "healthy", "b": "healthy", "c": "healthy"}, ("c",)),
    ],
)
def test_who_goes_first(conditions, leaves):
    """The failed, then who is not healthy yet, then the youngest."""
    there = [instance(name, ready=True) for name in conditions]
    assert changes(wanted(0, 2), [], there, seen(**conditions)).drain == leaves


def test_healthy_ones_get_traffic_and_failed_ones_none():
    """Once each; who leaves gets none any more."""
    there = [instance("a"), instance("b", ready=True), instance("c", ready=True)]
    found = changes(wanted(3, 0), there, [], seen(a="healthy", b="failed", c="healthy"))
    assert (found.ready, found.unready) == (("a",), ("b",))


def test_last_one_keeps_its_traffic():
    """A bad answer is better than none, while nobody of its release is there to give another."""
    found = changes(
        wanted(1, 1), [instance("n", ready=True)], [instance("o", ready=True)], seen(n="healthy", o="failed")
    )
    assert found.unready == ()
