"""A fleet that strategies are tried on: it obeys, and its instances start, fail and die as a test says."""

import attrs

from penstock.deploy.strategies import (
    Analysis,
    Command,
    Fleet,
    Observed,
    Progress,
    Settings,
    Strategy,
    Wanted,
    open_strategy,
    portion,
)


@attrs.define
class Side:
    """The instances of one release, counted, and those that were asked to stop."""

    starting: int = 0
    healthy: int = 0
    failed: int = 0
    leaving: int = 0

    @property
    def total(self) -> int:
        return self.starting + self.healthy + self.failed

    def seen(self) -> Fleet:
        return Fleet(starting=self.starting, healthy=self.healthy, failed=self.failed)

    def obey(self, wanted: int) -> None:
        """Start what is missing; failed ones go first, then those that start, then healthy ones."""
        self.starting += max(0, wanted - self.total)
        for name in ("failed", "starting", "healthy"):
            gone = min(getattr(self, name), max(0, self.total - wanted))
            setattr(self, name, getattr(self, name) - gone)
            self.leaving += gone

    def move(self, here: str, there: str, number: int = 1) -> None:
        number = min(number, getattr(self, here))
        setattr(self, here, getattr(self, here) - number)
        setattr(self, there, getattr(self, there) + number)


@attrs.define
class World:
    """A rollout as its driver sees it. `turn` is one look and what follows, held against what may never be."""

    settings: Settings
    replicas: int
    old_replicas: int
    old: Side
    floor: int
    new: Side = attrs.field(factory=Side)
    progress: Progress = attrs.field(factory=Progress)
    weight: int = 0
    now_s: float = 0.0
    verified: bool | None = None
    answer: bool = True
    analysis: Analysis = "none"
    measured: int = 0
    command: Command | None = None
    wanted: Wanted | None = None
    weights: list[int] = attrs.field(factory=list)
    _strategy: Strategy | None = None

    @property
    def verdict(self) -> str:
        return "going" if self.wanted is None else self.wanted.verdict

    def observed(self) -> Observed:
        return Observed(
            now_s=self.now_s,
            replicas=self.replicas,
            old_replicas=self.old_replicas,
            new=self.new.seen(),
            old=self.old.seen(),
            leaving=self.new.leaving + self.old.leaving,
            weight=self.weight,
            analysis=self.analysis,
            measured=self.measured,
            verified=self.verified,
            command=self.command,
        )

    def turn(self) -> Wanted:
        """Ask, check that nothing was decided that must not be, and obey."""
        self._strategy = self._strategy or open_strategy(self.settings)
        seen = self.observed()
        progress, wanted = self._strategy.next(self.progress, seen)
        assert (progress, wanted) == open_strategy(self.settings).next(self.progress, seen), "not pure"
        self._check(seen, progress, wanted)
        if (progress.phase, progress.step) != (self.progress.phase, self.progress.step):
            self.measured, self.analysis = 0, "none"
        self.progress, self.wanted, self.command = progress, wanted, None
        self.new.obey(wanted.new)
        self.old.obey(wanted.old)
        self.weight = wanted.weight
        self.weights.append(wanted.weight)
        if wanted.verify and self.verified is None and self.new.healthy:
            self.verified = self.answer
        self.now_s += max(0.01, wanted.look_again_s)
        return wanted

    def _check(self, seen: Observed, progress: Progress, wanted: Wanted) -> None:
        assert 0 <= wanted.weight <= 100
        assert min(wanted.new, wanted.old) >= 0
        assert wanted.new <= max(seen.replicas, seen.new.total)
        assert wanted.old <= max(seen.old_replicas, seen.old.total)
        assert self.old_replicas or wanted.weight in (0, 100)
        if self.settings.name != "recreate":
            self._check_capacity(seen, progress, wanted)
        self._check_target(seen, wanted)
        self._check_first(seen, progress, wanted)
        if wanted.weight and not seen.weight:
            assert seen.verified, "traffic before the verification has passed"
        if progress.phase == "back" and seen.old.healthy:
            assert wanted.weight <= seen.weight, "more traffic for a release that has failed"
        self._check_end(seen, wanted)
        if wanted.verdict == "going" and progress.phase != "back":
            assert wanted.weight >= seen.weight or self.settings.name == "rolling", "the weight fell on the way forward"

    def _check_capacity(self, seen: Observed, progress: Progress, wanted: Wanted) -> None:
        """Healthy instances that take traffic; what has failed the verification never counts."""
        kept_new, kept_old = min(seen.new.healthy, wanted.new), min(seen.old.healthy, wanted.old)
        there = seen.old.healthy + (seen.new.healthy if seen.weight else 0)
        kept = kept_old + (kept_new if wanted.weight or seen.weight else 0)
        back = progress.phase in ("back", "failed")
        floor = min(self.floor, self.floor_back) if back else self.floor
        given_up = (
            back and seen.old.healthy and (self.now_s - self.progress.since_s >= 120 or kept_old >= seen.old_replicas)
        )
        ended = wanted.verdict == "failed" and seen.old.healthy == 0
        if kept < there and not given_up and not ended:
            assert kept >= floor, f"{kept} healthy instances are left of {there}, {floor} are needed"

    @property
    def floor_back(self) -> int:
        return max(0, self.floor - max(0, self.replicas - self.old_replicas))

    def _check_target(self, seen: Observed, wanted: Wanted) -> None:
        """Whoever gets all requests has somebody to answer them, if anybody has."""
        new, old = min(seen.new.healthy, wanted.new), min(seen.old.healthy, wanted.old)
        if wanted.weight == 100:
            assert new or not old, "all traffic to a release without a healthy instance"
        if wanted.weight == 0 and seen.weight and self.old_replicas and wanted.verdict == "going":
            assert old or not new or self.settings.name == "recreate", "no traffic for the only healthy release"

    def _check_first(self, seen: Observed, progress: Progress, wanted: Wanted) -> None:
        """Rolling: until a new instance is healthy, no old one goes, and no second wave starts."""
        if self.settings.name != "rolling" or progress.phase != "begin" or wanted.verdict != "going":
            return
        surge = portion(self.settings.max_surge, self.replicas, where="", up=True)
        assert wanted.new <= max(1, surge, seen.new.total)
        assert wanted.old >= seen.old.total - (0 if surge else 1)

    def _check_end(self, seen: Observed, wanted: Wanted) -> None:
        if wanted.verdict == "succeeded":
            assert seen.old.total == 0
            assert wanted.old == 0
            assert (seen.weight, wanted.weight) == (100, 100)
            assert seen.new.healthy >= seen.replicas
        if wanted.verdict == "failed":
            assert (wanted.new, wanted.weight) == (0, 0)
            assert wanted.old == seen.old_replicas

    def start_all(self) -> None:
        """Whoever starts becomes healthy, whoever leaves is gone, failed old ones come back."""
        for side in (self.new, self.old):
            side.move("starting", "healthy", side.starting)
            side.leaving = 0
        self.old.move("failed", "healthy", self.old.failed)

    def run(self, turns: int = 400) -> str:
        """Until the end, with everything going well from now on."""
        for _ in range(turns):
            if self.turn().verdict != "going":
                break
            self.start_all()
        return self.verdict


def world(settings: Settings, replicas: int = 3, old_replicas: int = 3, floor: int | None = None) -> World:
    """With an old release that is whole and healthy."""
    return World(settings, replicas, old_replicas, Side(healthy=old_replicas), replicas if floor is None else floor)
