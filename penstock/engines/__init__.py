"""
Where a step's commands run: one Protocol, one file for each engine, and the registry.

An engine runs a `Job` to its end, streams what it prints, obeys the run's cancel token, and leaves no
process, container or network behind.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

import attrs

from penstock.pipeline.cancel import CancelToken

ExitState = Literal["exited", "timed_out", "cancelled"]
OnOutput = Callable[[bytes], None]


@attrs.frozen
class Job:
    """
    One process tree to run.

    argv: the command; paths in it are paths as seen inside.
    workspace: host folder that is `/workspace` inside, the only writable one besides a private /tmp.
    work_dir: folder to start in, relative to the workspace.
    read_only: host folders that must be visible inside at their own path although they lie in PENSTOCK_HOME.
    image: what an engine of containers runs it in. timeout_s: seconds until it is stopped.
    """

    run_id: str
    step: str
    argv: tuple[str, ...]
    workspace: Path
    work_dir: str = "."
    env: Mapping[str, str] = attrs.field(factory=dict)
    image: str | None = None
    network: bool = False
    read_only: tuple[Path, ...] = ()
    timeout_s: float = 3600.0


@attrs.frozen
class Exit:
    """How a job ended. `code` is the exit code, or 128 + signal. Times in seconds, memory in bytes."""

    state: ExitState
    code: int
    seconds: float
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None


class Engine(Protocol):
    """What runs a job. Raises PlatformError when it cannot even try."""

    @property
    def name(self) -> str:
        """What penstock.yaml and records call it."""

    def isolation(self) -> str:
        """One sentence that says plainly how far a job is kept apart from this machine."""

    def run(self, job: Job, on_output: OnOutput, token: CancelToken) -> Exit:
        """
        Run the job to its end.

        on_output: called with chunks of bytes as they come, stdout and stderr in their true order.
        Returns: always an Exit when the job was started, also when it was cancelled or timed out.
        """

    def reap(self, run_id: str, step: str = "") -> int:
        """Stop whatever of this run (or one step of it) is still alive. Returns: how many were stopped."""


def open_engine(home: Path, name: str = "process") -> Engine:
    """
    The engine called `name`.

    home: PENSTOCK_HOME, hidden from every job.
    Raises: SettingsError for a name that no engine has.
    """
    from penstock.engines.process import ProcessEngine
    from penstock.errors import SettingsError

    engines: dict[str, Callable[[Path], Engine]] = {"process": ProcessEngine}
    if name not in engines:
        raise SettingsError(
            f'no engine is called "{name}"', where="PENSTOCK_ENGINE", remedy=f"use {', '.join(engines)}"
        )
    return engines[name](home)
