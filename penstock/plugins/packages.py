"""A plugin's own Python packages on the process engine: what its `requirements.lock` lists, made once per lock."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from penstock.errors import InputError
from penstock.pipeline.cancel import CancelToken
from penstock.plugins.schemas import Complaint
from penstock.settings import Settings
from penstock.toolbox import Requirements, open_toolbox

REQUIREMENTS = "requirements.lock"
LOCK_BYTES = 4 * 1024 * 1024
# One package at one version, its hashes, or a comment; no option, no address, no file: packages come from the index
# that the platform's operator has chosen.
_LINE = re.compile(
    r"\s*(#.*|--hash=sha256:[0-9a-f]{64}\s*\\?|"
    r"[A-Za-z0-9][\w.-]*(\[[\w., -]+\])?==[\w.!+-]+\s*(;[^\\@#]*)?\\?)?\s*"
)


def check_lock(folder: Path) -> Iterator[Complaint]:
    """What is wrong with a plugin's lock, if it has one."""
    lock = folder / REQUIREMENTS
    if not lock.is_file():
        return
    remedy = "write it with `uv pip compile --generate-hashes`, without options and addresses"
    if lock.stat().st_size > LOCK_BYTES:
        yield Complaint(str(lock), f"it has more than {LOCK_BYTES} bytes", remedy)
        return
    lines = lock.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not _LINE.fullmatch(line):
            yield Complaint(f"{lock}:{number}", f'"{line.strip()[:60]}" is no package with its hash', remedy)
            return
    if lines and "--hash=sha256:" not in "".join(lines):
        yield Complaint(str(lock), "it has no hashes", remedy)


def packages_of(
    settings: Settings, name: str, folder: Path, token: CancelToken, say: Callable[[str], None]
) -> Path | None:
    """
    The environment of a plugin's packages, made first if it is not there; None for a plugin without a lock.

    Raises: InputError for a lock that names places, PlatformError when it cannot be made, Cancelled.
    """
    for complaint in check_lock(folder):
        raise InputError(complaint.what, where=complaint.where, remedy=complaint.remedy)
    lock = folder / REQUIREMENTS
    if not lock.is_file():
        return None
    return open_toolbox(settings).ensure(Requirements(name, lock), token, say).parent
