"""
How a release takes over from the one before: each strategy a pure state machine, one file, one line in the registry.

Whoever carries a rollout out looks at the instances, asks the strategy what is wanted next, makes that so, and looks
again. The strategy neither waits nor starts anything; all that it remembers is in `Progress`, which is kept in the
database, so that a rollout that was cut off goes on where it was.
"""

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Literal, Protocol

import msgspec

from penstock.deploy.analysis import Analysis as AnalysisSettings
from penstock.deploy.analysis import check_analysis
from penstock.errors import InputError

MOST_S = 30 * 86_400.0
MOST_INSTANCES = 1000

Name = Literal["recreate", "rolling", "blue_green", "canary"]
Side = Literal["old", "new"]
Verdict = Literal["going", "succeeded", "failed"]
Analysis = Literal["none", "passed", "failed", "inconclusive"]
Command = Literal["promote", "abort"]

_FILES: Mapping[Name, str] = {
    "recreate": "recreate:Recreate",
    "rolling": "rolling:Rolling",
    "blue_green": "blue_green:BlueGreen",
    "canary": "canary:Canary",
}


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """
    The instances of one release, counted; what was asked to stop is not among them.

    starting: not yet healthy, and not given up. healthy: answer their health check. failed: crashed, or not healthy
    within their limit, or no longer healthy.
    """

    starting: int = 0
    healthy: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """All that take up room."""
        return self.starting + self.healthy + self.failed


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the one who carries the rollout out sees.

    now_s: seconds since the rollout began, without the time that it was paused; never goes back.
    replicas: how many instances the new release shall have in the end. old_replicas: how many the old one was made
    for; 0 when there is none.
    leaving: instances of either release that were asked to stop and may still run; none is among `new` and `old`.
    weight: per cent of the requests that go to the new release at this moment.
    analysis: what the newest measurement since the present step began says; `none` while there is none yet.
    measured: how many measurements there are since the present step (`Progress.step`) began; each counts once.
    verified: what the verification says; None while it has not been asked for, or is under way.
    command: what somebody asked for and was not obeyed yet.
    """

    now_s: float
    replicas: int
    old_replicas: int
    new: Fleet = Fleet()
    old: Fleet = Fleet()
    leaving: int = 0
    weight: int = 0
    analysis: Analysis = "none"
    measured: int = 0
    verified: bool | None = None
    command: Command | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """
    All that a strategy remembers.

    phase: the strategy's own word for where it stands, in the end its verdict. step: which of its steps, from 0.
    since_s: when that began, in the time of `Observed.now_s`.
    measured: measurements of this step that were taken into account. failures: of those. inconclusive: in a row.
    gone_s: since when no instance of the old release is healthy; None while one is.
    """

    phase: str = "begin"
    step: int = 0
    since_s: float = 0.0
    failures: int = 0
    inconclusive: int = 0
    measured: int = 0
    gone_s: float | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """
    What shall be.

    new, old: instances of each release. A number below what there is means that so many are drained and stopped,
    failed ones first. weight: per cent of requests to the new release; the rest goes to the old one.
    analyse, verify: whether measurements and the verification are wanted now.
    verdict: `failed` and `succeeded` are final; with `failed` all traffic is back at the old release.
    why: one line for people. look_again_s: when to ask again although nothing has happened.
    """

    new: int
    old: int
    weight: int
    analyse: bool = False
    verify: bool = False
    verdict: Verdict = "going"
    why: str = ""
    look_again_s: float = 1.0


class Strategy(Protocol):
    """Decides, and does nothing."""

    def next(self, progress: Progress, seen: Observed) -> tuple[Progress, Wanted]:
        """What to remember and what shall be. Pure: the same arguments give the same answer."""


class CanaryStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """weight: per cent of requests to the new release. hold_s: for how long; None until somebody promotes it."""

    weight: int
    hold_s: float | None = 60.0


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    How a release takes over; part of its immutable record, and of `strategy:` in penstock.yaml.

    max_surge, max_unavailable (rolling): a count, or per cent of the replicas such as "25%", rounded as
    Kubernetes does: surge up, unavailable down, and not both 0.
    keep_s (blue_green): how long the former release is kept running after the switch, for an instant way back.
    steps (canary): weight in per cent and how long it is held; hold_s None waits for a promotion by hand.
    failure_limit (canary): how many measurements may fail in a step. inconclusive_limit: after how many in a row that
    say nothing a person is waited for; they are not failed ones.
    analysis (canary): what is measured while a step is held; None: only time counts.
    """

    name: Name = "rolling"
    max_surge: int | str = 1
    max_unavailable: int | str = 0
    keep_s: float = 0.0
    steps: tuple[CanaryStep, ...] = ()
    failure_limit: int = 0
    inconclusive_limit: int = 5
    analysis: AnalysisSettings | None = None


def check_settings(settings: Settings, *, where: str = "strategy") -> None:
    """Raises: InputError when they cannot be followed: where, what, remedy."""
    for name in ("max_surge", "max_unavailable"):
        portion(getattr(settings, name), 1, where=f"{where}.{name}", up=True)
    for name, most in (("keep_s", MOST_S), ("failure_limit", 1000), ("inconclusive_limit", 1000)):
        if not 0 <= getattr(settings, name) <= most:
            raise InputError(
                f"must be from 0 to {most:g}", where=f"{where}.{name}", remedy="leave it out for the default"
            )
    if settings.name == "canary":
        _check_steps(settings.steps, where=f"{where}.steps")
    if settings.analysis is not None:
        check_analysis(settings.analysis, where=f"{where}.analysis")


def _check_steps(steps: tuple[CanaryStep, ...], *, where: str) -> None:
    if not steps:
        raise InputError("a canary needs steps", where=where, remedy="name weights, such as 5, 25 and 50")
    before = 0
    for number, step in enumerate(steps):
        place = f"{where}[{number}]"
        if not before < step.weight <= 100:
            what = f"a weight of {step.weight} does not follow one of {before}"
            raise InputError(what, where=place, remedy="let weights rise, from 1 to 100 per cent")
        if step.hold_s is not None and not 0 <= step.hold_s <= MOST_S:
            raise InputError(f"must be from 0 to {MOST_S:g}", where=f"{place}.hold_s", remedy="give seconds")
        before = step.weight


def portion(value: int | str, replicas: int, *, where: str, up: bool) -> int:
    """
    So many of `replicas`: a count, or per cent such as "25%".

    Raises: InputError for anything else.
    Source: Kubernetes, deploymentutil.ResolveFenceposts: surge is rounded up, unavailable down.
    """
    if isinstance(value, int) and 0 <= value <= MOST_INSTANCES:
        return value
    found = re.fullmatch(r"([0-9]{1,3})%", str(value))
    if not found or int(found[1]) > 100:
        remedy = f'give a count up to {MOST_INSTANCES}, or per cent such as "25%"'
        raise InputError(f'"{value}" is no number of instances', where=where, remedy=remedy)
    exact = int(found[1]) * replicas
    return -(-exact // 100) if up else exact // 100


class Final:
    """A strategy whose verdict, once it has fallen, stands: also for whoever asks again after being cut off."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy

    def next(self, progress: Progress, seen: Observed) -> tuple[Progress, Wanted]:
        """See `Strategy`."""
        if progress.phase == "succeeded":
            return progress, Wanted(new=seen.replicas, old=0, weight=100, verdict="succeeded")
        if progress.phase == "failed":
            return progress, Wanted(new=0, old=seen.old_replicas, weight=0, verdict="failed")
        progress, wanted = self._strategy.next(progress, seen)
        if wanted.verdict != "going":
            progress = msgspec.structs.replace(progress, phase=wanted.verdict)
        return progress, wanted


def open_strategy(settings: Settings) -> Strategy:
    """The state machine for these settings. Raises: InputError when they cannot be followed."""
    check_settings(settings)
    file, _, title = _FILES[settings.name].partition(":")
    strategy: Strategy = getattr(import_module(f"penstock.deploy.strategies.{file}"), title)(settings)
    return Final(strategy)
