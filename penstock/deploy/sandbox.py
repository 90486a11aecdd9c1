"""What an instance may see: a command line for bubblewrap, a clean environment, and the plain way without it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from penstock.hidden import covering, credential_places

MARK = "PENSTOCK_INSTANCE"
RESERVED = frozenset({"PORT", "HOST", "DATA_DIR", MARK})


@attrs.frozen
class Rooms:
    """Folders of one instance: its release (read), its data (write), and what it must not see."""

    release: Path
    data: Path
    hidden: tuple[Path, ...] = ()


def sandbox_argv(command: Sequence[str], rooms: Rooms, *, bwrap: str = "bwrap") -> list[str]:
    """
    `command` under bubblewrap: read-only host, own /tmp, /run and process ids, no capabilities, network shared.

    Later mounts lie over earlier ones: the rooms come last, so they may lie inside of what is hidden.
    """
    argv = [bwrap, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]
    argv += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/run"]
    # Names are resolved by what systemd keeps under /run, on hosts that have it.
    argv += ["--ro-bind-try", "/run/systemd/resolve", "/run/systemd/resolve"]
    # Penstock's own environment may lie where the private /tmp is now, and with it the Python that a service names.
    argv += ["--ro-bind", sys.prefix, sys.prefix]
    argv += covering(rooms.hidden)
    argv += ["--ro-bind", str(rooms.release), str(rooms.release), "--bind", str(rooms.data), str(rooms.data)]
    return [*argv, "--chdir", str(rooms.release), "--", *command]


def usable_bwrap() -> str | None:
    """The bubblewrap command if it is there and this kernel and user may use it as `sandbox_argv` does."""
    found = shutil.which("bwrap")
    if found is None:
        return None
    here = Path("/usr")
    try:
        argv = sandbox_argv(["true"], Rooms(here, here), bwrap=found)
        subprocess.run(argv, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return found


def credentials_of(user_home: Path) -> tuple[Path, ...]:
    """Folders and files with credentials of the user and of the host; a service has no business there."""
    return credential_places(user_home)


def search_path(env: Mapping[str, str], own: Path | None) -> str:
    """PATH without `own`, the folder of Penstock's own environment, so that a service finds the host's tools."""
    folders = [folder for folder in env.get("PATH", os.defpath).split(":") if folder and Path(folder) != own]
    return ":".join(folders) or os.defpath


def own_scripts() -> Path | None:
    """The folder of commands of the virtual environment that this process runs in, if it runs in one."""
    return None if sys.prefix == sys.base_prefix else Path(sys.prefix) / "bin"


def instance_environment(given: Mapping[str, str], *, mark: str, port: int, data: Path, path: str) -> dict[str, str]:
    """The whole environment of an instance: what its plan gives and what it must know, nothing of Penstock's."""
    base = {"PATH": path, "LANG": "C.UTF-8", "TMPDIR": "/tmp", "HOME": str(data), "PYTHONUNBUFFERED": "1"}
    told = {"PORT": str(port), "HOST": "127.0.0.1", "DATA_DIR": str(data), MARK: mark}
    return {**base, **given, **told}
