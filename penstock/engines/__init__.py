"""
Where a step's commands run: one Protocol, one file for each engine, and the registry.

An engine runs a `Job` to its end, streams what it prints, obeys the run's cancel token, and leaves no
process, container or network behind.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Literal, Protocol

import attrs

from penstock.pipeline.cancel import CancelToken

if TYPE_CHECKING:
    from penstock.settings import Settings

ExitState = Literal["exited", "timed_out", "cancelled", "out_of_memory"]
OnOutput = Callable[[bytes], None]
Gateway = Callable[[socket], AbstractContextManager[None]]
GATEWAY_PORT = 3128
SECRETS_FOLDER = "/run/secrets"
DEFAULT_PIDS = 4096

_FILES = {"process": "process:ProcessEngine", "docker": "docker:DockerEngine", "kubernetes": "kubernetes:JobsEngine"}


@attrs.frozen
class Probe:
    """
    How a sidecar is asked whether it is ready: a TCP port, a path over HTTP on that port, or a command inside it.

    limit_s: how long it may take to become ready; interval_s: between two questions. Seconds.
    """

    port: int | None = None
    http: str | None = None
    command: tuple[str, ...] | None = None
    interval_s: float = 1.0
    limit_s: float = 60.0


@attrs.frozen
class Sidecar:
    """
    A service beside a job: started before it, stopped after it, reached by its name (and by nobody else).

    argv: the command; None for the image's own. ready: None when being started is enough.
    """

    name: str
    image: str | None = None
    argv: tuple[str, ...] | None = None
    env: Mapping[str, str] = attrs.field(factory=dict)
    ready: Probe | None = None


@attrs.frozen
class Mount:
    """A folder of this machine at a place of its own inside."""

    inside: str
    folder: Path
    writable: bool = False


@attrs.frozen
class Job:
    """
    One process tree to run.

    argv: the command; paths in it are paths as seen inside.
    workspace: host folder that is `/workspace` inside, the only writable one besides a private /tmp.
    work_dir: folder to start in, relative to the workspace.
    workspace_writable: whether the job may change what lies there.
    read_only: host folders that must be visible inside at their own path although they lie in PENSTOCK_HOME.
    mounts: host folders at places of their own; only where the engine keeps jobs apart.
    image: what an engine of containers runs it in.
    network: whether anything but its sidecars can be reached.
    gateway: serves a socket that the job alone reaches, at 127.0.0.1:3128: the one way out of a job without network.
    secrets: name → value; each is a file in memory at /run/secrets/NAME, readable by the job alone.
    secrets_folder: another folder for them, below one of the mounts.
    services: sidecars, all ready before the job begins.
    cpus: processors, may be a fraction. memory_bytes: of all its processes together. pids: processes and threads.
    timeout_s: seconds until it is stopped.
    """

    run_id: str
    step: str
    argv: tuple[str, ...]
    workspace: Path
    work_dir: str = "."
    env: Mapping[str, str] = attrs.field(factory=dict)
    image: str | None = None
    network: bool = False
    workspace_writable: bool = True
    read_only: tuple[Path, ...] = ()
    mounts: tuple[Mount, ...] = ()
    gateway: Gateway | None = None
    secrets: Mapping[str, bytes] = attrs.field(factory=dict, repr=False)
    secrets_folder: str = SECRETS_FOLDER
    services: tuple[Sidecar, ...] = ()
    cpus: float | None = None
    memory_bytes: int | None = None
    pids: int = DEFAULT_PIDS
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
    """
    What runs a job.

    Raises PlatformError when it cannot even try (it is away, its disk is full), StepFailure when the job cannot be
    (no such image, an image is needed and none is named, a sidecar that does not become ready).
    """

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

    def shell(self, job: Job) -> int:
        """Run the job's argv on this terminal, for a person. Returns: its exit code."""

    def image_digest(self, image: str) -> str | None:
        """`sha256:…` of what `image` stands for now, fetched if need be; None where images are not used."""

    def reap(self, run_id: str, step: str = "") -> int:
        """Stop whatever of this run (or one step of it) is still alive. Returns: how many were stopped."""


def open_engine(settings: "Settings") -> Engine:
    """
    The engine that the settings name.

    Raises: SettingsError for a name that no engine has.
    """
    from penstock.errors import SettingsError

    if settings.engine not in _FILES:
        raise SettingsError(
            f'no engine is called "{settings.engine}"', where="PENSTOCK_ENGINE", remedy=f"use {', '.join(_FILES)}"
        )
    file, _, name = _FILES[settings.engine].partition(":")
    engine: Engine = getattr(import_module(f"penstock.engines.{file}"), name)(settings)
    return engine
