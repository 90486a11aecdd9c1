"""
Environments for Python programs of others: made once from a lock, on first use, under PENSTOCK_HOME/tools.

Every package is fixed by hash and comes as a wheel, so nothing but the installer runs while it is made.
`.ready` is written last: an environment without it was interrupted and is made anew.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import attrs

from penstock.errors import PlatformError
from penstock.pipeline.cancel import CancelToken
from penstock.processes import spawn, stop_group
from penstock.settings import Settings

READY = ".ready"
INSTALL_LIMIT_S = 900.0
_POLL_S = 0.2
_KEPT_OUT = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PIP_REQUIRE_VIRTUALENV")


@attrs.frozen
class Requirements:
    """What an environment is made of. name: for people, and a part of its folder's name. lock: versions and hashes."""

    name: str
    lock: Path

    @property
    def environment(self) -> str:
        """`<name>-<hash>`: another lock or another Python is another environment."""
        python = f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}"
        digest = hashlib.sha256(python.encode() + b"\0" + self.lock.read_bytes())
        return f"{self.name}-{digest.hexdigest()[:12]}"


def open_toolbox(settings: Settings) -> "Toolbox":
    """The environments of one PENSTOCK_HOME."""
    return Toolbox(settings.home / "tools", base_python(), find_uv())


def base_python() -> Path:
    """The interpreter under the environment that Penstock runs in."""
    named = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return named if named.exists() else Path(sys.executable)


def find_uv() -> Path | None:
    """The `uv` command that came with Penstock, else one on PATH; None if there is neither."""
    beside = Path(sys.executable).parent / "uv"
    if beside.is_file():
        return beside
    found = shutil.which("uv")
    return Path(found) if found else None


def install_commands(uv: Path | None, python: Path, folder: Path, lock: Path) -> tuple[tuple[str, ...], ...]:
    """What makes an environment at `folder`: uv, or slower venv and pip. No index is named: the user's holds."""
    inside = str(folder / "bin" / "python")
    if uv is not None:
        install = (str(uv), "pip", "install", "--python", inside, "--require-hashes", "--only-binary", ":all:")
        return (
            (str(uv), "venv", "--quiet", "--python", str(python), str(folder)),
            (*install, "--no-deps", "--compile-bytecode", "--requirements", str(lock)),
        )
    install = (inside, "-m", "pip", "install", "--require-hashes", "--only-binary", ":all:", "--no-deps")
    return (
        (str(python), "-m", "venv", str(folder)),
        (*install, "--quiet", "--disable-pip-version-check", "--requirement", str(lock)),
    )


@attrs.frozen
class Toolbox:
    """
    The folder that holds the environments.

    python: the interpreter that they are made from. uv: None to use venv and pip.
    """

    folder: Path
    python: Path
    uv: Path | None

    def ensure(self, wanted: Requirements, token: CancelToken, say: Callable[[str], None] | None = None) -> Path:
        """
        The folder with its commands. Any number of processes may ask at once: one makes it, the others wait.

        say: is told that something is being installed. Raises: PlatformError when it cannot be made, Cancelled.
        """
        environment = self.folder / wanted.environment
        if not _usable(environment):
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(environment.with_suffix(".lock"), token):
                if not _usable(environment):
                    self._make(wanted, environment, token, say)
        return environment / "bin"

    def _make(
        self, wanted: Requirements, environment: Path, token: CancelToken, say: Callable[[str], None] | None
    ) -> None:
        if say:
            say(f"installing {wanted.name} (once)")
        shutil.rmtree(environment, ignore_errors=True)
        for command in install_commands(self.uv, self.python, environment, wanted.lock):
            _run(command, wanted.name, token)
        (environment / READY).touch()


def _usable(environment: Path) -> bool:
    # The second is false when the interpreter below was removed.
    return (environment / READY).is_file() and (environment / "bin" / "python").exists()


@contextmanager
def locked(path: Path, token: CancelToken, *, shared: bool = False) -> Iterator[None]:
    """Alone among all processes, or with others who share it; freed by the kernel when the holder dies."""
    with path.open("a") as file:
        while not _try_lock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            token.raise_if_cancelled()
            token.wait(_POLL_S)
        yield


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _run(command: tuple[str, ...], tool: str, token: CancelToken) -> None:
    token.raise_if_cancelled()
    with tempfile.TemporaryFile() as output:
        code = _wait(command, output, token)
        token.raise_if_cancelled()
        if code != 0:
            output.seek(0)
            raise PlatformError(
                f"cannot install {tool}: {last_line(output.read().decode(errors='replace')) or f'exit code {code}'}",
                where=Path(command[0]).name,
                remedy="see that this machine reaches a Python package index, then run again",
            )


def _wait(command: tuple[str, ...], output: IO[bytes], token: CancelToken) -> int:
    env = {name: value for name, value in os.environ.items() if name not in _KEPT_OUT}
    try:
        # From the root folder, so that no configuration of the repository around PENSTOCK_HOME is read.
        process = spawn(command, output=output, env=env, cwd="/")
    except OSError as error:
        raise PlatformError(f"cannot start {command[0]}: {error.strerror}") from error
    with token.stopping(lambda: stop_group(process, grace_s=1)):
        try:
            return process.wait(INSTALL_LIMIT_S)
        except subprocess.TimeoutExpired:
            stop_group(process, grace_s=1)
            return -1


def last_line(text: str) -> str:
    """The last line that says something, at most 300 characters; empty if none does."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
