"""
What runs instances: one Protocol, one file per target, and the registry.

A target has two sides. A deployment places a release (files, an image), asks whether an instance is well, and forgets
releases that nobody will go back to. The keeper has it keep instances running, and reap what a former one has left.
"""

from collections.abc import Callable, Collection, Container
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import attrs

from penstock.deploy.health import HealthCheck, ProbeResult
from penstock.deploy.plan import Service, ServiceConfiguration, Source

if TYPE_CHECKING:
    from penstock.deploy.releases import Instance, Release
    from penstock.pipeline.cancel import CancelToken
    from penstock.settings import Settings

FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_S = 0.1, 30.0, 30.0
REASON_LINES = 5

_FILES = {"process": "process:ProcessTarget", "docker": "docker:DockerTarget"}

Phase = Literal["waiting", "running", "stopping", "stopped"]
Wake = Callable[[], None]


@attrs.frozen
class Assignment:
    """
    What the keeper is to run: one wanted row of `instances` with its release.

    digest: of the release. log: where the instance's output goes. port, restarts: what the row says.
    """

    instance_id: str
    release_id: str
    service: Service
    digest: str
    configuration: ServiceConfiguration = attrs.field(repr=False)
    log: Path
    port: int | None
    restarts: int


@attrs.frozen
class Report:
    """
    What the row is to say.

    state: starting, running, exited or stopped. port: on loopback, where the instance answers.
    """

    state: str
    pid: int | None
    port: int | None
    restarts: int
    reason: str | None
    started_at: datetime | None


class Kept(Protocol):
    """
    One instance that should run until `stop`, started again with back-off when it ends. No method blocks.

    Its output is in the assignment's log. due_s: when it wants its next `step`, in monotonic seconds.
    """

    phase: Phase
    due_s: float
    report: Report

    @property
    def pid(self) -> int | None:
        """Its process, if that is a child of the keeper's own."""

    def step(self, now_s: float, taken: Container[int]) -> None:
        """Do what is due. taken: ports that other instances have or were given."""

    def stop(self, now_s: float) -> None:
        """Begin to stop: ask it to end now, kill it when its grace has passed. Harmless when stopping already."""


@attrs.frozen
class Census:
    """Ids of instances. known: all that ever were; wanted: that should run; kept: that this keeper runs."""

    known: Collection[str]
    wanted: Collection[str]
    kept: Collection[str]


class Target(Protocol):
    """
    What runs instances of releases.

    start_limit_s: how long after it was asked for an instance may have no address yet.
    """

    start_limit_s: float

    def place(self, release: "Release", source: Source | None, token: "CancelToken") -> None:
        """
        Have everything there that the release's instances need; complete or not at all.

        Raises: PlatformError, StepFailure, Cancelled, and what `source` raises.
        """

    def probe(self, check: HealthCheck, instance: "Instance") -> ProbeResult:
        """Ask a running instance once whether it is well. Raises: PlatformError when the target itself is away."""

    def forget(self, release_ids: Collection[str]) -> None:
        """Remove what was placed for these, as far as it can be now; harmless when it is gone."""

    def keep(self, assignment: Assignment) -> Kept:
        """An instance, found again if it runs already, else to be started at its first `step`."""

    def reap(self, census: Callable[[], Census]) -> None:
        """Remove what a killed keeper has left and nobody wants; when the target is away, as soon as it is back."""


def open_target(name: str, settings: "Settings", wake: Wake = lambda: None) -> Target:
    """
    The target of this name; nothing is connected or started yet.

    wake: called from any thread when an instance's report may have changed.
    """
    file, _, title = _FILES[name].partition(":")
    target: Target = getattr(import_module(f"penstock.deploy.targets.{file}"), title)(settings, wake)
    return target


def delay_s(quick_ends: int) -> float:
    """Seconds before the next start when it ended `quick_ends` times in a row without having run steadily."""
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** max(0, min(quick_ends - 1, 20)))
