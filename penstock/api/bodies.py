"""Bodies are bounded before anything reads them into memory."""

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.api import problems

# They count by themselves: artifacts while they write to the disk, the others by limits of their own.
STREAMED = ("/api/v1/artifacts", "/api/v1/hooks", "/api/v1/plugin-data/metrics", "/api/v1/plugin-data/data")


class BodyLimit:
    """Refuses a body of more than `limit_bytes`, whether its length is told or found out; artifacts it lets pass."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app, self._limit = app, limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is small enough."""
        if scope["type"] != "http" or _is_streamed(scope["path"]):
            await self._app(scope, receive, send)
        elif told_length(scope) > self._limit:
            error = too_large(self._limit)
            refusal = problems.answer(HTTPStatus(error.status_code), error.detail, error.headers)
            await refusal(scope, receive, send)
        else:
            await self._app(scope, _counted(receive, self._limit), send)


def _is_streamed(path: str) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in STREAMED)


def told_length(scope: Scope) -> int:
    """What Content-Length says; 0 where it says nothing."""
    told = dict(scope["headers"]).get(b"content-length", b"")
    return int(told) if told.isdigit() else 0


def too_large(limit_bytes: int) -> problems.HttpError:
    """The problem. The connection ends with it: what is still to come is not read."""
    what = f"the body is larger than {limit_bytes} bytes"
    return problems.HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, what, {"Connection": "close"})


def _counted(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise too_large(limit)
        return message

    return counting
