"""The target `process`: instances are supervised processes of this machine, from a folder of files."""

import os
import shutil
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from penstock.deploy.commands import ask_process, asked, words
from penstock.deploy.health import HealthCheck, ProbeResult, probe
from penstock.deploy.plan import Source
from penstock.deploy.releases import release_folder
from penstock.deploy.sandbox import MARK, Rooms, credentials_of, own_scripts, sandbox_argv, search_path, usable_bwrap
from penstock.deploy.secrets import secret_values
from penstock.deploy.supervised import Host, Supervised, kill, marked
from penstock.deploy.targets import Assignment, Census, Kept, Wake
from penstock.errors import InputError, PlatformError
from penstock.hidden import outermost, secrets_of
from penstock.settings import Settings

if TYPE_CHECKING:
    from penstock.deploy.releases import Instance, Release
    from penstock.pipeline.cancel import CancelToken

START_LIMIT_S = 10.0  # a keeper that was killed is back by then


class ProcessTarget:
    """See `Target`."""

    start_limit_s = START_LIMIT_S

    def __init__(self, settings: Settings, wake: Wake) -> None:
        del wake  # the end of a child wakes the keeper by itself
        self._settings = settings

    @cached_property
    def host(self) -> Host:
        """What all instances on this machine share."""
        return Host(bwrap=usable_bwrap(), path=search_path(os.environ, own_scripts()))

    def place(self, release: "Release", source: Source | None, token: "CancelToken") -> None:
        """The release's files in a folder of its own, complete or not at all."""
        folder = release_folder(self._settings, release.id)
        if folder.is_dir():  # by a driver that was cut off later
            return
        if source is None:
            raise InputError("a process needs files", where=str(release))
        unfinished = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, Path):
                shutil.copytree(source, unfinished, symlinks=True)
            else:
                unfinished.mkdir()
                source(unfinished)
            unfinished.rename(folder)
        except OSError as error:
            raise PlatformError(f"cannot place the release's files: {error}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        token.raise_if_cancelled()

    def probe(self, check: HealthCheck, instance: "Instance") -> ProbeResult:
        """By HTTP or TCP, on the instance's port; or by a command that sees the files and the network that it sees."""
        if check.kind == "exec":
            return self._execute(check, instance)
        if instance.port is None:
            return ProbeResult(False, "it has no port")
        return probe(check, instance.port)

    def _execute(self, check: HealthCheck, instance: "Instance") -> ProbeResult:
        """In a sandbox like the instance's, with the very variables that it was started with, secrets too."""
        env = _environment_of(instance.pid)
        if not env:
            return ProbeResult(False, f"{asked(check)}: the instance does not run")
        folder, argv = release_folder(self._settings, instance.release_id), words(check)
        if self.host.bwrap:
            rooms = Rooms(folder, Path(env["DATA_DIR"]), self._hidden)
            argv = sandbox_argv(argv, rooms, bwrap=self.host.bwrap)
        return ask_process(check, argv, env, folder)

    @property
    def _hidden(self) -> tuple[Path, ...]:
        settings = self._settings
        return outermost((settings.home, *secrets_of(settings), *credentials_of(Path.home())))

    def forget(self, release_ids: Collection[str]) -> None:
        """The files of these releases are removed."""
        for release_id in release_ids:
            shutil.rmtree(release_folder(self._settings, release_id), ignore_errors=True)

    def keep(self, assignment: Assignment) -> Kept:
        """A process that is started at the first `step`: its former one ended with its keeper."""
        settings, configuration = self._settings, assignment.configuration

        def secrets() -> dict[str, bytes]:
            return secret_values(settings, assignment.service, configuration.secret_env)

        return Supervised(assignment, self._rooms(assignment), self.host, secrets)

    def _rooms(self, assignment: Assignment) -> Rooms:
        data = self._settings.home / "data" / assignment.service.folder
        return Rooms(release_folder(self._settings, assignment.release_id), data, self._hidden)

    def reap(self, census: Callable[[], Census]) -> None:
        """Kill what a keeper that was killed has left: without bubblewrap, grandchildren outlive it."""
        found = census()
        for process in marked(set(found.known) - set(found.kept)):
            kill(process)


def _environment_of(pid: int | None) -> dict[str, str]:
    """What a process of this user was started with; nothing when it has ended or is no instance."""
    try:
        env = psutil.Process(pid).environ() if pid else {}
    except psutil.Error:
        return {}
    return env if MARK in env and "DATA_DIR" in env else {}
