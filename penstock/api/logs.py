"""/runs/{id}/steps/{step}/logs: what a step printed, while it prints it."""

from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import attrs
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from penstock.api.log_stream import (
    END_ID,
    Pace,
    Source,
    as_events,
    as_ndjson,
    as_text,
    size_of,
)
from penstock.api.models import LogLineOut, LogOut, Name
from penstock.api.problems import HttpError, problems
from penstock.errors import InputError, NotFoundError
from penstock.pipeline import records
from penstock.pipeline.log import log_path, read_log

router = APIRouter(tags=["logs"])
Offset = Annotated[int, Query(ge=0, le=2**62, description="A byte of the log; 0 is its beginning.")]

_TEXT, _NDJSON, _EVENTS = "text/plain", "application/x-ndjson", "text/event-stream"
_FORMS: dict[str, Callable[[Source], AsyncIterator[bytes]]] = {
    _TEXT: as_text,
    _NDJSON: as_ndjson,
    _EVENTS: as_events,
}
_DECLARED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The log, as the media type that `Accept` likes best.",
        "content": {
            _TEXT: {"schema": {"type": "string"}, "example": "2026-01-01T00:00:00.000Z hello\n"},
            _NDJSON: {
                "schema": {"type": "string"},
                "example": '{"at":"2026-01-01T00:00:00.000Z","text":"hello","own":false,"next_offset":31}\n',
            },
            _EVENTS: {
                "schema": {"type": "string"},
                "example": 'id: 31\ndata: {"at":"2026-01-01T00:00:00.000Z","text":"hello","own":false,'
                '"next_offset":31}\n\nid: end\nevent: end\ndata: {"state":"succeeded","next_offset":31}\n\n',
            },
        },
    },
    204: {"description": "To an EventSource that has had the end already: do not connect again."},
}


@router.get(
    "/runs/{run_id}/steps/{step}/logs",
    response_class=Response,
    responses={**_DECLARED, **problems(404, 406, 416)},
)
async def stream_logs(
    *,
    request: Request,
    run_id: Name,
    step: Name,
    offset: Offset = 0,
    follow: Annotated[
        bool | None, Query(description="Wait for more until the step has ended; default: only as text/event-stream.")
    ] = None,
    accept: Annotated[str, Header(description="text/plain, application/x-ndjson or text/event-stream.")] = "*/*",
    last_event_id: Annotated[
        str | None, Header(description="Of an EventSource that connects again: counts instead of `offset`.")
    ] = None,
) -> Response:
    """
    A step's log from a byte offset on.

    As text it is the file's bytes: having received n, go on at offset + n. As NDJSON and events each line carries
    `next_offset`.
    """
    form = _form(accept)
    await run_in_threadpool(step_of, request, run_id, step)
    if form == _EVENTS and last_event_id is not None:
        if last_event_id == END_ID:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        offset = _event_offset(last_event_id)
    following = form == _EVENTS if follow is None else follow
    source = await run_in_threadpool(_source, request, run_id, step, offset)
    source = attrs.evolve(source, follow=following, whole_lines=form != _TEXT)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(_FORMS[form](source), media_type=form, headers=headers)


def _form(accept: str) -> str:
    """
    The media type that the client likes best; text when it does not care.

    Raises: HttpError 406.
    """
    liked: list[tuple[float, str]] = []
    for place, entry in enumerate(accept.split(",")):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            weight = float(quality)
        except ValueError:
            weight = 0.0
        form = _TEXT if name in ("*/*", "text/*") else _NDJSON if name == "application/*" else name
        if form in _FORMS and weight > 0:
            liked.append((weight - place / 1e6, form))
    if not liked:
        raise HttpError(HTTPStatus.NOT_ACCEPTABLE, f"logs are given as {', '.join(_FORMS)}; ask for one of them")
    return max(liked)[1]


def _event_offset(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 18:
        raise InputError("this is no offset", where="Last-Event-ID", remedy="give the id of an event of this stream")
    return int(text)


def _source(request: Request, run_id: str, step: str, offset: int) -> Source:
    path = _reachable(request, run_id, step, offset)
    limits = request.app.state.limits

    async def ending() -> str | None:
        state = (await run_in_threadpool(step_of, request, run_id, step)).state
        return None if state in records.UNFINISHED else state

    return Source(path, offset, ending, Pace(limits.look_every_s, limits.heartbeat_s))


def _reachable(request: Request, run_id: str, step: str, offset: int) -> Path:
    """The log. Raises: HttpError 416 when it does not reach the offset."""
    path = log_path(request.app.state.settings.home, run_id, step)
    if offset > (size := size_of(path)):
        what = f"the log has {size} bytes, and none from {offset} on"
        raise HttpError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, what, {"Content-Range": f"bytes */{size}"})
    return path


@router.get("/runs/{run_id}/steps/{step}/log", responses=problems(404, 416))
def show_log(request: Request, run_id: Name, step: Name, offset: Offset = 0) -> LogOut:
    """A step's log from a byte offset on as one JSON value, at most 4 MiB at a time."""
    record = step_of(request, run_id, step)
    lines, following = read_log(_reachable(request, run_id, step, offset), offset=offset)
    complete = record.state not in records.UNFINISHED and not lines
    return LogOut(lines=tuple(LogLineOut.of(line) for line in lines), next_offset=following, complete=complete)


def step_of(request: Request, run_id: str, step: str) -> records.StepRecord:
    """A step of a run. Raises: NotFoundError; no file is looked for by what a caller calls a step."""
    steps = {record.step: record for record in records.list_steps(request.app.state.database, run_id)}
    if step not in steps:
        raise NotFoundError(f'run "{run_id}" has no step "{step}"', remedy=f"there are: {', '.join(steps) or 'none'}")
    return steps[step]
