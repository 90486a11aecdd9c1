"""Requests for approval as rows: read by everyone, changed only by `penstock.pipeline.approvals`."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

import attrs
import sqlalchemy as sa

from penstock.errors import NotFoundError
from penstock.people.groups import members_of
from penstock.people.users import perhaps_authors
from penstock.pipeline.approval_rules import Answer, ApprovalRule, Asked, GateState, Said, judge
from penstock.state.people_tables import approval_answers, approval_requests
from penstock.state.tables import runs

How = Literal["cli", "api", "page", "mail", "clock"]
OPEN = ("waiting", "approved")


@attrs.frozen
class AnswerRecord:
    """
    One thing that was said about a request.

    decision: approved, rejected, withdrawn (an approval that is taken back), cancelled (the request was), expired.
    how: cli, api, page, mail, or clock when nobody said it.
    """

    person: str
    decision: str
    why: str
    how: How
    at: datetime


@attrs.frozen
class Request:
    """
    People are asked whether a commit, in this graph, with this digest of what is upstream, may pass a step.

    author: of the commit, as git says it. actor: who set the run off, as the forge says it. run_id: the run that
    asked last. reason: why it is no longer open. used_at: when the step passed with it. went_on_in: the run that
    went on after it was approved.
    """

    id: int
    project: str
    commit: str
    graph_hash: str
    step: str
    digest: str
    run_id: str
    rule: ApprovalRule
    author: str | None
    actor: str | None
    state: GateState
    reason: str | None
    asked_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    used_at: datetime | None
    went_on_in: str | None
    answers: tuple[AnswerRecord, ...] = ()
    title: str | None = None
    ref: str | None = None

    @property
    def said(self) -> tuple[Said, ...]:
        """The last answer of each person that is still theirs."""
        last = {one.person: one for one in self.answers if one.decision in ("approved", "rejected", "withdrawn")}
        return tuple(
            Said(one.person, "approved" if one.decision == "approved" else "rejected", one.at, one.why)
            for one in last.values()
            if one.decision != "withdrawn"
        )


def waiting_for(request: Request) -> str:
    """In words: how many more people it takes, of whom, or how it ended."""
    if request.state != "waiting":
        return request.reason or ""
    more = request.rule.count - sum(one.decision == "approved" for one in request.said)
    people = "one more person" if more == 1 else f"{more} more people"
    named = [*request.rule.users, *(f"group {name}" for name in request.rule.groups)]
    return f"waits for {people}" + (f" of {', '.join(named)}" if named else "")


def judged(connection: sa.Connection, request: Request, now: datetime) -> Answer:
    """What follows from the answers now, with the groups as they are now."""
    said = request.said
    authors = perhaps_authors(connection, [one.actor for one in said], request.author, request.actor)
    members = members_of(connection, request.rule.groups)
    return judge(request.rule, Asked(request.asked_at, said), authors, members, now)


def get_request(connection: sa.Connection, request_id: int, *, locked: bool = False) -> Request:
    """locked: nobody else changes it till the transaction ends. Raises: NotFoundError."""
    wanted = sa.select(approval_requests).where(approval_requests.c.id == request_id)
    if locked:
        connection.execute(wanted.with_for_update())
    for found in read_requests(connection, approval_requests.c.id == request_id):
        return found
    raise NotFoundError(f"no request for approval has the number {request_id}", remedy="see `penstock approvals`")


def read_requests(
    connection: sa.Connection, *conditions: sa.ColumnElement[bool], limit: int = 1000
) -> tuple[Request, ...]:
    """The newest first, with what was said."""
    wanted = (
        sa.select(approval_requests, runs.c.title, runs.c.ref)
        .join(runs, runs.c.id == approval_requests.c.run_id)
        .where(*conditions)
        .order_by(approval_requests.c.id.desc())
        .limit(limit)
    )
    rows = connection.execute(wanted).mappings().all()
    answers = _answers(connection, [row["id"] for row in rows])
    return tuple(_request(row, answers.get(row["id"], ())) for row in rows)


def _answers(connection: sa.Connection, ids: Iterable[int]) -> dict[int, tuple[AnswerRecord, ...]]:
    wanted = sa.select(approval_answers).where(approval_answers.c.request_id.in_(list(ids)))
    found: dict[int, list[AnswerRecord]] = {}
    for row in connection.execute(wanted.order_by(approval_answers.c.id)).mappings():
        said = AnswerRecord(**{field.name: row[field.name] for field in attrs.fields(AnswerRecord)})
        found.setdefault(row["request_id"], []).append(said)
    return {request: tuple(said) for request, said in found.items()}


def _request(row: Mapping[Any, Any], answers: tuple[AnswerRecord, ...]) -> Request:
    names = [field.name for field in attrs.fields(Request) if field.name not in ("rule", "answers")]
    return Request(rule=rule_of(row["rule"]), answers=answers, **{name: row[name] for name in names})


def rule_of(values: Mapping[str, Any]) -> ApprovalRule:
    """A rule as it is stored."""
    lists = {"users": tuple(values["users"]), "groups": tuple(values["groups"])}
    return ApprovalRule(**{**values, **lists})


def rule_values(rule: ApprovalRule) -> dict[str, Any]:
    """A rule to be stored."""
    return {**attrs.asdict(rule), "users": list(rule.users), "groups": list(rule.groups)}
