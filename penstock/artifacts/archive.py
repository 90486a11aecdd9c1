"""Folders as tar archives whose bytes depend on names, contents, links and exec bits alone, and back."""

import errno
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from penstock.errors import InputError, PlatformError

COPY_BYTES = 1024 * 1024
# Archives hold no times and no owners, so that the same files always have the same hash; not 1970,
# because zip cannot write years before 1980.
ARCHIVE_TIME = 946_684_800
FULL = (errno.ENOSPC, errno.EDQUOT)


def write_tree(folder: Path, archive: IO[bytes], only: Sequence[str] | None = None) -> None:
    """
    Write a folder as tar: sorted, links as links, no owners, one time; sockets and devices are left out.

    only: relative paths below `folder`; what else it holds is left out, and so is what is not there.
    """
    # `copybufsize` is documented; typeshed does not know it.
    form: Any = {"format": tarfile.PAX_FORMAT, "copybufsize": COPY_BYTES}
    with tarfile.open(fileobj=archive, mode="w", **form) as tar:
        for path in _entries(folder) if only is None else _chosen(folder, only):
            member = _member(path, folder)
            if member.isreg():
                with path.open("rb") as file:
                    tar.addfile(member, file)
            else:
                tar.addfile(member)


def _entries(folder: Path) -> Iterator[Path]:
    """Files, links and folders below `folder`, parents first, sorted by their bytes."""
    for entry in sorted(os.scandir(folder), key=lambda found: os.fsencode(found.name)):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield path
            yield from _entries(path)
        elif entry.is_symlink() or entry.is_file():
            yield path


def _chosen(folder: Path, only: Sequence[str]) -> Iterator[Path]:
    seen: set[Path] = set()
    for name in sorted(set(only)):
        path = folder / name
        whole = [path] if path != folder and (path.is_symlink() or path.is_file() or path.is_dir()) else []
        inner = _entries(path) if path.is_dir() and not path.is_symlink() else iter(())
        for found in (*whole, *inner):
            if found not in seen:  # one path may lie in another
                seen.add(found)
                yield found


def _member(path: Path, folder: Path) -> tarfile.TarInfo:
    found = path.lstat()
    member = tarfile.TarInfo(str(path.relative_to(folder)))
    member.mtime = ARCHIVE_TIME
    if stat.S_ISLNK(found.st_mode):
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
    elif stat.S_ISDIR(found.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    else:
        member.size, member.mode = found.st_size, 0o755 if found.st_mode & 0o100 else 0o644
    return member


def read_tree(archive: IO[bytes], folder: Path) -> None:
    """
    Unpack a tar archive into `folder`; nothing is written outside of it, through links neither.

    Raises: InputError for a member that would leave it or is neither file, folder nor link; PlatformError when
    the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        root = folder.resolve()
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                _place(tar, member, root)
    except (OSError, tarfile.TarError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error)
        kind = PlatformError if is_full(error) else InputError
        raise kind(f"cannot unpack the archive: {what}", where=shown(error, folder)) from error


def is_full(error: Exception) -> bool:
    """Whether there was no room left."""
    return isinstance(error, OSError) and error.errno in FULL


def _place(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    name = PurePosixPath(member.name)
    target = root / name
    if name.is_absolute() or ".." in name.parts or not target.parent.resolve().is_relative_to(root):
        raise InputError(f'its member "{_printed(member)}" leaves the folder', where="archive")
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        target.mkdir(exist_ok=True)
        return
    if target.is_symlink() or target.is_file():
        target.unlink()
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.isreg():
        source = tar.extractfile(member)
        assert source is not None
        with source, target.open("xb") as file:
            while chunk := source.read(COPY_BYTES):
                file.write(chunk)
        target.chmod(member.mode & 0o755)
    else:
        raise InputError(f'its member "{_printed(member)}" is neither file, folder nor link', where="archive")


def shown(error: Exception, place: Path) -> str:
    """The file that an error is about, or the place; whatever bytes its name has."""
    name = getattr(error, "filename", None) or place
    return os.fsencode(name).decode("utf-8", "replace")


def _printed(member: tarfile.TarInfo) -> str:
    return os.fsencode(member.name).decode("utf-8", "replace")
