"""
The content-addressed store: a blob's name is its SHA-256, so it appears whole or not at all.

What is written is hashed while it is sent and compared; what is read is hashed while it is read. The
backends are obstore's: a local folder, S3, GCS, Azure.
"""

import hashlib
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import attrs
import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from penstock.errors import InputError, NotFoundError, PlatformError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

CHUNK_BYTES = 4 * 1024 * 1024
# Archives hold no times and no owners, so that the same files always have the same hash; not 1970,
# because zip cannot write years before 1980.
ARCHIVE_TIME = 946_684_800


@attrs.frozen
class Blob:
    """Stored bytes. digest: SHA-256, 64 hex digits."""

    digest: str
    size_bytes: int


def open_store(location: str) -> "ArtifactStore":
    """
    The store at a folder's path or an `s3://`, `gs://`, `az://` address.

    Raises: PlatformError when it cannot be opened.
    """
    try:
        if "://" in location:
            return ArtifactStore(from_url(location))
        Path(location).mkdir(parents=True, exist_ok=True)
        return ArtifactStore(LocalStore(location))
    except (BaseError, OSError, ValueError) as error:
        raise PlatformError(f"cannot open the artifact store: {_first_line(error)}", where=location) from error


@attrs.frozen
class ArtifactStore:
    """Puts and gets blobs in constant memory. Methods raise PlatformError when the backend fails."""

    backend: "ObjectStore"

    def put_bytes(self, data: bytes) -> Blob:
        """Store bytes that are in memory already."""
        return self._put(io.BytesIO(data), hashlib.sha256(data).hexdigest(), len(data))

    def put_file(self, path: Path) -> Blob:
        """
        Store a file.

        Raises: InputError when it is no regular file or changes meanwhile.
        """
        if not stat.S_ISREG(path.lstat().st_mode):
            raise InputError("this is no regular file", where=str(path))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            return self._put(file, digest, size)

    def put_tree(self, folder: Path) -> Blob:
        """Store a folder as a tar archive whose hash depends on names, contents, links and exec bits alone."""
        with tempfile.TemporaryFile() as archive:
            try:
                write_tree(folder, archive)
            except (OSError, RecursionError) as error:
                what = getattr(error, "strerror", None) or "it is nested too deeply, or changed meanwhile"
                raise InputError(f"cannot store the folder: {what}", where=_shown(error, folder)) from error
            archive.seek(0)
            digest = hashlib.file_digest(archive, "sha256").hexdigest()
            size = archive.tell()
            archive.seek(0)
            return self._put(archive, digest, size)

    def has(self, digest: str) -> bool:
        """Whether a blob of that hash is there."""
        try:
            obstore.head(self.backend, _name(digest))
        except FileNotFoundError:
            return False
        except BaseError as error:
            raise self._failure("look up", digest, error) from error
        return True

    def _holds(self, digest: str, size: int) -> bool:
        """Whether it is there whole: one cut short is written anew."""
        try:
            return int(obstore.head(self.backend, _name(digest))["size"]) == size
        except FileNotFoundError:
            return False
        except BaseError as error:
            raise self._failure("look up", digest, error) from error

    def read(self, digest: str) -> Iterator[bytes]:
        """
        The blob in chunks; the last one comes only when the hash is right.

        Raises: NotFoundError when there is none, PlatformError when its bytes are damaged.
        """
        found, last = hashlib.sha256(), b""
        for chunk in self._chunks(digest):
            found.update(chunk)
            if last:
                yield last
            last = chunk
        if found.hexdigest() != digest:
            raise PlatformError(
                f"the stored bytes are damaged: their hash is {found.hexdigest()[:12]}…",
                where=f"artifact {digest[:12]}",
            )
        yield last

    def fetch_file(self, digest: str, target: Path) -> None:
        """Write the blob to `target`, which appears complete or not at all."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # A name that nobody can foresee: a link lying in wait under it would lead out of the workspace.
            handle, part = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        except OSError as error:
            raise InputError(f"cannot put an artifact there: {error.strerror}", where=str(target)) from error
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(self.read(digest))
            Path(part).chmod(0o644)
            Path(part).replace(target)
        except OSError as error:
            raise InputError(f"cannot put an artifact there: {error.strerror}", where=str(target)) from error
        finally:
            Path(part).unlink(missing_ok=True)

    def fetch_tree(self, digest: str, folder: Path) -> None:
        """Unpack an archive that `put_tree` made into `folder`."""
        with tempfile.TemporaryFile() as archive:
            archive.writelines(self.read(digest))
            archive.seek(0)
            read_tree(archive, folder)

    def delete(self, digest: str) -> None:
        """Remove the blob; one that is not there is fine."""
        try:
            obstore.delete(self.backend, _name(digest))
        except FileNotFoundError:
            return
        except BaseError as error:
            raise self._failure("delete", digest, error) from error

    def _put(self, source: IO[bytes], digest: str, size: int) -> Blob:
        if not self._holds(digest, size):
            sent = hashlib.sha256()
            try:
                obstore.put(self.backend, _name(digest), _hashing(source, sent), chunk_size=CHUNK_BYTES)
            except (BaseError, OSError) as error:
                raise self._failure("store", digest, error) from error
            if sent.hexdigest() != digest:
                self.delete(digest)
                raise InputError("it changed while it was being stored", where=f"artifact {digest[:12]}")
        return Blob(digest, size)

    def _chunks(self, digest: str) -> Iterator[bytes]:
        try:
            for chunk in obstore.get(self.backend, _name(digest)).stream(CHUNK_BYTES):
                yield bytes(chunk)
        except FileNotFoundError as error:
            raise NotFoundError("the store has no such blob", where=f"artifact {digest[:12]}") from error
        except BaseError as error:
            raise self._failure("read", digest, error) from error

    def _failure(self, verb: str, digest: str, error: Exception) -> PlatformError:
        return PlatformError(f"cannot {verb} it: {_first_line(error)}", where=f"artifact {digest[:12]}")


def _name(digest: str) -> str:
    return f"sha256/{digest[:2]}/{digest[2:]}"


def _shown(error: Exception, folder: Path) -> str:
    """The file that an error is about, or the folder; whatever bytes its name has."""
    name = getattr(error, "filename", None) or folder
    return os.fsencode(name).decode("utf-8", "replace")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _hashing(source: IO[bytes], found: "hashlib._Hash") -> Iterator[bytes]:
    while chunk := source.read(CHUNK_BYTES):
        found.update(chunk)
        yield chunk


def write_tree(folder: Path, archive: IO[bytes]) -> None:
    """Write a folder as tar: sorted, links as links, no owners, one time; sockets and devices are left out."""
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in _entries(folder):
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

    Raises: InputError for a member that would leave it or is neither file, folder nor link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = folder.resolve()
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                _place(tar, member, root)
    except (OSError, tarfile.TarError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot unpack the archive: {what}", where=_shown(error, folder)) from error


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
            while chunk := source.read(CHUNK_BYTES):
                file.write(chunk)
        target.chmod(member.mode & 0o755)
    else:
        raise InputError(f'its member "{_printed(member)}" is neither file, folder nor link', where="archive")


def _printed(member: tarfile.TarInfo) -> str:
    return os.fsencode(member.name).decode("utf-8", "replace")
