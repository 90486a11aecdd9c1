"""How a service's requests are divided among its instances."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from penstock.deploy.slots import SLOTS, Candidate, filled, spread

CANDIDATES = st.lists(
    st.builds(
        Candidate, st.sampled_from("abc"), st.integers(20_000, 20_060), ready=st.booleans(), running=st.booleans()
    ),
    max_size=40,
    unique_by=lambda one: one.port,
)
SHARES = st.dictionaries(st.sampled_from("abc"), st.integers(0, 100), max_size=3)


def of(release: str, *ports: int, **how: bool) -> list[Candidate]:
    """Instances of one release."""
    return [Candidate(release, port, **how) for port in ports]


def test_weights_hold_to_the_per_cent():
    """Each release gets its share, its instances equal parts of that."""
    found = spread({"old": 75, "new": 25}, "old", [*of("old", 1, 2, 3), *of("new", 4, 5)])
    assert found == {1: 25, 2: 25, 3: 25, 4: 13, 5: 12}


def test_live_release_has_everything_without_shares():
    """And a release that only starts has nothing."""
    assert spread({}, "old", [*of("old", 1, 2), *of("new", 3)]) == {1: 50, 2: 50}


def test_weight_of_nothing_is_no_request_at_all():
    """Not one in a thousand."""
    assert spread({"old": 100, "new": 0}, "old", [*of("old", 1), *of("new", 2)]) == {1: 100}


def test_smallest_weight_is_one_slot():
    """One per cent of many instances goes to one of them."""
    found = spread({"old": 99, "new": 1}, "old", [*of("old", 1), *of("new", *range(2, 12))])
    assert (found[1], sum(found.values()), len(found)) == (99, 100, 2)


def test_share_of_a_release_without_instances_goes_to_the_others():
    """Its instances are not ready, or have just ended."""
    unready, ended = of("new", 2, ready=False), of("new", 3, running=False)
    assert spread({"old": 10, "new": 90}, "old", [*of("old", 1), *unready, *ended]) == {1: 100}


def test_live_release_steps_in_when_no_share_can_be_served():
    """All traffic was switched, and the new release died: never nothing, while the former one is kept."""
    ended = of("new", 2, running=False)
    assert spread({"new": 100}, "old", [*of("old", 1), *ended]) == {1: 100}


def test_instance_that_is_started_again_is_waited_for_before_one_that_is_not_ready():
    """Nobody is well: who was gets the requests, then anybody."""
    ended, unready = of("old", 1, running=False), of("old", 2, ready=False)
    assert spread({}, "old", [*ended, *unready]) == {1: 100}
    assert spread({}, "old", unready) == {2: 100}
    assert spread({}, "old", []) == {}


@given(SHARES, st.sampled_from(["a", "b", None]), CANDIDATES)
def test_all_slots_are_given_or_none(shares, live, candidates):
    """To instances that there are; a release with a well instance and a weight gets some, one without weight none."""
    found = spread(shares, live, candidates)
    assert sum(found.values()) in (0, SLOTS)
    assert set(found) <= {one.port for one in candidates}
    assert min(found.values(), default=1) > 0
    well = {one.release_id for one in candidates if one.ready and one.running and shares.get(one.release_id, 0) > 0}
    served = {one.release_id for one in candidates if one.port in found}
    assert not well or served == well
    if live is not None and any(one.release_id == live for one in candidates):
        assert found


@given(SHARES, CANDIDATES, CANDIDATES)
def test_slots_change_no_more_than_they_must(shares, before, after):
    """What an instance keeps, it keeps where it was."""
    first, second = spread(shares, "a", before), spread(shares, "a", after)
    if not first or not second:
        return
    now = filled([None] * SLOTS, first)
    then = filled(now, second)
    assert Counter(then) == second
    changed = sum(was != becomes for was, becomes in zip(now, then, strict=True))
    assert changed == SLOTS - sum(min(first.get(port, 0), second.get(port, 0)) for port in second)
