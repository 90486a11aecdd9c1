"""
Databases of vulnerabilities: one folder for each scanner and mirror under PENSTOCK_HOME/tools.

They are fetched by a job of their own, which may use the network and sees nothing of the repository; the scan reads
them without network. A database is looked after once an hour, and never while a scan reads it.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import attrs

from penstock.engines import Engine, Job
from penstock.errors import PlatformError, StepTimeout
from penstock.pipeline.cancel import CancelToken
from penstock.scanners import DatabaseRequest, KeepsDatabase, ToolRun
from penstock.scanners.tools import Tool
from penstock.settings import Settings
from penstock.toolbox import locked

FRESH_S = 3600.0
TAIL = 40
_CHECKED = ".checked"


class Log(Protocol):
    """Where what the job prints goes."""

    def line(self, text: str) -> None:
        """A line of Penstock's own."""

    def output(self, chunk: bytes) -> None:
        """What the tool printed."""

    def tail(self, lines: int) -> tuple[str, ...]:
        """The last lines that were printed."""


@attrs.frozen
class DatabaseKeeper:
    """
    Keeps the databases of one Penstock.

    run_id, step: for whom, so that cancelling the run ends a download. timeout_s: of a download, seconds.
    """

    settings: Settings
    engine: Engine
    run_id: str
    step: str
    log: Log
    token: CancelToken
    timeout_s: float

    @contextmanager
    def opened(
        self, name: str, scanner: KeepsDatabase, tool: Tool, wanted: DatabaseRequest, *, update: bool
    ) -> Iterator[Path]:
        """
        The folder of the scanner's database, which nobody changes in the block.

        update: whether to fetch it; otherwise it is taken as somebody put it there.
        Raises: PlatformError when it cannot be had, StepTimeout when that takes too long, Cancelled.
        """
        folder = database_folder(self.settings, name, wanted)
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock")
        if update and not _fresh(folder):
            with locked(lock, self.token):
                if not _fresh(folder):  # another process may have fetched it while we waited
                    self._fetch(name, scanner, tool, wanted, folder)
        with locked(lock, self.token, shared=True):
            yield folder

    def _fetch(self, name: str, scanner: KeepsDatabase, tool: Tool, wanted: DatabaseRequest, folder: Path) -> None:
        self.log.line(f"bringing {name}'s database of vulnerabilities up to date")
        job = Job(
            run_id=self.run_id,
            step=self.step,
            argv=scanner.fetch(wanted),
            workspace=folder,
            env=scanner.fetch_env(wanted),
            read_only=tool.read_only,
            network=True,
            timeout_s=self.timeout_s,
        )
        ended = self.engine.run(job, self.log.output, self.token)
        self.token.raise_if_cancelled()
        if ended.state == "timed_out":
            raise StepTimeout(
                f"fetching {name}'s database took longer than the limit of {self.timeout_s:.0f} s",
                where=self.step,
                remedy="give it more `timeout`, or name a mirror that is nearer in `database`",
            )
        if ended.code != 0:
            why = scanner.why_not(ToolRun(ended.code, "\n".join(self.log.tail(TAIL)), None))
            raise PlatformError(
                f"{name} has no database of vulnerabilities: {why}",
                where=self.step,
                remedy="let this machine reach where it comes from, or name a mirror in `database`",
            )
        (folder / _CHECKED).touch()


def database_folder(settings: Settings, name: str, wanted: DatabaseRequest) -> Path:
    """`<scanner>-database`, or one of its own for each mirror."""
    told = "\n".join(part or "" for part in (wanted.mirror, wanted.java_mirror))
    suffix = f"-{hashlib.sha256(told.encode()).hexdigest()[:8]}" if told.strip() else ""
    java = "-java" if wanted.java else ""
    return settings.home / "tools" / f"{name}-database{java}{suffix}"


def _fresh(folder: Path) -> bool:
    try:
        return time.time() - (folder / _CHECKED).stat().st_mtime < FRESH_S
    except FileNotFoundError:
        return False
