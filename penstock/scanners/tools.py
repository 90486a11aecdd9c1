"""Where a scanner's command is: in an environment of its own, or on this machine."""

import shutil
from collections.abc import Callable
from pathlib import Path

import attrs

from penstock.errors import PlatformError
from penstock.pipeline.cancel import CancelToken
from penstock.scanners import Scanner, lock_file
from penstock.settings import Settings
from penstock.toolbox import Requirements, open_toolbox


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
    wanted = Requirements(scanner.name, lock_file(scanner.name))
    return open_toolbox(settings).ensure(wanted, token or CancelToken(), say)
