"""Bytes to and from an obstore backend, in pieces, through failures."""

import hashlib
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from penstock.errors import InputError

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ObjectStore

CHUNK_BYTES = 4 * 1024 * 1024
PART_BYTES = 8 * 1024 * 1024
PARTS_AT_ONCE = 4
MOST_PARTS = 9_000  # S3 allows 10,000
# A server that breaks off answers that it has begun: obstore asks again by itself only before the first byte, or where
# ranges work as they should.
RESUMES = 8
RESUME_PAUSE_S = 0.2


def send(backend: "ObjectStore", name: str, file: IO[bytes], digest: str, size: int) -> None:
    """
    Upload a file that is at its beginning. Its name appears when all is there and has that digest.

    Raises: InputError when it has changed since it was hashed, BaseError.
    """
    import obstore

    if size <= PART_BYTES:
        data = file.read()
        _unchanged(digest, hashlib.sha256(data).hexdigest())
        obstore.put(backend, name, data, use_multipart=False)
        return
    part = max(PART_BYTES, -(-size // MOST_PARTS))
    # An iterator that raises makes obstore abort the upload.
    obstore.put(backend, name, _checked(file, digest), chunk_size=part, max_concurrency=PARTS_AT_ONCE)


def _checked(file: IO[bytes], digest: str) -> Iterator[bytes]:
    found = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        found.update(chunk)
        yield chunk
    _unchanged(digest, found.hexdigest())


def _unchanged(digest: str, found: str) -> None:
    if found != digest:
        raise InputError("it changed while it was being stored", where=f"artifact {digest[:12]}")


def stream(backend: "ObjectStore", name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """
    An object's bytes from `start` to before `end`; goes on where a connection broke off.

    Raises: FileNotFoundError, BaseError when the backend fails time and again.
    """
    from obstore.exceptions import BaseError

    position, failures = start, 0
    while True:
        try:
            for chunk in _from(backend, name, position, end):
                position, failures = position + len(chunk), 0
                yield chunk
            return
        except BaseError:
            failures += 1
            if failures > RESUMES or position == start:  # obstore has been patient before the first byte
                raise
            time.sleep(RESUME_PAUSE_S * failures)


def _from(backend: "ObjectStore", name: str, start: int, end: int | None) -> Iterator[bytes]:
    import obstore
    from obstore.exceptions import BaseError

    if start == 0 and end is None:
        yield from map(bytes, obstore.get(backend, name).stream(CHUNK_BYTES))
        return
    options: GetOptions = {"range": {"offset": start} if end is None else (start, end)}
    try:
        found = obstore.get(backend, name, options=options)
    except BaseError as error:
        if "non-partial" not in str(error):
            raise
        # `rclone serve s3` 1.75 answers a range rightly but with 200 instead of 206, which obstore refuses.
        yield from _cut(map(bytes, obstore.get(backend, name).stream(CHUNK_BYTES)), start, end)
        return
    yield from map(bytes, found.stream(CHUNK_BYTES))


def _cut(chunks: Iterator[bytes], start: int, end: int | None) -> Iterator[bytes]:
    at = 0
    for chunk in chunks:
        first, last = max(start - at, 0), len(chunk) if end is None else min(end - at, len(chunk))
        at += len(chunk)
        if first < last:
            yield chunk[first:last]
        if end is not None and at >= end:
            return


def first_line(error: Exception) -> str:
    """What a backend says, without its inner workings."""
    return (str(error).splitlines() or [type(error).__name__])[0]
