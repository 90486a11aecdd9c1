"""/audit: who changed what, when."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from penstock.api.approvals import number_in
from penstock.api.models import Moment, Name
from penstock.api.paging import PAGED, link_next, write_cursor
from penstock.people.audit import list_changes

router = APIRouter(tags=["audit"])


class ChangeOut(BaseModel):
    """One change. detail: plain values, no secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)

    id: int
    at: datetime
    actor: str = Field(description="A user, a system's account, `local` for this machine's token, or Penstock.")
    action: str = Field(description="Thing and verb, such as run.cancel.")
    subject: str = Field(description="The thing's name.")
    detail: dict[str, Any]


@router.get("/audit", responses=PAGED)
def list_audit(
    *,
    request: Request,
    response: Response,
    actor: Name | None = None,
    action: Annotated[Name | None, Query(description="In full, or its thing: `run` for run.cancel and others.")] = None,
    subject: Name | None = None,
    since: Annotated[Moment | None, Query(description="Then or later; with a time zone.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(max_length=1000, description="Of the Link header of the page before.")] = None,
) -> list[ChangeOut]:
    """Every change that somebody made to the platform, newest first."""
    before = number_in(cursor) if cursor else None
    with request.app.state.database.connect() as connection:
        found = list_changes(
            connection, actor=actor, action=action, subject=subject, since=since, before=before, limit=limit + 1
        )
    if len(found) > limit:
        link_next(request, response, write_cursor(found[limit - 1].at, str(found[limit - 1].id)))
    return [ChangeOut.model_validate(one) for one in found[:limit]]
