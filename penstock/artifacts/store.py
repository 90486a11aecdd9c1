"""
The content-addressed store: a blob's name is its SHA-256, so it appears whole or not at all.

What is written is hashed and compared before it gets its name; what is read is hashed while it is read. Names in a
folder, bucket or container:

    sha256/ab/cdef…     the blobs
    incoming/…          of a folder: what is being written; whoever writes holds a lock on it
    claims/, marks/     see `claims`
"""

import contextlib
import fcntl
import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import attrs

from penstock.artifacts import claims, remote
from penstock.artifacts.archive import is_full, read_tree, shown, write_tree
from penstock.artifacts.errors import BlobDamaged, BlobLost
from penstock.artifacts.hashed import COPY_BUFFER, HashedFile, WriteFailure, copy_hashed, hash_file, sync_folder
from penstock.artifacts.opening import Patience, S3Access, open_backend, s3_access
from penstock.errors import InputError, PlatformError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["CHUNK_BYTES", "ArtifactStore", "Blob", "Kind", "StoredBlob", "open_store", "read_tree", "write_tree"]

CHUNK_BYTES = remote.CHUNK_BYTES
# A younger blob needs no claim: no sweep touches what is younger than `retention.LEAST_GRACE`.
CLAIMED_AFTER = timedelta(minutes=10)

Kind = Literal["file", "executable", "tree"]
Writes = Callable[[HashedFile], None]


@attrs.frozen
class Blob:
    """Stored bytes. digest: SHA-256, 64 hex digits."""

    digest: str
    size_bytes: int


@attrs.frozen
class StoredBlob:
    """A blob as the store lists it; modified_at: UTC, when it was written."""

    digest: str
    size_bytes: int
    modified_at: datetime


def open_store(
    location: str, env: Mapping[str, str] | None = None, *, patience: Patience | None = None
) -> "ArtifactStore":
    """
    The store at a folder's path or an `s3://`, `gs://`, `az://` address.

    env: what `opening` says; None is this process's own environment.
    Raises: PlatformError when it cannot be opened, SettingsError when what is said about it cannot be.
    """
    from obstore.exceptions import BaseError
    from obstore.store import LocalStore

    known = os.environ if env is None else env
    try:
        if "://" in location:
            backend = open_backend(location, known, patience or Patience())
            return ArtifactStore(backend, s3=s3_access(known) if location.startswith("s3://") else None)
        folder = Path(location).absolute()
        (folder / "incoming").mkdir(parents=True, exist_ok=True)
        return ArtifactStore(LocalStore(str(folder)), folder)
    except (BaseError, OSError, ValueError) as error:
        raise PlatformError(f"cannot open the artifact store: {remote.first_line(error)}", where=location) from error


@attrs.frozen
class ArtifactStore:
    """
    Puts and gets blobs in constant memory. Methods raise PlatformError when the backend fails.

    folder: where the backend is, when it is a folder of this machine. s3: how it is reached, when it is a bucket.
    """

    backend: "ObjectStore"
    folder: Path | None = None
    s3: S3Access | None = None

    def put_bytes(self, data: bytes) -> Blob:
        """Store bytes that are in memory already."""
        if self.folder is None:
            return self._send(io.BytesIO(data), Blob(hashlib.sha256(data).hexdigest(), len(data)))
        return self._keep(lambda file: _write_all(file, (data,)))

    def put_chunks(self, chunks: Iterable[bytes], expected: str | None = None) -> Blob:
        """
        Store what comes in pieces. expected: the digest that it should have.

        Raises: InputError when it has another; nothing is stored then.
        """
        return self._spooled(lambda file: _write_all(file, chunks), expected)

    def put_file(self, path: Path) -> Blob:
        """
        Store a file.

        Raises: InputError when it is no regular file or changes meanwhile.
        """
        if not stat.S_ISREG(path.lstat().st_mode):
            raise InputError("this is no regular file", where=str(path))
        with path.open("rb") as file:
            before = _state(file)
            if self.folder is None:
                return self._send(file, Blob(*hash_file(file)))
            return self._keep(lambda hashed: _copy_unchanged(file, before, hashed))

    def put_tree(self, folder: Path, only: Sequence[str] | None = None) -> Blob:
        """
        Store a folder as a tar archive whose hash depends on names, contents, links and exec bits alone.

        only: relative paths in it; the rest is left out.
        """
        return self._spooled(lambda file: _write_archive(file, folder, only))

    def put_path(self, path: Path) -> tuple[Blob, Kind]:
        """Store a file or folder. Returns: also its kind, which `fetch_path` wants to know."""
        if path.is_dir():
            return self.put_tree(path), "tree"
        return self.put_file(path), "executable" if path.stat().st_mode & stat.S_IXUSR else "file"

    def has(self, digest: str) -> bool:
        """Whether a blob of that hash is there."""
        return self._found(digest) is not None

    def size_bytes(self, digest: str) -> int:
        """Raises: BlobLost when there is none."""
        if (found := self._found(digest)) is None:
            raise BlobLost(digest)
        return found.size_bytes

    def claim(self, digest: str) -> bool:
        """
        Tell sweeps that a stored blob is about to be recorded. Returns: False when there is none any more.

        Needed only where a blob is recorded that this process has not just put.
        """
        with self._failing("look up", digest):
            claims.claim(self.backend, digest)
        return self.has(digest)

    def read(self, digest: str) -> Iterator[bytes]:
        """
        The blob in chunks; the last one comes only when the hash is right.

        Raises: BlobLost when there is none, BlobDamaged when its bytes are wrong.
        """
        found, last = hashlib.sha256(), b""
        with self._failing("read", digest):
            for chunk in remote.stream(self.backend, blob_name(digest)):
                found.update(chunk)
                if last:
                    yield last
                last = chunk
        _check(digest, found.hexdigest())
        yield last

    def open_range(self, digest: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """
        Bytes from `start` to before `end` (None: to the end) in chunks. Only all of them together are verified.

        Raises: InputError when the blob has no such bytes, at once; BlobLost, BlobDamaged.
        """
        size = self.size_bytes(digest)
        end = size if end is None else min(end, size)
        if start == 0 and end == size:
            return self.read(digest)
        if not 0 <= start < end:
            raise InputError(f"it has {size} bytes, and none from {start} to {end}", where=f"artifact {digest[:12]}")
        return self._part(digest, start, end)

    def _part(self, digest: str, start: int, end: int) -> Iterator[bytes]:
        with self._failing("read", digest):
            yield from remote.stream(self.backend, blob_name(digest), start, end)

    def fetch_file(self, digest: str, target: Path, *, executable: bool = False) -> None:
        """Write the blob to `target`, which appears complete or not at all."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # A name that nobody can foresee: a link lying in wait under it would lead out of the workspace.
            handle, part = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        except OSError as error:
            raise _unplaced(error, target) from error
        try:
            with os.fdopen(handle, "w+b") as file:
                self._write_to(digest, file)
            Path(part).chmod(0o755 if executable else 0o644)
            Path(part).replace(target)
        except OSError as error:
            raise _unplaced(error, target) from error
        finally:
            Path(part).unlink(missing_ok=True)

    def fetch_tree(self, digest: str, folder: Path) -> None:
        """Unpack an archive that `put_tree` made into `folder`; nothing of it before all of it is verified."""
        with self._verified(digest) as archive:
            read_tree(archive, folder)

    def fetch_path(self, digest: str, kind: Kind, target: Path) -> None:
        """Put a file or folder back as `put_path` found it."""
        if kind == "tree":
            self.fetch_tree(digest, target)
        else:
            self.fetch_file(digest, target, executable=kind == "executable")

    def blobs(self) -> Iterator[StoredBlob]:
        """Everything that is stored, in no order."""
        import obstore

        with self._failing("list", ""):
            for page in obstore.list(self.backend, "sha256"):
                for found in page:
                    digest = found["path"].removeprefix("sha256/").replace("/", "")
                    if len(digest) == 64:
                        yield StoredBlob(digest, found["size"], found["last_modified"])

    def delete(self, digest: str) -> None:
        """Remove the blob; one that is not there is fine."""
        with self._failing("delete", digest):
            claims.drop(self.backend, blob_name(digest))

    def remove_unclaimed(self, digest: str, since: datetime, is_needed: Callable[[], bool]) -> bool:
        """
        Remove a blob unless it was written or claimed after `since`, or is needed after all.

        is_needed: asked when every writer knows that the blob is about to go. Returns: whether it is gone.
        """
        with self._failing("delete", digest):
            claims.mark(self.backend, digest)
            try:
                written = claims.modified_at(self.backend, blob_name(digest))
                young = written is None or written >= since or claims.claimed_since(self.backend, digest, since)
                if young or is_needed():
                    return False
                claims.drop(self.backend, blob_name(digest))
                claims.drop(self.backend, claims.claim_name(digest))
                return True
            finally:
                claims.unmark(self.backend, digest)

    def discard_damaged(self, digest: str) -> bool:
        """Remove a blob whose bytes are wrong, so that who makes it again stores it again. Returns: whether it was."""
        try:
            for _ in self.read(digest):
                pass
        except BlobDamaged:
            self.delete(digest)
            return True
        return False

    def sweep_leftovers(self, before: datetime) -> int:
        """Remove what writers that died before then left half written. Returns: how many."""
        from penstock.artifacts import leftovers

        with self._failing("sweep", ""):
            return leftovers.sweep(self, before)

    def _keep(self, write: Writes, expected: str | None = None) -> Blob:
        """Write into the folder, hash on the way, and give it its name."""
        assert self.folder is not None
        try:
            with _incoming(self.folder / "incoming") as (file, path):
                blob = _written(file, write, expected)
                if not self._known(blob):
                    os.fdatasync(file.fileno())
                    self._name(path, blob)
                return blob
        except OSError as error:
            raise self._failure("store", "", error) from error

    def _name(self, path: Path, blob: Blob) -> None:
        assert self.folder is not None
        target = self.folder / blob_name(blob.digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        sync_folder(target.parent)

    def _spooled(self, write: Writes, expected: str | None = None) -> Blob:
        """Store what can be written only once: an object store wants its name, the digest, before its bytes."""
        if self.folder is not None:
            return self._keep(write, expected)
        try:
            with tempfile.TemporaryFile() as file:
                blob = _written(file, write, expected)
                return self._send(file, blob)
        except OSError as error:
            raise self._failure("store", "", error) from error

    def _send(self, file: IO[bytes], blob: Blob) -> Blob:
        if not self._known(blob):
            file.seek(0)
            with self._failing("store", blob.digest):
                remote.send(self.backend, blob_name(blob.digest), file, blob.digest, blob.size_bytes)
        return blob

    def _known(self, blob: Blob) -> bool:
        """Whether it is there whole, and will be when it is recorded; one cut short is written anew."""
        found = self._found(blob.digest)
        if found is None or found.size_bytes != blob.size_bytes:
            return False
        if datetime.now(UTC) - found.modified_at < CLAIMED_AFTER:
            return True
        return self.claim(blob.digest)

    def _found(self, digest: str) -> StoredBlob | None:
        import obstore

        with self._failing("look up", digest):
            try:
                found = obstore.head(self.backend, blob_name(digest))
            except FileNotFoundError:
                return None
            return StoredBlob(digest, found["size"], found["last_modified"])

    def _write_to(self, digest: str, file: IO[bytes]) -> None:
        """The verified bytes into an empty file."""
        if self.folder is None:
            file.writelines(self.read(digest))
            return
        with self._opened(digest) as source:
            _check(digest, copy_hashed(source, file)[0])

    @contextlib.contextmanager
    def _verified(self, digest: str) -> Iterator[IO[bytes]]:
        """The blob as an open file, at its beginning, after all of it was verified."""
        if self.folder is not None:
            with self._opened(digest) as file:
                _check(digest, self._hash(file, digest))
                file.seek(0)
                yield file
            return
        with tempfile.TemporaryFile() as file:
            try:
                file.writelines(self.read(digest))
            except OSError as error:
                raise self._failure("read", digest, error) from error
            file.seek(0)
            yield file

    def _hash(self, file: IO[bytes], digest: str) -> str:
        try:
            return hash_file(file)[0]
        except OSError as error:
            raise self._failure("read", digest, error) from error

    def _opened(self, digest: str) -> IO[bytes]:
        assert self.folder is not None
        try:
            return (self.folder / blob_name(digest)).open("rb")
        except FileNotFoundError as error:
            raise BlobLost(digest) from error
        except OSError as error:
            raise self._failure("read", digest, error) from error

    @contextlib.contextmanager
    def _failing(self, verb: str, digest: str) -> Iterator[None]:
        """The backend's errors in our words."""
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as error:
            raise BlobLost(digest) from error
        except (BaseError, OSError) as error:
            raise self._failure(verb, digest, error) from error

    def _failure(self, verb: str, digest: str, error: Exception) -> PlatformError:
        where = f"artifact {digest[:12]}" if digest else "artifact store"
        if is_full(error) or "No space left" in str(error):
            return PlatformError(f"cannot {verb} it: the disk is full", where=where, remedy="make room, then run again")
        return PlatformError(f"cannot {verb} it: {remote.first_line(error)}", where=where)


def blob_name(digest: str) -> str:
    """Where a blob is. Raises: InputError when that is no SHA-256."""
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise InputError("this is no SHA-256 of 64 hex digits", where=f'artifact "{digest[:70]}"')
    return f"sha256/{digest[:2]}/{digest[2:]}"


def _written(file: IO[bytes], write: Writes, expected: str | None) -> Blob:
    with contextlib.closing(HashedFile(file)) as hashed:
        write(hashed)
        blob = Blob(*hashed.finish())
    if expected is not None and blob.digest != expected:
        what = f"its SHA-256 is {blob.digest[:12]}…, not {expected[:12]}…"
        raise InputError(what, where="artifact", remedy="send it again")
    return blob


def _write_all(file: HashedFile, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        file.write(chunk)


def _copy_unchanged(source: IO[bytes], before: tuple[int, ...], file: HashedFile) -> None:
    file.copy(source)
    if _state(source) != before:
        raise InputError("it changed while it was being stored", where=str(source.name))


def _write_archive(file: HashedFile, folder: Path, only: Sequence[str] | None) -> None:
    buffered = io.BufferedWriter(file, COPY_BUFFER)
    try:
        write_tree(folder, buffered, only)
        buffered.flush()
    except WriteFailure:
        raise
    except (OSError, RecursionError) as error:
        what = getattr(error, "strerror", None) or "it is nested too deeply, or changed meanwhile"
        raise InputError(f"cannot store the folder: {what}", where=shown(error, folder)) from error
    finally:
        with contextlib.suppress(OSError):  # what it could not write has been told above
            buffered.detach()


@contextlib.contextmanager
def _incoming(folder: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A file to write, locked for as long as its writer lives; gone at the end if it was given no name."""
    handle, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "w+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield file, Path(name)
        finally:
            Path(name).unlink(missing_ok=True)


def _state(file: IO[bytes]) -> tuple[int, ...]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _check(digest: str, found: str) -> None:
    if found != digest:
        raise BlobDamaged(digest, found)


def _unplaced(error: OSError, target: Path) -> InputError | PlatformError:
    kind = PlatformError if is_full(error) else InputError
    return kind(f"cannot put an artifact there: {error.strerror}", where=str(target))
