"""A body on its way into the artifact store: counted, hashed, never in memory."""

from collections.abc import Iterator
from http import HTTPStatus

from anyio import CapacityLimiter, from_thread, to_thread
from fastapi import Request

from penstock.api.bodies import told_length, too_large
from penstock.api.problems import HttpError
from penstock.artifacts import ArtifactStore, Blob

PIECE_BYTES = 1024 * 1024
AT_ONCE = 16  # each holds a thread for as long as its client takes; the rest of the API has threads of its own


class Incoming:
    """The body of a request as pieces, for a thread that writes them."""

    def __init__(self, request: Request, limit_bytes: int) -> None:
        self._stream = request.stream()
        self._limit, self._seen = limit_bytes, 0

    def pieces(self) -> Iterator[bytes]:
        """Piece by piece, as it comes. Raises: HttpError when it is too large, ClientDisconnect."""
        while piece := from_thread.run(self._next):
            yield piece

    async def _next(self) -> bytes:
        """About a MiB, so that the writer is asked seldom; less at the end."""
        piece = bytearray()
        async for chunk in self._stream:
            self._seen += len(chunk)
            if self._seen > self._limit:
                raise too_large(self._limit)
            piece += chunk
            if len(piece) >= PIECE_BYTES:
                break
        return bytes(piece)


async def receive(request: Request, expected: str | None) -> Blob:
    """
    The body, stored. expected: its SHA-256, as 64 hex digits.

    Raises: HttpError when it is too large or encoded, InputError when its hash is another; nothing is stored then.
    """
    limit: int = request.app.state.limits.upload_bytes
    if told_length(request.scope) > limit:
        raise too_large(limit)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        what = "artifacts are stored as they are sent; send it without Content-Encoding"
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, what)
    incoming, store = Incoming(request, limit), request.app.state.store
    return await to_thread.run_sync(_store, store, incoming, expected, limiter=request.app.state.uploads)


def _store(store: ArtifactStore, incoming: Incoming, expected: str | None) -> Blob:
    return store.put_chunks(incoming.pieces(), expected)


def upload_threads() -> CapacityLimiter:
    """How many uploads are written at once."""
    return CapacityLimiter(AT_ONCE)
