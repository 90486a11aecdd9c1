"""Where unix sockets lie: their paths may only have 107 bytes, PENSTOCK_HOME may have more."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from penstock.errors import PlatformError

PATH_LIMIT = 107  # bytes of sun_path, less its closing zero


def socket_folder(folder: Path, name: str) -> Path:
    """`folder` itself, or a folder under the temporary one where the path of a socket `name` is too long."""
    if len(os.fsencode(folder / name)) <= PATH_LIMIT:
        return folder
    mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}-{mark}"


def make_private(folder: Path, owners: Collection[int]) -> None:
    """
    A folder that only its owner can enter, also under a name in a folder that everybody can write.

    owners: user ids to which it may belong already. Raises: PlatformError when it is somebody else's.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners:
        raise PlatformError("somebody else made this", where=str(folder), remedy="remove it, or shorten PENSTOCK_HOME")
    folder.chmod(0o700)
