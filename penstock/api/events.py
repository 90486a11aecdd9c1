"""/events: pushes come in, and what became of them can be seen."""

from http import HTTPStatus
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query, Request

from penstock.api import access
from penstock.api.access import Actor
from penstock.api.models import EventOut, Name, NewPush, PushAnswer
from penstock.api.problems import problems
from penstock.errors import NotFoundError
from penstock.events import inbox
from penstock.sources.projects import get_project
from penstock.state.tables import inbox as table

router = APIRouter(tags=["events"])


@router.post("/projects/{name}/events", status_code=HTTPStatus.ACCEPTED, responses=problems(400, 404, 413))
def accept_push(request: Request, name: Name, push: NewPush, actor: Actor) -> PushAnswer:
    """Store a push and start its run. Answered when it is on disk, before it is started."""
    database = request.app.state.database
    project = get_project(database, name)
    event = inbox.accept(database, inbox.Push(project.name, push.ref, push.commit, push.before))
    if event:
        access.record(database, actor, "event.accept", event.key, project=project.name)
    request.app.state.dispatcher.wake()
    return PushAnswer(accepted=event is not None, event=EventOut.of(event) if event else None)


@router.get("/events")
def list_events(
    request: Request, project: Name | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> list[EventOut]:
    """What came in, newest first."""
    found = inbox.list_events(request.app.state.database, project=project, limit=limit)
    return [EventOut.of(event) for event in found]


@router.get("/events/{event_id}", responses=problems(404))
def show_event(request: Request, event_id: Annotated[int, Path(ge=1, le=2**62)]) -> EventOut:
    """One event; `run_id` is there once its run is on record, `reason` when it waits or is ignored."""
    wanted = sa.select(table).where(table.c.id == event_id)
    with request.app.state.database.connect() as connection:
        row = connection.execute(wanted).mappings().first()
    if row is None:
        raise NotFoundError(f"no event has the number {event_id}", remedy="see GET /api/v1/events")
    return EventOut(**{name: row[name] for name in EventOut.model_fields})
