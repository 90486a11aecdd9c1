"""A plugin's folder as one archive that is always the same bytes, and back into a folder that nothing leaves."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from penstock.artifacts.archive import COPY_BYTES, read_tree, write_tree
from penstock.errors import AccessError, InputError
from penstock.folders import remove_tree
from penstock.plugins.registries.wire import PACKAGE_BYTES

_LEFT_OUT = {".git", ".venv", "node_modules", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"}


@attrs.frozen
class Package:
    """A packed plugin. digest: `sha256:…` of the file's bytes."""

    path: Path
    digest: str
    size_bytes: int


def pack(folder: Path, into: Path) -> Package:
    """
    Write the folder to the file `into`; what tools leave behind (.venv, __pycache__, …) is left out.

    Raises: InputError when it is too large, or holds a link.
    """
    names = list(_files(folder))
    with into.open("wb") as archive:
        write_tree(folder, archive, only=names)
    size = into.stat().st_size
    if size > PACKAGE_BYTES:
        into.unlink()
        raise InputError(
            f"the package has {size} bytes, at most {PACKAGE_BYTES} are taken",
            where=str(folder),
            remedy="leave out what the plugin does not need",
        )
    return Package(into, digest_of(into), size)


def _files(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT)
        for name in sorted([*files, *folders]):
            path = Path(place) / name
            if path.is_symlink():
                raise InputError("a package holds no links", where=str(path), remedy="put the file itself there")
            if path.is_file() and not name.endswith(".pyc"):
                yield str(path.relative_to(folder))


def digest_of(path: Path) -> str:
    """`sha256:…` of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def unpack(package: Path, folder: Path) -> None:
    """
    Unpack into a new folder; links and whatever leads out are refused, and nothing is left of such a package.

    Raises: InputError.
    """
    try:
        with package.open("rb") as archive:
            read_tree(archive, folder)
        list(_files(folder))
    except BaseException:
        remove_tree(folder)
        raise


@contextmanager
def unpacked(package: Path) -> Iterator[Path]:
    """The package's files for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="penstock-plugin-") as temporary:
        folder = Path(temporary) / "plugin"
        unpack(package, folder)
        yield folder


def write_checked(chunks: Iterator[bytes], digest: str, into: Path) -> None:
    """
    Write what arrives to `into` once all of it is there and has the digest.

    Raises: AccessError when it has another, or is larger than packages may be.
    """
    part, counted, seen = into.with_name(f"{into.name}.part"), 0, hashlib.sha256()
    try:
        with part.open("wb") as file:
            for chunk in chunks:
                counted += len(chunk)
                if counted > PACKAGE_BYTES:
                    raise AccessError(f"the package is larger than {PACKAGE_BYTES} bytes", where=digest)
                seen.update(chunk)
                file.write(chunk)
        if f"sha256:{seen.hexdigest()}" != digest:
            raise AccessError(
                f"the package has another digest than was said: sha256:{seen.hexdigest()}",
                where=digest,
                remedy="do not install it; tell who runs the registry",
            )
        part.replace(into)
    finally:
        part.unlink(missing_ok=True)


def chunks_of(path: Path) -> Iterator[bytes]:
    """A file's bytes in pieces."""
    with path.open("rb") as file:
        while chunk := file.read(COPY_BYTES):
            yield chunk
