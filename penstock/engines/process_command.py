"""
The command that runs a job on this machine, with what it is handed in memory: secrets, names, its services.

Secrets are files at /run/secrets/NAME in the sandbox, on a file system in memory; without a sandbox, files of a
closed folder under /dev/shm. `PENSTOCK_SECRETS` names the folder in both cases.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from penstock.engines import Job, Sidecar
from penstock.engines.process_gateway import Door
from penstock.engines.process_groups import Group
from penstock.engines.process_sandbox import (
    RUNNER,
    RUNNER_INSIDE,
    bubblewrap,
    host_env,
    hosts_file,
    sandbox_arguments,
)
from penstock.errors import InputError, PlatformError, StepFailure
from penstock.folders import remove_tree
from penstock.hidden import secrets_of
from penstock.pipeline.spec import WORKSPACE
from penstock.settings import Settings

RUN_MARK = "PENSTOCK_RUN_MARK"  # in the environment of every process of a run: how `reap` finds them
SECRETS_VARIABLE = "PENSTOCK_SECRETS"
SHARED_MEMORY = Path("/dev/shm")
LONGEST_WORD = 100_000  # the kernel takes no word of 128 KiB or more
_SECRET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_SHELL = ("/bin/sh", "-c")
_SCRIPT = ".penstock-script"


@attrs.frozen
class Command:
    """
    What to start.

    runner: whether sidecars.py runs it, which writes to the open file `report` what kept the job from its start.
    door: holds the job until its gateway serves; None where it has none.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = attrs.field(repr=False)
    fds: tuple[int, ...] = ()
    report: int | None = None
    door: Door | None = None

    def failure(self) -> str | None:
        """Why the job was not started, after the command has ended; None when it was."""
        if self.report is None:
            return None
        os.lseek(self.report, 0, os.SEEK_SET)
        return os.read(self.report, 64 * 1024).decode(errors="replace") or None


def mark(settings: Settings, run_id: str, step: str) -> str:
    """Names the home too, without telling it: another Penstock on this machine reaps its own runs alone."""
    return f"{run_id}/{short_hash(os.fspath(settings.home))}/{step}"


def name_of(settings: Settings, run_id: str, step: str = "") -> str:
    """Begins the names of what a job (or with no step, any job of the run) has outside of its processes."""
    words = [short_hash(os.fspath(settings.home)), short_hash(run_id)]
    return "-".join([*words, short_hash(step)] if step else words)


def short_hash(text: str) -> str:
    """Twelve hex digits."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]


def command_for(
    job: Job, settings: Settings, private: Path, group: Group | None, stack: ExitStack, *, on_terminal: bool = False
) -> Command:
    """
    The command for `job`. What it needs beside it lives until `stack` is closed.

    private: a folder of the job's own. group: joined first, when there is one.
    Raises: InputError, StepFailure for what cannot be asked of this engine.
    """
    check(job)
    builder = _Builder(job, settings, private, stack)
    if not bubblewrap():
        builder.place_secrets()
    argv: Sequence[str] = _shortened(job.argv, private, bubblewrap() is not None)
    if job.services or (group is None and not bubblewrap()):
        argv = builder.run_beside_services(argv, on_terminal=on_terminal)
    if wrap := bubblewrap():
        words = [
            *builder.door_words(),
            *sandbox_arguments(job, private, Path.home(), secrets_of(settings), builder.files()),
        ]
        argv = [wrap, *words, "--", *argv]
    if group is not None:
        argv = group.joining(argv)
    return Command(tuple(argv), builder.env, tuple(builder.fds), builder.report, builder.door)


def check(job: Job) -> None:
    """Raises: InputError, StepFailure for what cannot be asked of this engine."""
    for name in job.secrets:
        if not _SECRET_NAME.fullmatch(name):
            raise InputError(f'"{name}" is no name for a secret', remedy="use letters, digits, _, - and .")
    if (job.mounts or job.gateway) and not bubblewrap():
        raise StepFailure(
            "it can only be kept apart from this machine by bubblewrap, which is not here",
            where=job.step,
            remedy="install bubblewrap, or use the docker engine",
        )
    for sidecar in job.services:
        if not sidecar.argv:
            raise StepFailure(
                f'service "{sidecar.name}" has an image alone, and the process engine runs commands of this machine',
                remedy="give it a command, or use the docker engine",
            )
        ready = sidecar.ready
        if ready and not (ready.port or ready.command):
            raise InputError(f'service "{sidecar.name}": its probe asks nothing', remedy="give a port or a command")


def outside(work_dir: str) -> str:
    """`work_dir` relative to the workspace, whether it was written with /workspace or without."""
    return str(Path(work_dir).relative_to(WORKSPACE)) if work_dir.startswith(WORKSPACE) else work_dir


def remove_secrets(name: str) -> None:
    """Take away what jobs whose Penstock was killed have left in memory."""
    for folder in SHARED_MEMORY.glob(f"penstock-{name}-*") if SHARED_MEMORY.is_dir() else ():
        remove_tree(folder)


class _Builder:
    """Collects what a command is handed: variables, open files, and bubblewrap's words for them."""

    def __init__(self, job: Job, settings: Settings, private: Path, stack: ExitStack) -> None:
        self._job, self._settings, self._private, self._stack = job, settings, private, stack
        self.fds: list[int] = []
        self.report: int | None = None
        self._runner = False
        self.env = self._env(job.env)
        self.door: Door | None = None
        if job.secrets:
            self.env[SECRETS_VARIABLE] = job.secrets_folder

    def files(self) -> list[str]:
        """bubblewrap's words for files in memory."""
        words: list[str] = []
        if self._job.secrets:
            folder = self._job.secrets_folder
            words += ["--perms", "0700", "--tmpfs", folder]
            for name, value in self._job.secrets.items():
                words += ["--perms", "0400", "--file", str(self._in_memory(name, value)), f"{folder}/{name}"]
            words += ["--remount-ro", folder]
        if (hosts := hosts_file(self._job)) is not None:
            words += ["--ro-bind-data", str(self._in_memory("hosts", hosts)), "/etc/hosts"]
        if self._runner:
            words += ["--ro-bind", str(RUNNER), RUNNER_INSIDE]
        return words

    def door_words(self) -> list[str]:
        """bubblewrap's words for a job that waits until its gateway serves."""
        if self._job.gateway is None:
            return []
        self.door = self._stack.enter_context(Door.made())
        self.fds += self.door.inside
        return self.door.words

    def place_secrets(self) -> None:
        """Where there is no sandbox: in a folder of shared memory that only this user can open."""
        if not self._job.secrets:
            return
        if not SHARED_MEMORY.is_dir():
            raise PlatformError("no place in memory for secrets", where="/dev/shm", remedy="mount a tmpfs there")
        name = name_of(self._settings, self._job.run_id, self._job.step)
        folder = Path(tempfile.mkdtemp(prefix=f"penstock-{name}-", dir=SHARED_MEMORY))
        self._stack.callback(remove_tree, folder)
        for secret, value in self._job.secrets.items():
            (folder / secret).write_bytes(value)  # nobody else can open the folder
            (folder / secret).chmod(0o400)
        self.env[SECRETS_VARIABLE] = str(folder)

    def run_beside_services(self, argv: Sequence[str], *, on_terminal: bool) -> list[str]:
        """Words for sidecars.py, which runs `argv` when the services are ready."""
        self._runner = True
        inside = bubblewrap() is not None
        given = {
            "argv": list(argv),
            "env": self.env,
            "services": [self._described(sidecar) for sidecar in self._job.services],
            "keep_together": not inside,
            "on_terminal": on_terminal,
        }
        description = self._in_memory("job", json.dumps(given).encode())
        self.report = self._in_memory("report", b"")
        runner = RUNNER_INSIDE if inside else str(RUNNER)
        return [sys.executable, "-I", "-S", runner, str(description), str(self.report)]

    def _described(self, sidecar: Sidecar) -> dict[str, Any]:
        ready = None if sidecar.ready is None else attrs.asdict(sidecar.ready)
        argv = list(sidecar.argv or ())
        return {"name": sidecar.name, "argv": argv, "env": self._env(sidecar.env), "ready": ready}

    def _env(self, given: Mapping[str, str]) -> dict[str, str]:
        inside = bubblewrap() is not None
        env = host_env(os.environ, network=self._job.network)
        env |= {
            "HOME": "/tmp/home" if inside else str(self._private),
            "WORKSPACE": WORKSPACE if inside else str(self._job.workspace),
        }
        return {**env, **given, RUN_MARK: mark(self._settings, self._job.run_id, self._job.step)}

    def _in_memory(self, name: str, content: bytes) -> int:
        number = os.memfd_create(f"penstock-{name}")
        self._stack.callback(os.close, number)
        with os.fdopen(os.dup(number), "wb") as file:
            file.write(content)
        os.lseek(number, 0, os.SEEK_SET)
        self.fds.append(number)
        return number


def _shortened(argv: tuple[str, ...], private: Path, inside: bool) -> tuple[str, ...]:
    """A script longer than a word may be becomes a file of the job's own /tmp."""
    if argv[:2] != _SHELL or len(argv) != 3 or len(argv[2].encode()) <= LONGEST_WORD:
        return argv
    (private / _SCRIPT).write_text(argv[2])
    return ("/bin/sh", str((Path("/tmp") if inside else private) / _SCRIPT))
