"""Files in memory, secrets above all: one moment on this machine, then in the job's container alone."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

from penstock.engines.docker_container import home_mark
from penstock.errors import PlatformError, StepFailure
from penstock.folders import remove_tree

_IN_MEMORY = ("/dev/shm", "/run")


@attrs.frozen
class MemoryFiles:
    """paths: name → file. A container that has them mounted keeps them when they are unlinked here."""

    folder: Path | None
    paths: Mapping[str, Path]

    def unlink(self) -> None:
        """Take them away from this machine; also when they are gone already."""
        if self.folder is not None:
            remove_tree(self.folder)


@contextmanager
def in_memory(
    home: Path, run_id: str, step: str, files: Mapping[str, bytes], *, mode: int = 0o400
) -> Iterator[MemoryFiles]:
    """
    Files of a job, for as long as a container needs to start.

    Raises: PlatformError when this machine has no memory file system that we may write to.
    """
    if not files:
        yield MemoryFiles(None, {})
        return
    folder = Path(tempfile.mkdtemp(prefix=_prefix(home, run_id, step), dir=memory_folder()))
    try:
        yield MemoryFiles(folder, {name: _write(folder, name, value, mode) for name, value in files.items()})
    finally:
        remove_tree(folder)


def forget(home: Path, run_id: str, step: str = "") -> None:
    """Remove what a process that was killed left behind."""
    prefix = _prefix(home, run_id, step)
    for place in filter(os.path.isdir, _IN_MEMORY):
        for folder in Path(place).glob(f"{prefix}*"):
            remove_tree(folder)


def memory_folder(mounts: Path = Path("/proc/self/mounts")) -> str:
    """A folder of a tmpfs that this process may write to."""
    kinds = {line.split()[1]: line.split()[2] for line in mounts.read_text().splitlines()}
    for place in _IN_MEMORY:
        if kinds.get(place) == "tmpfs" and os.access(place, os.W_OK):
            return place
    raise PlatformError("no place in memory for a step's secrets", remedy="mount a tmpfs at /dev/shm")


def _write(folder: Path, name: str, value: bytes, mode: int) -> Path:
    if name in ("", ".", "..") or "/" in name:
        raise StepFailure(f'"{name}" is no name for a secret', remedy="use letters, digits, _ and -")
    path = folder / name
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:
        file.write(value)
        os.fchmod(file.fileno(), mode)  # the umask has no say
    return path


def _prefix(home: Path, run_id: str, step: str) -> str:
    marks = [home_mark(home), *(hashlib.sha256(text.encode()).hexdigest()[:12] for text in (run_id, step) if text)]
    return "penstock-" + "-".join(marks) + "-"
