"""What the state database knows of runs, their steps, verdicts and artifacts: every write and every read."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import ConflictError, NotFoundError
from penstock.pipeline.plan import Graph
from penstock.state.tables import artifacts, inbox, runs, steps, verdicts
from penstock.steps.context import Artifact, RunInfo, State, StepResult

# The worst state of its steps is a run's state.
_WORST_FIRST: tuple[State, ...] = ("infra_error", "failed", "timed_out", "cancelled", "waiting")
UNFINISHED = ("queued", "running")
# A transaction that says only that something began need not wait for the disk: whatever comes of it does.
_UNHURRIED = sa.text("SET LOCAL synchronous_commit TO off")


@attrs.frozen
class StepRecord:
    """One step of one run, as recorded."""

    run_id: str
    step: str
    type: str
    state: str
    reason: str | None
    attempt: int
    exit_code: int | None
    produced: str
    reused_from: str | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    cpu_s: float | None
    memory_peak_bytes: int | None

    @property
    def seconds(self) -> float | None:
        """How long it ran, or has been running; never less than nothing, whatever the clock did meanwhile."""
        if self.started_at is None:
            return None
        return max(0.0, ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds())


@attrs.frozen
class RunRecord:
    """One run, as recorded."""

    info: RunInfo
    state: str
    reason: str | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    ingested: bool

    @property
    def seconds(self) -> float | None:
        """How long it ran, or has been running; never less than nothing, whatever the clock did meanwhile."""
        if self.started_at is None:
            return None
        return max(0.0, ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds())


def create_run(
    database: sa.Engine,
    info: RunInfo,
    graph: Graph,
    *,
    event_key: str | None = None,
    group: str | None = None,
    begun: bool = False,
) -> None:
    """
    Record a run and its steps as queued. A run that is there already stays as it is.

    group: its concurrency group. begun: its process is at work, as `start_run` says.
    Raises: ConflictError when the event has another run.
    """
    row = {**attrs.asdict(info), "event_key": event_key, "graph": graph.to_values(), "state": "queued"}
    row["concurrency_group"] = group
    waiting = [{"run_id": info.id, "step": s.name, "type": s.type, "state": "queued"} for s in graph.steps]
    with database.begin() as connection:
        made = connection.execute(insert(runs).values(row).on_conflict_do_nothing().returning(runs.c.id))
        if made.first():
            connection.execute(insert(steps).values(queued_at=sa.func.now()), waiting)
        _mark_started(connection, event_key, info.id)
        if begun:
            connection.execute(_begin(info.id))


def create_failed_run(database: sa.Engine, info: RunInfo, reason: str, *, event_key: str | None = None) -> None:
    """Record a run that could not start: its pipeline cannot be read."""
    row = {**attrs.asdict(info), "event_key": event_key, "graph": {}, "state": "failed", "reason": reason}
    with database.begin() as connection:
        done = {"started_at": sa.func.now(), "finished_at": sa.func.now()}
        connection.execute(insert(runs).values(**row, **done).on_conflict_do_nothing())
        _mark_started(connection, event_key, info.id)


def _mark_started(connection: sa.Connection, event_key: str | None, run_id: str) -> None:
    """
    An event has its run from the moment the run is on record, whoever recorded it.

    Raises: ConflictError when it has another one: two started it at the same time, and this one must not run.
    """
    if not event_key:
        return
    free = sa.or_(inbox.c.run_id.is_(None), inbox.c.run_id == run_id)
    change = sa.update(inbox).where(inbox.c.key == event_key, free)
    if connection.execute(change.values(state="started", run_id=run_id)).rowcount:
        return
    if other := connection.execute(sa.select(inbox.c.run_id).where(inbox.c.key == event_key)).scalar():
        raise ConflictError("this push has been started already", where=run_id, remedy=f"see run {other}")


def start_run(database: sa.Engine, run_id: str) -> None:
    """The run's process is at work."""
    with database.begin() as connection:
        connection.execute(_begin(run_id))


def _begin(run_id: str) -> sa.Update:
    change = sa.update(runs).where(runs.c.id == run_id, runs.c.state == "queued")
    return change.values(state="running", started_at=sa.func.now())


def retry_step(database: sa.Engine, run_id: str, step: str) -> None:
    """Another attempt at a step that is under way."""
    with database.begin() as connection:
        connection.execute(sa.update(steps).where(*_is(run_id, step)).values(attempt=steps.c.attempt + 1))


def start_step(database: sa.Engine, run_id: str, step: str) -> None:
    """The step begins; one that has ended before begins another attempt."""
    again = sa.case((steps.c.finished_at.is_(None), steps.c.attempt), else_=steps.c.attempt + 1)
    values = {"state": "running", "reason": None, "started_at": sa.func.now(), "finished_at": None, "attempt": again}
    with database.begin() as connection:
        connection.execute(_UNHURRIED)
        connection.execute(sa.update(steps).where(*_is(run_id, step)).values(**values))


def finish_step(database: sa.Engine, info: RunInfo, step: str, result: StepResult) -> None:
    """Record how a step ended, what it made and what it decided, in one transaction."""
    with database.begin() as connection:
        connection.execute(sa.update(steps).where(*_is(info.id, step)).values(**_result_row(result)))
        connection.execute(sa.delete(artifacts).where(artifacts.c.run_id == info.id, artifacts.c.step == step))
        if result.artifacts:
            connection.execute(sa.insert(artifacts), [_artifact_row(info, step, made) for made in result.artifacts])
        # A gate that waits has not passed, whatever was approved of an earlier build of the commit.
        decided = result.state in ("succeeded", "failed", "timed_out", "waiting")
        if decided or result.allowed or result.unneeded:
            connection.execute(_verdict(info, step, result))


def _is(run_id: str, step: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (steps.c.run_id == run_id, steps.c.step == step)


def _result_row(result: StepResult) -> dict[str, Any]:
    return {
        "state": result.state,
        "reason": result.reason,
        "exit_code": result.exit_code,
        "produced": {"text": result.produced, "outputs": dict(result.outputs)},
        "reused_from": result.reused_from,
        "allowed": result.allowed,
        "finished_at": sa.func.now(),
        "cpu_s": result.cpu_s,
        "memory_peak_bytes": result.memory_peak_bytes,
    }


def _artifact_row(info: RunInfo, step: str, made: Artifact) -> dict[str, Any]:
    where = {"project": info.project, "commit": info.commit, "ref": info.ref, "run_id": info.id, "step": step}
    return {**where, **attrs.asdict(made)}


def _verdict(info: RunInfo, step: str, result: StepResult) -> sa.Insert:
    evidence = dict(result.verdict.evidence) if result.verdict else {}
    key = {"project": info.project, "commit": info.commit, "graph_hash": info.graph_hash, "step": step}
    if result.allowed or result.unneeded:  # the steps after it may begin, but nobody shall take it for a success
        evidence["allowed" if result.allowed else "unneeded"] = True
    decided = {
        "passed": result.state == "succeeded" or result.allowed or result.unneeded,
        "evidence": {**evidence, "summary": result.verdict.summary if result.verdict else result.reason or ""},
        "run_id": info.id,
        "decided_at": sa.func.now(),
    }
    row = insert(verdicts).values(**key, **decided)
    return row.on_conflict_do_update(index_elements=list(key), set_=decided)


def leave_step(database: sa.Engine, run_id: str, step: str, from_run: str | None) -> None:
    """The step is not run in this run: `from_run` passed it for the same commit and graph, or nobody asked for it."""
    former = {name: _former(from_run or "", step, name) for name in ("state", "produced", "allowed")}
    reused = {
        "state": sa.func.coalesce(former["state"], "succeeded"),
        "reused_from": from_run,
        "reason": None,
        "produced": sa.func.coalesce(former["produced"], sa.cast({}, steps.c.produced.type)),
        "allowed": sa.func.coalesce(former["allowed"], sa.false()),
    }
    values = reused if from_run else {"state": "skipped", "reason": "not asked for"}
    with database.begin() as connection:
        connection.execute(sa.update(steps).where(*_is(run_id, step)).values(**values, finished_at=sa.func.now()))


def _former(run_id: str, step: str, column: str) -> sa.ScalarSelect[Any]:
    return sa.select(steps.c[column]).where(*_is(run_id, step)).scalar_subquery()


def leave_waiting(database: sa.Engine, run_id: str, newer: str) -> None:
    """The run waits no more: another one goes on from there."""
    gone = {"state": "skipped", "reason": f"goes on in run {newer[:8]}"}
    with database.begin() as connection:
        connection.execute(sa.update(steps).where(steps.c.run_id == run_id, steps.c.state == "waiting").values(**gone))
        over = sa.update(runs).where(runs.c.id == run_id, runs.c.state == "waiting")
        connection.execute(over.values(**gone, ingested_at=None))


def finish_run(database: sa.Engine, run_id: str, *, cancelled: str | None = None, broken: str | None = None) -> State:
    """
    Close a run: what never began is skipped, what was cut off says why, the worst step is the run's state.

    cancelled, broken: the reason if somebody stopped it, or if Penstock itself failed.
    Returns: the state. A run that is closed already keeps its state.
    """
    with database.begin() as connection:
        known = connection.execute(sa.select(runs.c.state).where(runs.c.id == run_id).with_for_update()).scalar()
        if known is not None and known not in UNFINISHED:
            return known  # type: ignore[no-any-return]
        _close_steps(connection, run_id, cancelled, broken)
        counted = (steps.c.run_id == run_id, ~steps.c.allowed)
        rows = connection.execute(sa.select(steps.c.step, steps.c.state, steps.c.reason).where(*counted))
        state, reason = _worst([(row.step, row.state, row.reason) for row in rows], cancelled, broken)
        values = {"state": state, "reason": reason, "finished_at": sa.func.now()}
        started = sa.func.coalesce(runs.c.started_at, sa.func.now())
        connection.execute(sa.update(runs).where(runs.c.id == run_id).values(started_at=started, **values))
        return state


def _close_steps(connection: sa.Connection, run_id: str, cancelled: str | None, broken: str | None) -> None:
    of_run = steps.c.run_id == run_id
    cut_off: State = "cancelled" if cancelled else "infra_error"
    # When Penstock broke down nobody cancelled: a step that was told to stop then was cut off like the others.
    open_states = ["running"] if cancelled or not broken else ["running", "cancelled"]
    stop = sa.update(steps).where(of_run, steps.c.state.in_(open_states))
    connection.execute(stop.values(state=cut_off, reason=cancelled or broken or "cut off", finished_at=sa.func.now()))
    skip = sa.update(steps).where(of_run, steps.c.state == "queued")
    why = cancelled or broken or "a step that it needs did not succeed"
    connection.execute(skip.values(state="skipped", reason=why, finished_at=sa.func.now()))


def _worst(
    rows: Sequence[tuple[str, str, str | None]], cancelled: str | None, broken: str | None
) -> tuple[State, str | None]:
    for state in _WORST_FIRST:
        for step, found, reason in rows:
            if found == state:
                return state, cancelled if cancelled and state == "cancelled" else f"{step}: {reason}"
    if cancelled:
        return "cancelled", cancelled
    return ("infra_error", broken) if broken else ("succeeded", None)


def load_run(database: sa.Engine, run_id: str) -> RunRecord:
    """Raises: NotFoundError."""
    with database.connect() as connection:
        row = connection.execute(sa.select(runs).where(runs.c.id == run_id)).mappings().first()
    if row is None:
        raise NotFoundError(f'no run is called "{run_id}"', remedy="list them with `penstock runs`")
    return _run_record(row)


def load_graph(database: sa.Engine, run_id: str) -> Graph:
    """The graph that a run was made of. Raises: NotFoundError."""
    with database.connect() as connection:
        values = connection.execute(sa.select(runs.c.graph).where(runs.c.id == run_id)).scalar()
    if not values:
        raise NotFoundError(f'run "{run_id}" has no graph', remedy="list runs with `penstock runs`")
    return Graph.from_values(values)


def ref_of(database: sa.Engine, project: str, commit: str) -> str | None:
    """The ref for which a commit last ran."""
    wanted = sa.select(runs.c.ref).where(runs.c.project == project, runs.c.commit == commit)
    with database.connect() as connection:
        return connection.execute(wanted.order_by(runs.c.queued_at.desc()).limit(1)).scalar()


def unfinished_runs(database: sa.Engine) -> tuple[str, ...]:
    """Runs that are not closed, oldest first."""
    wanted = sa.select(runs.c.id).where(runs.c.state.in_(UNFINISHED)).order_by(runs.c.queued_at)
    with database.connect() as connection:
        return tuple(connection.execute(wanted).scalars())


def list_runs(
    database: sa.Engine, *, project: str | None = None, commit: str | None = None, limit: int = 50
) -> tuple[RunRecord, ...]:
    """Newest first."""
    wanted = sa.select(runs).order_by(runs.c.queued_at.desc(), runs.c.id).limit(limit)
    if project:
        wanted = wanted.where(runs.c.project == project)
    if commit:
        wanted = wanted.where(runs.c.commit.startswith(commit, autoescape=True))
    with database.connect() as connection:
        return tuple(_run_record(row) for row in connection.execute(wanted).mappings())


def _run_record(row: Any) -> RunRecord:
    info = RunInfo(**{field.name: row[field.name] for field in attrs.fields(RunInfo)})
    rest = {name: row[name] for name in ("state", "reason", "queued_at", "started_at", "finished_at")}
    return RunRecord(info=info, ingested=row["ingested_at"] is not None, **rest)


def list_steps(database: sa.Engine, run_id: str) -> tuple[StepRecord, ...]:
    """The steps of a run, in the order in which they began; those that never began come last."""
    wanted = sa.select(steps).where(steps.c.run_id == run_id).order_by(steps.c.started_at.nulls_last(), steps.c.step)
    with database.connect() as connection:
        return tuple(_step_record(row) for row in connection.execute(wanted).mappings())


def _step_record(row: Any) -> StepRecord:
    values = {field.name: row[field.name] for field in attrs.fields(StepRecord) if field.name != "produced"}
    return StepRecord(produced=row["produced"].get("text", ""), **values)


def is_deploying(database: sa.Engine, run_id: str) -> bool:
    """Whether a deployment of the run is under way."""
    wanted = sa.select(steps.c.step).where(
        steps.c.run_id == run_id, steps.c.state == "running", steps.c.type == "step.deploy"
    )
    with database.connect() as connection:
        return connection.execute(wanted.limit(1)).first() is not None


def outcomes(database: sa.Engine, run_id: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Step → its state and its outputs, of every step of a run."""
    wanted = sa.select(steps.c.step, steps.c.state, steps.c.produced).where(steps.c.run_id == run_id)
    with database.connect() as connection:
        return {row.step: (row.state, row.produced.get("outputs", {})) for row in connection.execute(wanted)}


def verdicts_of(database: sa.Engine, info: RunInfo, names: Iterable[str]) -> dict[str, tuple[bool, dict[str, Any]]]:
    """Step → whether it passed for this commit and graph, and the evidence."""
    wanted = sa.select(verdicts.c.step, verdicts.c.passed, verdicts.c.evidence).where(
        verdicts.c.project == info.project,
        verdicts.c.commit == info.commit,
        verdicts.c.graph_hash == info.graph_hash,
        verdicts.c.step.in_(list(names)),
    )
    with database.connect() as connection:
        return {row.step: (row.passed, row.evidence) for row in connection.execute(wanted)}


def passed_steps(database: sa.Engine, info: RunInfo) -> dict[str, str]:
    """Steps whose newest verdict for this commit and graph is a pass → the run that gave it."""
    wanted = sa.select(verdicts.c.step, verdicts.c.run_id).where(
        verdicts.c.project == info.project,
        verdicts.c.commit == info.commit,
        verdicts.c.graph_hash == info.graph_hash,
        verdicts.c.passed,
    )
    with database.connect() as connection:
        return {row.step: row.run_id for row in connection.execute(wanted)}


def artifacts_of(database: sa.Engine, made_by: Iterable[tuple[str, str]]) -> tuple[Artifact, ...]:
    """Artifacts of (run, step) pairs, in the order of the pairs."""
    pairs = list(made_by)
    if not pairs:
        return ()
    wanted = sa.select(artifacts).where(sa.tuple_(artifacts.c.run_id, artifacts.c.step).in_(pairs))
    with database.connect() as connection:
        rows = connection.execute(wanted.order_by(artifacts.c.id)).mappings().all()
    rows = sorted(rows, key=lambda row: pairs.index((row["run_id"], row["step"])))
    return tuple(_artifact(row) for row in rows)


def artifacts_by_step(database: sa.Engine, run_id: str) -> tuple[tuple[str, Artifact], ...]:
    """(step, artifact) of everything that a run put out."""
    wanted = sa.select(artifacts).where(artifacts.c.run_id == run_id).order_by(artifacts.c.id)
    with database.connect() as connection:
        return tuple((row["step"], _artifact(row)) for row in connection.execute(wanted).mappings())


def find_published(database: sa.Engine, info: RunInfo, key: str, ref: str | None) -> Artifact | None:
    """The newest artifact published under `key` by this commit, or by any commit of the branch `ref`."""
    wanted = sa.select(artifacts).where(
        artifacts.c.project == info.project, artifacts.c.key == key, artifacts.c.published
    )
    wanted = wanted.where(artifacts.c.ref == ref if ref else artifacts.c.commit == info.commit)
    with database.connect() as connection:
        row = connection.execute(wanted.order_by(artifacts.c.id.desc()).limit(1)).mappings().first()
    return _artifact(row) if row else None


def _artifact(row: Any) -> Artifact:
    return Artifact(**{field.name: row[field.name] for field in attrs.fields(Artifact)})
