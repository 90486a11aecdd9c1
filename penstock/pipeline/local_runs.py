"""Runs that a command on this machine is at work on: known by a lock, so that one whose process was killed is found."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from penstock.pipeline.close import close_run
from penstock.settings import Settings


@contextmanager
def at_work(settings: Settings, run_id: str) -> Iterator[None]:
    """While the block runs, the run is this process's; the kernel lets go of it when the process ends, however."""
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / run_id
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        path.unlink(missing_ok=True)


def close_abandoned(settings: Settings, database: sa.Engine) -> int:
    """
    Close runs whose process is gone: nothing of them stays on an engine or on the disk.

    Returns: how many there were.
    """
    closed = 0
    for path in sorted(_folder(settings).iterdir()) if _folder(settings).is_dir() else ():
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            close_run(settings, database, path.name, "FAILURE", "its process was killed")
            path.unlink(missing_ok=True)
            closed += 1
    return closed


def _folder(settings: Settings) -> Path:
    return settings.home / "run" / "local"
