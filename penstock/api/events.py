"""/events: pushes come in, and what became of them can be seen."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request

from penstock.api.models import EventOut, NewPush, PushAnswer
from penstock.events import inbox
from penstock.sources.projects import get_project

router = APIRouter(tags=["events"])


@router.post("/projects/{name}/events", status_code=HTTPStatus.ACCEPTED)
def accept_push(request: Request, name: str, push: NewPush) -> PushAnswer:
    """Store a push and start its run. Answered when it is on disk, before it is started."""
    database = request.app.state.database
    project = get_project(database, name)
    event = inbox.accept(database, inbox.Push(project.name, push.ref, push.commit, push.before))
    request.app.state.dispatcher.wake()
    return PushAnswer(accepted=event is not None, event=EventOut.of(event) if event else None)


@router.get("/events")
def list_events(
    request: Request, project: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> list[EventOut]:
    """What came in, newest first."""
    found = inbox.list_events(request.app.state.database, project=project, limit=limit)
    return [EventOut.of(event) for event in found]
