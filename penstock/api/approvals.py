"""/approvals: what waits for people, what they have said, and what somebody should know before saying it."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from penstock.api.access import Actor
from penstock.api.models import Name
from penstock.api.paging import PAGED, link_next, read_cursor, write_cursor
from penstock.api.problems import problems
from penstock.errors import InputError
from penstock.people.users import person_of
from penstock.pipeline import approval_rows, approvals
from penstock.pipeline.approval_evidence import evidence_of
from penstock.pipeline.approval_rules import GateState

router = APIRouter(tags=["approvals"])

LARGEST_NUMBER = 2**63 - 1
Number = Annotated[int, Path(ge=1, le=LARGEST_NUMBER, description="The request's number.")]
_Severity = Literal["critical", "high", "medium", "low", "info"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


class RuleOut(_Model):
    """Who has to say yes."""

    count: int
    users: tuple[str, ...]
    groups: tuple[str, ...]
    not_author: bool
    within_s: int


class AnswerOut(_Model):
    """One thing that was said. person: empty where the clock said it."""

    person: str
    decision: str = Field(description="approved, rejected, withdrawn (an approval), cancelled (the request), expired.")
    why: str
    how: str = Field(description="cli, api, page, mail or clock.")
    at: datetime


class ApprovalOut(_Model):
    """A gate that asks people, or asked them."""

    id: int
    project: str
    commit: str
    ref: str | None
    title: str | None = Field(description="The commit's first line.")
    step: str
    graph_hash: str
    digest: str = Field(description="SHA-256 of what the gate would let pass; an approval holds for it alone.")
    run_id: str
    rule: RuleOut
    author: str | None
    actor: str | None = Field(description="Who set the run off, as the forge calls them.")
    state: GateState
    reason: str | None
    waiting_for: str
    asked_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    used_at: datetime | None = Field(description="When the step passed with it; then it cannot be withdrawn any more.")
    went_on_in: str | None = Field(description="The run that went on after the approval.")
    answers: tuple[AnswerOut, ...]

    @classmethod
    def of(cls, request: approval_rows.Request) -> "ApprovalOut":
        own = {
            name: getattr(request, name) for name in cls.model_fields if name not in ("rule", "answers", "waiting_for")
        }
        answers = tuple(AnswerOut.model_validate(one) for one in request.answers)
        waiting = approval_rows.waiting_for(request) if request.state == "waiting" else ""
        return cls(rule=RuleOut.model_validate(request.rule), answers=answers, waiting_for=waiting, **own)


class CheckOut(_Model):
    """What a step upstream decided."""

    step: str
    passed: bool
    summary: str
    findings: dict[_Severity, int] | None


class MadeOut(_Model):
    """What was built: an artifact by its SHA-256, or an image by its digest."""

    step: str
    name: str
    digest: str


class AgainstOut(_Model):
    """What it changes in an environment, against what is live there; null where that is not known."""

    environment: str
    service: str | None
    number: int | None
    commit: str | None
    changes: tuple[str, ...]
    count: int | None
    introduced: dict[_Severity, int] | None
    fixed: dict[_Severity, int] | None


class EvidenceOut(_Model):
    """What somebody should know before approving."""

    checks: tuple[CheckOut, ...]
    made: tuple[MadeOut, ...]
    against: tuple[AgainstOut, ...]


class NewAnswer(_Model):
    """An answer to a gate."""

    why: Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")] = Field("", description="For the record.")
    digest: Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")] | None = Field(
        None, description="Of what you have looked at; refused (409) if the gate asks about another."
    )
    how: Literal["api", "page"] = Field("api", description="Where it was said.")


class NewWithdrawal(_Model):
    """Why something is taken back."""

    why: Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")] = Field("", description="For the record.")
    how: Literal["api", "page"] = Field("api", description="Where it was said.")


@router.get("/approvals", responses=PAGED)
def list_approvals(
    *,
    request: Request,
    response: Response,
    project: Name | None = None,
    state: Annotated[tuple[GateState, ...], Query(description="One or several; each may be.")] = (),
    run: Annotated[Name | None, Query(description="A run; its first digits are enough.")] = None,
    step: Name | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(max_length=1000, description="Of the Link header of the page before.")] = None,
) -> list[ApprovalOut]:
    """Gates that wait for people, and those that did, newest first."""
    before = number_in(cursor) if cursor else None
    wanted = {"project": project, "states": state, "run": run, "step": step, "before": before}
    found = approvals.list_requests(request.app.state.database, **wanted, limit=limit + 1)  # type: ignore[arg-type]
    if len(found) > limit:
        link_next(request, response, write_cursor(found[limit - 1].asked_at, str(found[limit - 1].id)))
    return [ApprovalOut.of(one) for one in found[:limit]]


def number_in(cursor: str) -> int:
    """The number of the last row of a page. Raises: InputError for a cursor that is none."""
    _, key = read_cursor(cursor)
    if not (key.isascii() and key.isdecimal() and len(key) < 20 and int(key) <= LARGEST_NUMBER):
        raise InputError("this is no cursor", where="cursor", remedy="take it from the Link header of the page before")
    return int(key)


@router.get("/approvals/{request_id}", responses=problems(404))
def show_approval(request: Request, request_id: Number) -> ApprovalOut:
    """One of them."""
    with request.app.state.database.connect() as connection:
        return ApprovalOut.of(approval_rows.get_request(connection, request_id))


@router.get("/approvals/{request_id}/evidence", responses=problems(404))
def show_evidence(request: Request, request_id: Number) -> EvidenceOut:
    """The checks, what was built, and what it changes where: as it is now."""
    state = request.app.state
    with state.database.connect() as connection:
        found = approval_rows.get_request(connection, request_id)
    return EvidenceOut.model_validate(evidence_of(state.database, state.settings, found))


@router.post("/approvals/{request_id}/approve", responses=problems(400, 404, 409, 413))
def approve(request: Request, request_id: Number, new: NewAnswer, actor: Actor) -> ApprovalOut:
    """
    Say yes. When enough people have, the rest of the run goes on by itself.

    This machine's own token speaks for the user who is `local`, or for the system's account.
    """
    return _answered(request, request_id, new, actor, approved=True)


@router.post("/approvals/{request_id}/reject", responses=problems(400, 404, 409, 413))
def reject(request: Request, request_id: Number, new: NewAnswer, actor: Actor) -> ApprovalOut:
    """Say no: the gate stays shut for this commit and pipeline, and the run has failed."""
    return _answered(request, request_id, new, actor, approved=False)


def _answered(request: Request, request_id: int, new: NewAnswer, actor: str, *, approved: bool) -> ApprovalOut:
    state = request.app.state
    said = approvals.answer(
        state.database,
        request_id,
        _person(request, actor),
        approved=approved,
        how=new.how,
        why=new.why,
        digest=new.digest,
    )
    state.approvals.wake()
    return ApprovalOut.of(said)


@router.post("/approvals/{request_id}/withdraw", responses=problems(400, 404, 409, 413))
def withdraw(request: Request, request_id: Number, new: NewWithdrawal, actor: Actor) -> ApprovalOut:
    """Take back your approval before it is used; for who wrote the commit or set the run off, the request itself."""
    state = request.app.state
    person = _person(request, actor)
    return ApprovalOut.of(approvals.withdraw(state.database, request_id, person, how=new.how, why=new.why))


def _person(request: Request, actor: str) -> str:
    with request.app.state.database.connect() as connection:
        return person_of(connection, actor)
