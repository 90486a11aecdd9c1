"""
Files that are hashed while they are written: from what lies on the disk, in a thread of its own.

Hashing costs three times what copying does, and neither holds Python's lock: so the hash follows the copy on
another core, and reads back what was written instead of what should have been.
"""

import contextlib
import errno
import hashlib
import io
import os
import queue
import threading
from pathlib import Path
from typing import IO, Any

PIECE_BYTES = 8 * 1024 * 1024
_READ_BYTES = 256 * 1024  # stays in the core's cache
COPY_BUFFER = 1024 * 1024
_NO_KERNEL_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)


class WriteFailure(OSError):
    """It is the file that is written which failed, not what is read."""


class HashedFile(io.RawIOBase):
    """
    Writes to an open file from its beginning; `finish` gives SHA-256 and size of what is in it.

    file: open for reading and writing, empty; it stays open. Close this one in any case: its thread ends then.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._fd, self._size = file.fileno(), 0
        self._ends: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._hash = hashlib.sha256()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """How much has been written."""
        return self._size

    def write(self, data: Any) -> int:
        """Write all of it. Raises: WriteFailure."""
        left = memoryview(data).cast("B")
        length = left.nbytes
        try:
            while left.nbytes:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            raise WriteFailure(error.errno, error.strerror) from error
        self._wrote(length)
        return length

    def copy(self, source: IO[bytes]) -> None:
        """Write the whole of an open file, which is at its beginning; in the kernel where that can. Raises: OSError."""
        while True:
            try:
                copied = os.copy_file_range(source.fileno(), self._fd, PIECE_BYTES)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                break
            if not copied:
                break
            self._wrote(copied)
        # Some file systems copy nothing and say so by 0: what the kernel left is copied by hand.
        while chunk := os.read(source.fileno(), PIECE_BYTES):
            self.write(chunk)

    def finish(self) -> tuple[str, int]:
        """Returns: SHA-256 as 64 hex digits, size in bytes. Raises: OSError when it cannot be read back."""
        self._join()
        if self._failure:
            raise self._failure
        return self._hash.hexdigest(), self._size

    def close(self) -> None:
        """Ends the thread; the file below stays open."""
        if not self.closed:
            self._join()
            super().close()

    def _wrote(self, length: int) -> None:
        self._size += length
        self._ends.put(self._size)

    def _join(self) -> None:
        if self._thread.is_alive():
            self._ends.put(None)
        self._thread.join()

    def _follow(self) -> None:
        position, buffer = 0, memoryview(bytearray(_READ_BYTES))
        while (end := self._ends.get()) is not None:
            try:
                while position < end and not self._failure:
                    read = os.preadv(self._fd, [buffer[: end - position]], position)
                    if not read:
                        raise OSError(errno.EIO, "what was written cannot be read back")
                    self._hash.update(buffer[:read])
                    position += read
            except OSError as error:
                self._failure = error


def copy_hashed(source: IO[bytes], target: IO[bytes]) -> tuple[str, int]:
    """Copy the rest of a file into an empty one. Returns: SHA-256 and size of the copy. Raises: OSError."""
    with contextlib.closing(HashedFile(target)) as hashed:
        hashed.copy(source)
        return hashed.finish()


def hash_file(file: IO[bytes]) -> tuple[str, int]:
    """SHA-256 and size of the rest of an open file, which is at its end then."""
    start = file.tell()
    digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    return digest.hexdigest(), file.tell() - start


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
