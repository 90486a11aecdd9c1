"""
How a release takes over from the one before: each strategy a pure state machine, one file, one line in the registry.

Whoever carries a rollout out looks at the instances, asks the strategy what is wanted next, makes that so, and looks
again. The strategy neither waits nor starts anything; all that it remembers is in `Progress`, which is kept in the
database, so that a rollout that was cut off goes on where it was.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Literal, Protocol

import msgspec

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
    weight: per cent of the requests that go to the new release at this moment.
    analysis: what the measurements since the present step began say; `none` while there are none yet.
    verified: what the verification says; None while it has not been asked for, or is under way.
    command: what somebody asked for and was not obeyed yet.
    """

    now_s: float
    replicas: int
    old_replicas: int
    new: Fleet = Fleet()
    old: Fleet = Fleet()
    weight: int = 0
    analysis: Analysis = "none"
    verified: bool | None = None
    command: Command | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """
    All that a strategy remembers.

    phase: the strategy's own word for where it stands. step: which of its steps, from 0. since_s: when that began, in
    the time of `Observed.now_s`.
    """

    phase: str = "begin"
    step: int = 0
    since_s: float = 0.0
    failures: int = 0


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
    failure_limit (canary): how many measurements may fail in a step. inconclusive measurements are not failed ones.
    """

    name: Name = "rolling"
    max_surge: int | str = 1
    max_unavailable: int | str = 0
    keep_s: float = 0.0
    steps: tuple[CanaryStep, ...] = ()
    failure_limit: int = 0


def open_strategy(settings: Settings) -> Strategy:
    """The state machine for these settings. Raises: InputError when they cannot be followed."""
    file, _, title = _FILES[settings.name].partition(":")
    strategy: Strategy = getattr(import_module(f"penstock.deploy.strategies.{file}"), title)(settings)
    return strategy
