"""What each strategy does, turn by turn."""

import pytest

from penstock.deploy.analysis import Analysis
from penstock.deploy.strategies import CanaryStep, Settings
from tests.deploy.strategies.fleet_model import Side, World, world

STEPS = (CanaryStep(weight=10, hold_s=60), CanaryStep(weight=50, hold_s=None))
CANARY = Settings(name="canary", steps=STEPS)
MEASURED = Settings(
    name="canary",
    steps=(CanaryStep(weight=10, hold_s=60),),
    analysis=Analysis(max_p95_s=1),
    failure_limit=1,
    inconclusive_limit=2,
)
BLUE_GREEN = Settings(name="blue_green", keep_s=30)
EVERY = [
    Settings(),
    BLUE_GREEN,
    Settings(name="recreate"),
    Settings(name="canary", steps=(CanaryStep(weight=10, hold_s=1),)),
]


def held(it: World) -> World:
    """A canary that is held in a step."""
    for _ in range(20):
        if it.progress.phase == "hold":
            return it
        it.turn()
        it.start_all()
    raise AssertionError(it.progress)


@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: settings.name)
@pytest.mark.parametrize(("replicas", "old"), [(1, 1), (3, 3), (5, 2), (2, 5), (3, 0), (1, 0)])
def test_healthy_release_takes_over(settings, replicas, old):
    """All traffic, its full number, and nothing of the one before."""
    it = world(settings, replicas, old, floor=0)
    assert it.run() == "succeeded"
    assert (it.new, it.old.total, it.weight) == (Side(healthy=replicas), 0, 100)


@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: settings.name)
@pytest.mark.parametrize("old", [0, 3])
def test_release_that_crashes_at_once_is_taken_back(settings, old):
    """No request reaches it, and the old release is whole."""
    it = world(settings, 3, old, floor=0)
    for _ in range(50):
        if it.turn().verdict != "going":
            break
        it.new.move("starting", "failed", 3)
        it.new.leaving = it.old.leaving = 0
        it.old.move("starting", "healthy", 3)
    assert it.verdict == "failed"
    assert set(it.weights) == {0}
    assert (it.new.total, it.old.healthy) == (0, old)


@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: settings.name)
def test_failed_verification_gives_the_release_no_traffic(settings):
    """It is asked before."""
    it = world(settings)
    it.answer = False
    assert it.run() == "failed"
    assert set(it.weights) == {0}


@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: settings.name)
def test_abort_brings_everything_back(settings):
    """At any turn."""
    for turns in range(1, 8):
        it = world(settings)
        it.run(turns)
        if it.verdict == "going":
            it.command = "abort"
            assert it.run() == "failed"
            assert (it.new.total, it.old.healthy, it.weight) == (0, 3, 0)


@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: settings.name)
def test_bad_old_release_never_blocks_a_good_one(settings):
    """None of its instances is healthy, ever."""
    it = World(settings, 3, 3, Side(failed=3), 0)
    for _ in range(60):
        if it.turn().verdict != "going":
            break
        it.new.move("starting", "healthy", 3)
        it.new.leaving = it.old.leaving = 0
    assert it.verdict == "succeeded"


def test_rolling_starts_one_first_and_takes_no_old_one_before_it_is_healthy():
    """However many may surge in the end; verified before it gets traffic."""
    it = world(Settings(max_surge=1, max_unavailable=1), floor=2)
    for _ in range(5):
        assert (it.turn().new, it.old.healthy, it.weight) == (1, 3, 0)
    it.new.move("starting", "healthy")
    it.turn()  # verified
    it.turn()
    assert it.old.healthy == 1
    assert it.new.total == 3
    assert it.weight == 50


def test_rolling_without_surge_makes_room_for_the_first():
    """One old instance, not more, though more might be missing."""
    it = world(Settings(max_surge=0, max_unavailable="100%"), floor=0)
    for _ in range(5):
        it.turn()
        assert (it.old.total, it.new.total) == (2, 1)


def test_rolling_never_has_more_than_its_surge():
    """Counted over both releases."""
    it = world(Settings(max_surge="34%", max_unavailable=0), 6, 6)
    for _ in range(60):
        if it.turn().verdict != "going":
            break
        assert it.new.total + it.old.total <= 6 + 3
        it.start_all()
    assert it.verdict == "succeeded"


def test_rolling_back_starts_the_old_ones_again_while_healthy_new_ones_serve():
    """Two of three were new already when one of them dies."""
    it = world(Settings())
    while it.new.healthy < 2:
        it.turn()
        it.start_all()
    it.new.move("healthy", "failed")
    it.turn()
    assert it.new.healthy == 1
    assert it.old.total >= 2
    assert it.run() == "failed"
    assert (it.new.total, it.old.healthy, it.weight) == (0, 3, 0)


def test_new_release_serves_on_when_the_old_one_cannot_come_back():
    """A person decides: it stays, or goes all the same."""
    for command, verdict in (("promote", "succeeded"), ("abort", "failed")):
        it = world(Settings(), floor=0)
        while it.new.healthy < 3:
            it.turn()
            it.start_all()
        it.new.move("healthy", "failed")
        for _ in range(30):
            it.turn()
            it.old.move("starting", "failed", 3)
            it.old.move("healthy", "failed", 3)
            it.new.leaving = it.old.leaving = 0
        assert (it.verdict, it.weight) == ("going", 100)
        assert "promote or abort" in it.wanted.why
        it.command = command
        it.turn()
        for _ in range(30):
            it.new.move("starting", "healthy", 3)
            it.old.leaving = 0
            if it.verdict == "going":
                it.turn()
        assert it.verdict == verdict


def test_blue_green_switches_all_at_once_and_keeps_the_old_ones():
    """Nothing, then everything; the old ones stand by for as long as was asked."""
    it = world(BLUE_GREEN)
    while it.weight == 0:
        assert it.old.healthy == 3
        it.turn()
        it.start_all()
    switched_s = it.now_s
    while it.old.total:
        it.turn()
        it.start_all()
    assert it.now_s - switched_s >= 30
    assert set(it.weights) == {0, 100}


def test_blue_green_goes_back_in_one_turn():
    """An instance dies after the switch: traffic is back at once, at an old release that is whole."""
    it = world(BLUE_GREEN)
    while it.weight == 0 or it.progress.phase != "keep":
        it.turn()
        it.start_all()
    it.new.move("healthy", "failed")
    assert it.turn().weight == 0
    assert it.run() == "failed"


def test_kept_release_goes_early_when_somebody_says_so():
    """Promoted by hand."""
    it = world(BLUE_GREEN)
    while it.progress.phase != "keep":
        it.turn()
        it.start_all()
    it.command = "promote"
    assert it.turn().old == 0


def test_recreate_never_has_both():
    """The new one starts when the last old one has ended, not when it was asked to."""
    it = world(Settings(name="recreate"), 1, 1)
    for _ in range(5):
        assert (it.turn().new, it.old.total) == (0, 0)  # it drains
    it.old.leaving = 0
    assert it.turn().new == 1


def test_canary_has_its_weights_part_of_the_instances():
    """Rounded up, at least one; the old ones stay whole."""
    it = held(world(CANARY, 15, 15))
    assert (it.weight, it.new.total, it.old.healthy) == (10, 2, 15)
    it.command = "promote"
    it.turn()
    it = held(it)
    assert (it.weight, it.new.total, it.old.healthy) == (50, 8, 15)


def test_canary_waits_for_a_person_where_it_shall():
    """A step without a time."""
    it = held(world(CANARY))
    it.now_s += 61
    it.turn()
    it = held(it)
    for _ in range(50):
        it.now_s += 1000
        assert it.turn().weight == 50
    assert "somebody to promote it" in it.wanted.why
    it.command = "promote"
    assert it.run() == "succeeded"


def measure(it: World, *answers: str) -> None:
    """Each is seen twice, and counts once."""
    for answer in answers:
        it.analysis, it.measured = answer, it.measured + 1
        it.turn()
        if it.verdict == "going" and it.progress.phase == "hold":
            it.turn()


def test_canary_fails_when_more_measurements_fail_than_may():
    """One may; the second brings everything back."""
    it = held(world(MEASURED))
    measure(it, "failed", "passed")
    assert it.progress.phase == "hold"
    measure(it, "failed")
    assert (it.progress.phase, it.weight) == ("back", 0)
    assert it.run() == "failed"


def test_canary_goes_on_only_after_a_measurement_that_passed():
    """When its time is over; not before, and not without one."""
    it = held(world(MEASURED))
    it.now_s += 61
    assert it.turn().analyse
    assert it.progress.phase == "hold"
    measure(it, "inconclusive")
    assert it.progress.phase == "hold"
    measure(it, "passed")
    assert it.progress.phase == "full"


def test_measurements_that_say_nothing_end_in_waiting_for_a_person():
    """They are not failed ones, but three in a row are enough."""
    it = held(world(MEASURED))
    measure(it, "inconclusive", "inconclusive", "inconclusive")
    it.now_s += 1000
    it.turn()
    assert (it.progress.phase, it.weight) == ("hold", 10)
    assert "promote or abort" in it.wanted.why
    it.command = "promote"
    assert it.run() == "succeeded"


def test_old_release_that_restarts_does_not_end_a_canary():
    """Nothing of it is healthy for a moment: the step is held all the same."""
    it = held(world(CANARY))
    it.old.move("healthy", "starting", 3)
    for _ in range(3):
        it.turn()
    assert (it.progress.phase, it.weight) == ("hold", 10)
    it.now_s += 11
    it.turn()
    assert it.progress.step == 1
