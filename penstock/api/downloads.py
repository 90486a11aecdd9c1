"""An artifact on its way to a client: all of it or a range, never in memory, or nothing where the client has it."""

from collections.abc import Iterator
from http import HTTPStatus
from itertools import chain
from typing import Annotated, Any

import attrs
from fastapi import Depends, Header, Request, Response
from fastapi.responses import StreamingResponse

from penstock.api.problems import problems
from penstock.api.ranges import Part, etag, is_known, repr_digest, wanted_part
from penstock.artifacts import ArtifactStore, BlobLost
from penstock.errors import NotFoundError

MEDIA_TYPE = "application/octet-stream"
BYTES: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
_KNOWN = {"description": "The client has it already."}
READ: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes.", **BYTES},
    206: {"description": "The part of the bytes that was asked for.", **BYTES},
    304: _KNOWN,
    **problems(404, 416),
}
HEAD: dict[int | str, dict[str, Any]] = {
    200: {"description": "Its size, its digest, and that ranges can be read."},
    304: _KNOWN,
    **problems(404),
}


@attrs.frozen
class Asked:
    """What a request says of the bytes that it wants: three headers."""

    if_none_match: str | None
    range: str | None = None
    if_range: str | None = None

    def part(self, digest: str, size: int) -> Part | None:
        """Which part; None for the whole. Raises: HttpError 416."""
        is_same = self.if_range is None or self.if_range == etag(digest)
        return wanted_part(self.range, size) if is_same else None


_IfNoneMatch = Annotated[str | None, Header(description="ETags that the client has; an ETag is the digest in quotes.")]


def _asked(
    if_none_match: _IfNoneMatch = None,
    range: Annotated[str | None, Header(description="Such as bytes=0-1023, bytes=1024- or bytes=-512.")] = None,
    if_range: Annotated[str | None, Header(description="A part only if this is still the ETag; else all.")] = None,
) -> Asked:
    return Asked(if_none_match, range, if_range)


def _asked_of_head(if_none_match: _IfNoneMatch = None) -> Asked:
    return Asked(if_none_match)


AskedOfGet = Annotated[Asked, Depends(_asked)]
AskedOfHead = Annotated[Asked, Depends(_asked_of_head)]


def send(request: Request, digest: str, asked: Asked) -> Response:
    """
    The answer to a GET or HEAD of a blob.

    Raises: NotFoundError when the store has none, HttpError for a range beyond its end, PlatformError.
    """
    headers = _headers(digest)
    if is_known(asked.if_none_match, digest):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    store: ArtifactStore = request.app.state.store
    size = _size(store, digest)
    if request.method == "HEAD":
        return Response(headers={**headers, "Content-Length": str(size)}, media_type=MEDIA_TYPE)
    part = asked.part(digest, size)
    if part is None:
        headers["Content-Length"] = str(size)
        return StreamingResponse(_begun(store.open_range(digest)), headers=headers, media_type=MEDIA_TYPE)
    headers |= {"Content-Length": str(part.end - part.start), "Content-Range": part.content_range}
    body = _begun(store.open_range(digest, part.start, part.end))
    return StreamingResponse(body, HTTPStatus.PARTIAL_CONTENT, headers=headers, media_type=MEDIA_TYPE)


def _headers(digest: str) -> dict[str, str]:
    return {
        "ETag": etag(digest),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Repr-Digest": repr_digest(digest),
        "X-Content-Type-Options": "nosniff",
    }


def _size(store: ArtifactStore, digest: str) -> int:
    try:
        return store.size_bytes(digest)
    except BlobLost as error:
        raise NotFoundError(error.what, where=error.where, remedy=error.remedy) from error


def _begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """With its first chunk read: what is wrong by then is still told as a problem, later only by an early end."""
    return chain([next(chunks)], chunks)
