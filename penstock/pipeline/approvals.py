"""Who opened which gate: an answer is bound to the commit and to the very graph that it was asked for."""

from datetime import timedelta

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import ConflictError, NotFoundError
from penstock.pipeline.log import utc_now
from penstock.state.tables import approvals, audit, runs, steps
from penstock.steps.context import RunInfo


@attrs.frozen
class Answer:
    """What people have said about a gate so far."""

    approved_by: tuple[str, ...] = ()
    rejected_by: str | None = None
    why: str = ""
    expired: bool = False


@attrs.frozen
class Waiting:
    """A gate that waits. run_id: the run that asked last."""

    run_id: str
    project: str
    commit: str
    graph_hash: str
    step: str
    reason: str


def ask(database: sa.Engine, info: RunInfo, step: str, *, count: int, within_s: int) -> Answer:
    """Ask people, if nobody did; and what they have said."""
    key = {"project": info.project, "commit": info.commit, "graph_hash": info.graph_hash, "step": step}
    row = insert(approvals).values(**key, actor="", decision="asked", why=f"{count} needed")
    mine = [approvals.c[name] == value for name, value in key.items()]
    with database.begin() as connection:
        connection.execute(row.on_conflict_do_nothing())
        said = connection.execute(sa.select(approvals).where(*mine).order_by(approvals.c.at)).mappings().all()
    asked_at = next(one["at"] for one in said if one["decision"] == "asked")
    rejected = next((one for one in said if one["decision"] == "rejected"), None)
    return Answer(
        approved_by=tuple(one["actor"] for one in said if one["decision"] == "approved"),
        rejected_by=rejected["actor"] if rejected else None,
        why=rejected["why"] if rejected else "",
        expired=utc_now() - asked_at > timedelta(seconds=within_s),
    )


def answer(database: sa.Engine, waiting: Waiting, *, actor: str, approved: bool, why: str = "") -> int:
    """
    Say yes or no to a gate. A no ends it at once.

    Returns: how many more people it waits for.
    Raises: ConflictError when this person has answered already.
    """
    key = {"project": waiting.project, "commit": waiting.commit, "graph_hash": waiting.graph_hash}
    decision = "approved" if approved else "rejected"
    row = insert(approvals).values(**key, step=waiting.step, actor=actor, decision=decision, why=why)
    told = {"step": waiting.step, "commit": waiting.commit, "why": why}
    with database.begin() as connection:
        if not connection.execute(row.on_conflict_do_nothing().returning(approvals.c.actor)).first():
            raise ConflictError(f"{actor} has answered already", remedy="another person may")
        said = {"actor": actor, "action": f"gate.{decision}", "subject": waiting.project, "detail": told}
        connection.execute(sa.insert(audit).values(**said))
        if not approved:
            _shut(connection, waiting, f"rejected by {actor}" + (f": {why}" if why else ""))
            return 0
        of_gate = [approvals.c[name] == value for name, value in {**key, "step": waiting.step}.items()]
        found = connection.execute(sa.select(approvals.c.decision, approvals.c.why).where(*of_gate)).all()
    needed = next(int(one.why.split()[0]) for one in found if one.decision == "asked")
    given = [one for one in found if one.decision == "approved"]
    return max(0, needed - len(given))


def _shut(connection: sa.Connection, waiting: Waiting, reason: str) -> None:
    """The gate has failed, and so has the run that waited for it."""
    of_run = steps.c.run_id == waiting.run_id
    failed = {"state": "failed", "reason": reason}
    connection.execute(sa.update(steps).where(of_run, steps.c.step == waiting.step).values(**failed))
    told = {"state": "failed", "reason": f"{waiting.step}: {reason}"}
    connection.execute(sa.update(runs).where(runs.c.id == waiting.run_id, runs.c.state == "waiting").values(**told))


def waiting_gates(database: sa.Engine, *, project: str | None = None) -> tuple[Waiting, ...]:
    """Gates that wait for people, the newest run first."""
    wanted = (
        sa.select(runs.c.id, runs.c.project, runs.c.commit, runs.c.graph_hash, steps.c.step, steps.c.reason)
        .join(steps, steps.c.run_id == runs.c.id)
        .where(steps.c.state == "waiting")
        .order_by(runs.c.queued_at.desc())
    )
    if project:
        wanted = wanted.where(runs.c.project == project)
    with database.connect() as connection:
        return tuple(Waiting(*row) for row in connection.execute(wanted))


def waiting_gate(database: sa.Engine, run: str, step: str) -> Waiting:
    """
    The gate of a run, named by the beginning of its identifier.

    Raises: NotFoundError when no such gate waits.
    """
    found = [gate for gate in waiting_gates(database) if gate.run_id.startswith(run) and gate.step == step]
    if len(found) != 1:
        what = "more than one run begins so" if found else f'no gate "{step}" of run {run} waits for an approval'
        raise NotFoundError(what, remedy="list them with `penstock approvals`")
    return found[0]
