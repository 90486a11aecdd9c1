"""Every strategy, against fleets in which anything happens: what may never be, and that it comes to an end."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.deploy.analysis import Analysis
from penstock.deploy.strategies import CanaryStep, Settings, open_strategy, portion
from tests.deploy.strategies.fleet_model import Side, World

LIMITS = st.one_of(st.integers(0, 4), st.integers(0, 100).map(lambda number: f"{number}%"))
WEIGHTS = st.lists(st.integers(1, 100), min_size=1, max_size=4, unique=True).map(sorted)
HOLDS = st.sampled_from([0.0, 5.0, 60.0, None])
MEASURED = Analysis(max_error_rate=0.01)


@st.composite
def strategy_settings(draw):
    """Any that can be followed."""
    name = draw(st.sampled_from(["recreate", "rolling", "blue_green", "canary"]))
    return Settings(
        name=name,
        max_surge=draw(LIMITS),
        max_unavailable=draw(LIMITS),
        keep_s=draw(st.sampled_from([0.0, 30.0])),
        steps=tuple(CanaryStep(weight=weight, hold_s=draw(HOLDS)) for weight in draw(WEIGHTS)),
        failure_limit=draw(st.integers(0, 2)),
        inconclusive_limit=draw(st.integers(0, 2)),
        analysis=draw(st.sampled_from([None, MEASURED])),
    )


def floor_of(chosen: Settings, replicas: int) -> int:
    """Below which the strategy may not go of its own accord."""
    if chosen.name != "rolling":
        return replicas
    surge = portion(chosen.max_surge, replicas, where="", up=True)
    unavailable = portion(chosen.max_unavailable, replicas, where="", up=False)
    return max(0, replicas - (1 if surge == unavailable == 0 else unavailable))


class AnyRollout(RuleBasedStateMachine):
    """Turns of the driver, between which anything may happen to the instances."""

    @initialize(chosen=strategy_settings(), replicas=st.integers(1, 6), old=st.integers(0, 6), sick=st.integers(0, 3))
    def begin(self, chosen, replicas, old, sick):
        sick = min(sick, old)
        floor = floor_of(chosen, replicas)
        if chosen.name in ("blue_green", "canary"):
            floor = min(replicas, old) if old else replicas
        self.world = World(chosen, replicas, old, Side(healthy=old - sick, failed=sick), floor)

    @property
    def is_going(self):
        return self.world.verdict == "going"

    @precondition(lambda self: self.is_going)
    @rule(turns=st.integers(1, 3))
    def turn(self, turns):
        for _ in range(turns):
            if self.is_going:
                self.world.turn()

    @precondition(lambda self: self.is_going)
    @rule(turns=st.integers(1, 8))
    def all_goes_well_for_a_while(self, turns):
        for _ in range(turns):
            self.world.start_all()
            if self.is_going:
                self.world.turn()

    @precondition(lambda self: self.is_going)
    @rule(side=st.sampled_from(["new", "old"]), number=st.integers(1, 6))
    def become_healthy(self, side, number):
        getattr(self.world, side).move("starting", "healthy", number)

    @precondition(lambda self: self.is_going)
    @rule(side=st.sampled_from(["new", "old"]), here=st.sampled_from(["starting", "healthy"]), number=st.integers(1, 6))
    def crash(self, side, here, number):
        getattr(self.world, side).move(here, "failed", number)

    @precondition(lambda self: self.is_going)
    @rule(number=st.integers(1, 6), there=st.sampled_from(["starting", "healthy"]))
    def old_ones_come_back(self, number, there):
        self.world.old.move("failed", there, number)

    @precondition(lambda self: self.is_going)
    @rule()
    def drained(self):
        self.world.new.leaving = self.world.old.leaving = 0

    @precondition(lambda self: self.is_going)
    @rule(seconds=st.sampled_from([0.1, 4.0, 40.0, 200.0]))
    def time_passes(self, seconds):
        self.world.now_s += seconds

    @precondition(lambda self: self.is_going)
    @rule(answer=st.sampled_from(["passed", "failed", "inconclusive"]))
    def measure(self, answer):
        if self.world.wanted is not None and self.world.wanted.analyse:
            self.world.analysis, self.world.measured = answer, self.world.measured + 1

    @precondition(lambda self: self.is_going)
    @rule(command=st.sampled_from(["promote", "abort"]))
    def say(self, command):
        self.world.command = command

    @precondition(lambda self: self.is_going)
    @rule(answer=st.booleans())
    def verification_will_say(self, answer):
        self.world.answer = answer

    @precondition(lambda self: not self.is_going)
    @rule(crashed=st.integers(0, 2), command=st.sampled_from(["promote", "abort", None]))
    def final_is_final(self, crashed, command):
        """Whatever happens afterwards, and whoever asks again."""
        before = self.world.verdict
        self.world.new.move("healthy", "failed", crashed)
        self.world.command = command
        progress, wanted = open_strategy(self.world.settings).next(self.world.progress, self.world.observed())
        assert (progress, wanted.verdict) == (self.world.progress, before)

    @invariant()
    def old_and_new_never_run_beside_each_other_when_they_must_not(self):
        if hasattr(self, "world") and self.world.settings.name == "recreate":
            assert not (self.world.new.total and self.world.old.total)

    def teardown(self):
        if not hasattr(self, "world"):
            return
        it = self.world
        for _ in range(300):
            if it.verdict != "going":
                break
            it.start_all()
            it.now_s += 30
            if it.wanted is not None and it.wanted.analyse:
                it.analysis, it.measured = "passed", it.measured + 1
            it.command = "promote"  # a person is there
            it.turn()
        assert it.verdict in ("succeeded", "failed"), (it.progress, it.observed(), it.wanted)
        if it.verdict == "failed":
            assert (it.new.total, it.weight) == (0, 0)
        else:
            assert (it.old.total, it.weight) == (0, 100)


TestAnyRollout = AnyRollout.TestCase
TestAnyRollout.settings = settings(
    max_examples=400, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
