"""
Steps that wait for people: asked, answered, taken back, run out of time.

An approval is bound to the commit, to the very graph, and to the digest of what the step would let pass. Whoever
changes a request holds its row, so that of two answers at the same time one is the first.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import ConflictError, ForbiddenError, NotFoundError
from penstock.people.audit import record_in
from penstock.people.groups import members_of
from penstock.people.users import authors_among, find_users, list_users, perhaps_authors
from penstock.pipeline import records
from penstock.pipeline.approval_rows import (
    OPEN,
    How,
    Request,
    get_request,
    judged,
    read_requests,
    rule_values,
)
from penstock.pipeline.approval_rules import Answer, ApprovalRule
from penstock.pipeline.log import utc_now
from penstock.state.people_tables import approval_answers, approval_mails, approval_requests
from penstock.state.tables import runs, steps
from penstock.steps.context import RunInfo, StepContext, StepResult

SEEN = "built"
"""The output of a gate that holds the digest of what it has let pass."""

_table = approval_requests
_KEY = ["project", "commit", "graph_hash", "step", "digest"]
_IS_OPEN = sa.literal_column("state IN ('waiting', 'approved')", sa.Boolean)  # as the index says it


@attrs.frozen
class Question:
    """May what a run has built pass a step? digest: of what that is."""

    info: RunInfo
    step: str
    rule: ApprovalRule
    digest: str


def asked(step_name: str, rule: ApprovalRule, context: StepContext, digest: str = "") -> StepResult | None:
    """
    Ask people to let the step pass, if nobody did, and hear what they have said.

    digest: of what they let pass; default: of everything that the steps upstream put out.
    Returns: None when they have approved; else how the step ends: waiting, or failed because they said no, or nobody
    said anything in time.
    """
    answer = heard(step_name, rule, context, digest)
    return None if answer.state == "approved" else closed(answer, rule, context, step_name)


def heard(step_name: str, rule: ApprovalRule, context: StepContext, digest: str = "") -> Answer:
    """The same, with who has approved."""
    digest = digest or digest_upstream(step_name, context)
    return ask(context.database, Question(context.run, step_name, rule, digest), utc_now())


def closed(answer: Answer, rule: ApprovalRule, context: StepContext, step: str) -> StepResult:
    """How a step ends that was not approved."""
    if answer.state == "waiting":
        people = "one person" if answer.missing == 1 else f"{answer.missing} people"
        command = f"penstock approve {context.run.id[:8]} {step}"
        return StepResult("waiting", reason=f"waits for {people} to approve: {command}")
    return StepResult("failed", reason=in_words(answer, rule))


def in_words(answer: Answer, rule: ApprovalRule) -> str:
    """Why a gate is shut."""
    if answer.state == "expired":
        return f"expired: not approved within {_hours(rule.within_s)}"
    return f"{answer.state} by {answer.by}" + (f": {answer.why}" if answer.why else "")


def _hours(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def digest_upstream(step: str, context: StepContext) -> str:
    """SHA-256 over everything that the steps upstream put out: artifacts by their hash, images by their digest."""
    return digest_of(context.database, context.run, step)


def digest_of(database: sa.Engine, info: RunInfo, step: str) -> str:
    """
    The same, of a step of a recorded run, from what passed last for its commit and graph.

    Raises: NotFoundError when the run has no graph.
    """
    upstream = records.load_graph(database, info.id).upstream(step)
    passed = records.passed_steps(database, info)
    made_by = [(passed[name], name) for name in sorted(upstream) if name in passed]
    parts = [f"artifact {made.key} {made.digest}" for made in records.artifacts_of(database, made_by)]
    outcomes = {run: records.outcomes(database, run) for run in {run for run, _ in made_by}}
    for run, name in made_by:
        _, outputs = outcomes[run].get(name, ("", {}))
        parts += [f"image {name} {outputs[key]}" for key in ("digest",) if outputs.get(key)]
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def outdated_gates(database: sa.Engine, info: RunInfo, gates: Mapping[str, str]) -> set[str]:
    """
    Gates that passed for another build of the commit than the one that passed last.

    gates: name → the run in which it passed.
    """
    seen = {name: records.outcomes(database, run).get(name, ("", {}))[1].get(SEEN) for name, run in gates.items()}
    return {name for name, digest in seen.items() if digest and digest != digest_of(database, info, name)}


def ask(database: sa.Engine, question: Question, now: datetime) -> Answer:
    """Ask unless it was asked; and what follows from what was said."""
    with database.begin() as connection:
        if shut := _rejected(connection, question):
            return judged(connection, shut, now)
        request = _asked(connection, question, now)
        answer = _settle(connection, request, now)
        if answer.state == "approved" and request.used_at is None:
            connection.execute(_change(request.id).values(used_at=now))
        return answer


def _rejected(connection: sa.Connection, question: Question) -> Request | None:
    """A no holds for every digest: nobody gets another chance by building once more."""
    found = read_requests(connection, *_gate(question), _table.c.state == "rejected", limit=1)
    return found[0] if found else None


def _asked(connection: sa.Connection, question: Question, now: datetime) -> Request:
    """The open request, made if there is none; it is the run's that asks, under the rule as it is now."""
    made = insert(_table).values(_row(question, now)).on_conflict_do_nothing(index_elements=_KEY, index_where=_IS_OPEN)
    if (new := connection.execute(made.returning(_table.c.id)).scalar()) is not None:
        _take_place(connection, question, now)
        _tell(connection, get_request(connection, new))
        return get_request(connection, new)
    mine = (*_gate(question), _table.c.digest == question.digest, _IS_OPEN)
    wanted = sa.select(_table.c.id, _table.c.asked_at, _table.c.run_id).where(*mine).with_for_update()
    known = connection.execute(wanted).one()
    again = {name: _row(question, known.asked_at)[name] for name in ("run_id", "rule", "expires_at")}
    took_over = sa.case((_table.c.went_on_in == question.info.id, _table.c.went_on_in), else_=None)
    connection.execute(_change(known.id).values(**again, went_on_in=took_over, claimed_until=None))
    if known.run_id != question.info.id:
        _leave(connection, known.run_id, question.step, question.info.id)
    return get_request(connection, known.id)


def _row(question: Question, asked_at: datetime) -> dict[str, object]:
    info, rule = question.info, question.rule
    return {
        **{"project": info.project, "commit": info.commit, "graph_hash": info.graph_hash, "step": question.step},
        **{"digest": question.digest, "run_id": info.id, "rule": rule_values(rule), "asked_at": asked_at},
        **{"author": info.author, "actor": info.about.get("actor")},
        "expires_at": asked_at + timedelta(seconds=rule.within_s),
    }


def _gate(question: Question) -> tuple[sa.ColumnElement[bool], ...]:
    info = question.info
    key = {"project": info.project, "commit": info.commit, "graph_hash": info.graph_hash, "step": question.step}
    return tuple(_table.c[name] == value for name, value in key.items())


def _take_place(connection: sa.Connection, question: Question, now: datetime) -> None:
    """What was asked for another build of the commit, and not used, is asked no more: that build is not deployed."""
    info, step, digest = question.info, question.step, question.digest
    others = (*_gate(question), _table.c.digest != digest, _IS_OPEN, _table.c.used_at.is_(None))
    for former in connection.execute(sa.select(_table).where(*others).with_for_update()).mappings().all():
        request = get_request(connection, former["id"])
        reason = f"another build of this commit took its place: {digest[:12]}"
        _write(connection, request, "", "cancelled", why=reason, how="clock", now=now)
        connection.execute(_change(request.id).values(state="withdrawn", reason=reason, decided_at=now))
        if request.run_id != info.id:
            _leave(connection, request.run_id, step, info.id)


def _leave(connection: sa.Connection, run_id: str, step: str, newer: str) -> None:
    """The former run waits at this step no more; when it waits at none, it is over."""
    gone = {"state": "skipped", "reason": f"goes on in run {newer[:8]}"}
    waits = (steps.c.run_id == run_id, steps.c.state == "waiting")
    connection.execute(sa.update(steps).where(*waits, steps.c.step == step).values(**gone))
    nowhere = ~sa.exists(sa.select(steps.c.step).where(*waits))
    over = sa.update(runs).where(runs.c.id == run_id, runs.c.state == "waiting", nowhere)
    connection.execute(over.values(**gone, ingested_at=None))


def _tell(connection: sa.Connection, request: Request) -> None:
    """A mail for everybody who may approve and has an address, in the same transaction: all of it, or nothing."""
    people = possible_approvers(connection, request)
    if people:
        rows = [{"request_id": request.id, "person": name} for name in people]
        connection.execute(insert(approval_mails).on_conflict_do_nothing(), rows)


def possible_approvers(connection: sa.Connection, request: Request) -> tuple[str, ...]:
    """Users with a mail address whose yes would count."""
    rule = request.rule
    members = members_of(connection, rule.groups)
    if rule.is_open_to_all:
        found = list_users(connection)
    else:
        found = find_users(connection, {*rule.users, *(one for group in members.values() for one in group)})
    names = [user.name for user in found if user.mail]
    authors = perhaps_authors(connection, names, request.author, request.actor) if rule.not_author else frozenset()
    return tuple(name for name in names if name not in authors)


def answer(
    database: sa.Engine,
    request_id: int,
    person: str,
    *,
    approved: bool,
    how: How,
    why: str = "",
    digest: str | None = None,
    now: datetime | None = None,
) -> Request:
    """
    Say yes or no. A no ends it at once.

    digest: what the person looked at, if told.
    Returns: the request as it is then.
    Raises: ForbiddenError when the person's answer does not count; ConflictError when it is not open any more, the
    person has answered so already, or the digest is another.
    """
    now = now or utc_now()
    with database.begin() as connection:
        request = _open(connection, request_id, now)
        if request is not None:
            _check(connection, request, person, approved=approved, digest=digest)
            decision = "approved" if approved else "rejected"
            _write(connection, request, person, decision, why=why, how=how, now=now)
            _settle(connection, get_request(connection, request_id), now)
        found = get_request(connection, request_id)
    if request is None:  # only now: that it has expired is on record, whatever the caller is told
        raise _over(found)
    return found


def _open(connection: sa.Connection, request_id: int, now: datetime) -> Request | None:
    """The request, held, if it waits for answers."""
    request = get_request(connection, request_id, locked=True)
    if request.state == "waiting" and _settle(connection, request, now).state == "waiting":
        return get_request(connection, request_id)
    return None


def _over(request: Request) -> ConflictError:
    why = f": {request.reason}" if request.reason else ""
    return ConflictError(
        f"request {request.id} is {request.state} already{why}", remedy="see `penstock approvals --all`"
    )


def _check(connection: sa.Connection, request: Request, person: str, *, approved: bool, digest: str | None) -> None:
    if digest is not None and digest != request.digest:
        raise ConflictError(
            f"the approval is for {digest[:12]}, the gate asks about {request.digest[:12]}",
            remedy="look at what waits now, and answer that",
        )
    if not request.rule.names(person, members_of(connection, request.rule.groups)):
        raise ForbiddenError(
            f'"{person}" is not among those who are asked', where=request.step, remedy=_asked_are(request)
        )
    if approved and request.rule.not_author and perhaps_authors(connection, [person], request.author, request.actor):
        raise ForbiddenError(_why_author(connection, request, person), where=request.step, remedy="let somebody else")
    if any(one.actor == person and (one.decision == "approved") is approved for one in request.said):
        raise ConflictError(f"{person} has answered already", remedy="another person may")


def _asked_are(request: Request) -> str:
    named = [*request.rule.users, *(f"group {name}" for name in request.rule.groups)]
    return f"these are: {', '.join(named)}"


def _why_author(connection: sa.Connection, request: Request, person: str) -> str:
    if not request.author:
        return "the commit names no author, and its author may not approve"
    found = find_users(connection, [person])
    if not found or not found[0].can_be_recognised:
        return f'Penstock does not know "{person}" by a mail address or git name, and the author may not approve'
    return f"{person} wrote this commit or set the run off, and the author may not approve"


def withdraw(
    database: sa.Engine, request_id: int, person: str, *, how: How, why: str = "", now: datetime | None = None
) -> Request:
    """
    Take back an approval before it is used; or, for who wrote the commit or set the run off, the request itself.

    Raises: ConflictError when it has been used or is over; ForbiddenError for who has neither approved nor asked.
    """
    now = now or utc_now()
    with database.begin() as connection:
        request = get_request(connection, request_id, locked=True)
        if request.state not in OPEN:
            raise _over(request)
        if request.used_at is not None:
            raise ConflictError(f"the step passed with it on {request.used_at:%Y-%m-%d %H:%M} UTC", remedy="roll back")
        if any(one.actor == person and one.decision == "approved" for one in request.said):
            _write(connection, request, person, "withdrawn", why=why, how=how, now=now)
            _settle(connection, get_request(connection, request_id), now)
        elif person in authors_among(connection, [person], request.author, request.actor):
            _write(connection, request, person, "cancelled", why=why, how=how, now=now)
            _end(connection, request, "withdrawn", f"withdrawn by {person}" + (f": {why}" if why else ""), now)
        else:
            remedy = "only who approved, or who wrote the commit or set the run off, can"
            raise ForbiddenError(f'"{person}" has nothing to withdraw here', where=request.step, remedy=remedy)
        return get_request(connection, request_id)


def _write(
    connection: sa.Connection, request: Request, person: str, decision: str, *, why: str, how: How, now: datetime
) -> None:
    """What was said, also for the audit, and for the warehouse, which gets the run once more."""
    row = {"request_id": request.id, "person": person, "decision": decision, "why": why, "how": how, "at": now}
    connection.execute(sa.insert(approval_answers).values(row))
    connection.execute(sa.update(runs).where(runs.c.id == request.run_id).values(ingested_at=None))
    told = {"step": request.step, "commit": request.commit, "digest": request.digest, "why": why, "how": how}
    record_in(connection, person or "Penstock", f"gate.{decision}", request.project, **told)


def _settle(connection: sa.Connection, request: Request, now: datetime) -> Answer:
    """Bring the request's state in line with what follows from the answers now."""
    found = judged(connection, request, now)
    if found.state in ("rejected", "expired"):
        if found.state == "expired" and request.state != "expired":
            _write(connection, request, "", "expired", why="", how="clock", now=now)
        _end(connection, request, found.state, in_words(found, request.rule), now)
    elif found.state != request.state:
        decided = now if found.state == "approved" else None
        by = f"approved by {', '.join(found.approved_by)}" if decided else None
        anew = {"went_on_in": None, "claimed_until": None}
        connection.execute(_change(request.id).values(state=found.state, decided_at=decided, reason=by, **anew))
    return found


def _end(connection: sa.Connection, request: Request, state: str, reason: str, now: datetime) -> None:
    """The gate stays shut, and the run that waited for it has failed."""
    connection.execute(_change(request.id).values(state=state, reason=reason, decided_at=now))
    shut(connection, request.run_id, request.step, reason)


def shut(connection: sa.Connection, run_id: str, step: str, reason: str) -> bool:
    """A waiting step fails, and a waiting run with it; the warehouse hears of it again. Returns: whether it waited."""
    is_it = (steps.c.run_id == run_id, steps.c.step == step, steps.c.state == "waiting")
    done = connection.execute(sa.update(steps).where(*is_it).values(state="failed", reason=reason)).rowcount
    told = {"state": "failed", "reason": f"{step}: {reason}", "ingested_at": None}
    connection.execute(sa.update(runs).where(runs.c.id == run_id, runs.c.state == "waiting").values(**told))
    return bool(done)


def _change(request_id: int) -> sa.Update:
    return sa.update(_table).where(_table.c.id == request_id)


def expire(database: sa.Engine, now: datetime) -> int:
    """End what nobody approved in time, and shut what was answered while its step was ending. Returns: how many."""
    late = sa.select(_table.c.id).where(_table.c.state == "waiting", _table.c.expires_at < now)
    over = (
        sa.select(_table.c.run_id, _table.c.step, _table.c.reason)
        .join(steps, sa.and_(steps.c.run_id == _table.c.run_id, steps.c.step == _table.c.step))
        .where(_table.c.state.in_(("rejected", "expired", "withdrawn")), steps.c.state == "waiting")
    )
    done = 0
    with database.begin() as connection:
        for request_id in connection.execute(late).scalars().all():
            request = get_request(connection, request_id, locked=True)
            done += request.state == "waiting" and _settle(connection, request, now).state == "expired"
        for row in connection.execute(over.where(~_is_open_too())).all():
            done += shut(connection, row.run_id, row.step, row.reason or "")
    return done


def _is_open_too() -> sa.ColumnElement[bool]:
    """Whether the same step of the same run has asked anew since."""
    newer = sa.alias(_table)
    same = (newer.c.run_id == _table.c.run_id, newer.c.step == _table.c.step, newer.c.state.in_(OPEN))
    return sa.exists(sa.select(newer.c.id).where(*same))


def list_requests(
    database: sa.Engine,
    *,
    project: str | None = None,
    states: Iterable[str] = (),
    run: str | None = None,
    step: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> tuple[Request, ...]:
    """The newest first. run: the beginning of its identifier. before: a request's number, older ones than that."""
    wanted = [_table.c.project == project] if project else []
    wanted += [_table.c.state.in_(list(states))] if states else []
    wanted += [_table.c.run_id.startswith(run, autoescape=True)] if run else []
    wanted += [_table.c.step == step] if step else []
    wanted += [_table.c.id < before] if before is not None else []
    with database.connect() as connection:
        return read_requests(connection, *wanted, limit=limit)


def find_request(database: sa.Engine, run: str, step: str, *, states: Iterable[str] = ("waiting",)) -> Request:
    """
    The open request of a step of a run, named by the beginning of its identifier.

    Raises: NotFoundError when there is none, or more than one run begins so.
    """
    found = list_requests(database, run=run, step=step, states=states)
    if len(found) != 1:
        what = "more than one run begins so" if found else f'no gate "{step}" of run {run} waits for an approval'
        raise NotFoundError(what, remedy="list them with `penstock approvals`")
    return found[0]
