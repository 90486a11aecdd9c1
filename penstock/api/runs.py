"""/runs: start one, see what ran and what came of it, stop it, run again what failed."""

from http import HTTPStatus
from typing import Annotated

import attrs
import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime

from penstock.api import access, artifact_rows
from penstock.api.access import Actor
from penstock.api.models import EventOut, Name, NewRun, RunOut, RunState, StepOut
from penstock.api.paging import PAGED, link_next
from penstock.api.problems import problems
from penstock.api.run_list import RunQuery, find_runs
from penstock.errors import ConflictError, NotFoundError
from penstock.events import inbox
from penstock.pipeline import records
from penstock.pipeline.plan import Graph
from penstock.settings import Settings
from penstock.sources.git import ls_remote
from penstock.sources.projects import Project, get_project
from penstock.state.tables import runs

router = APIRouter(tags=["runs"])
_NOT_OURS = "no run of this platform: it was started on somebody's machine, or never began"


@router.get("/runs", responses=PAGED)
def list_runs(
    *,
    request: Request,
    response: Response,
    project: Name | None = None,
    commit: Annotated[str | None, Query(pattern=r"^[0-9a-f]{4,64}$", description="The beginning is enough.")] = None,
    ref: Annotated[Name | None, Query(description="In full, such as refs/heads/main.")] = None,
    state: Annotated[tuple[RunState, ...], Query(description="One or several; each may be.")] = (),
    since: Annotated[AwareDatetime | None, Query(description="Queued then or later; with a time zone.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(max_length=1000, description="Of the Link header of the page before.")] = None,
) -> list[RunOut]:
    """Newest first; the Link header says where the next page is."""
    query = RunQuery(project, commit, ref, state, since, cursor)
    found, following = find_runs(request.app.state.database, query, limit)
    if following:
        link_next(request, response, following)
    return [RunOut.of(run) for run in found]


@router.post("/runs", status_code=HTTPStatus.ACCEPTED, responses=problems(400, 404, 413))
def start_run(request: Request, response: Response, actor: Actor, new: NewRun) -> EventOut:
    """
    Ask for a run. It is stored when this is answered; the event tells its `run_id` when it has begun.

    Without a commit it is the ref's newest one.
    """
    state = request.app.state
    project = get_project(state.database, new.project)
    ref, commit = _wanted(request, project, new)
    event = inbox.ask_for_run(state.database, project.name, ref, commit, actor=actor)
    assert event is not None  # each is an event of its own
    access.record(state.database, actor, "run.start", event.key, project=project.name, ref=ref, commit=commit)
    state.dispatcher.wake()
    response.headers["Location"] = f"/api/v1/events/{event.id}"
    return EventOut.of(event)


def _wanted(request: Request, project: Project, new: NewRun) -> tuple[str, str]:
    """
    Full ref and commit.

    Raises: NotFoundError when the repository has no such ref or commit.
    """
    state = request.app.state
    if new.commit is None:
        return _head(state.settings, project, new.ref or project.default_branch)
    project.with_commit(state.settings, new.commit)
    if new.ref is None:
        known = records.ref_of(state.database, project.name, new.commit)
        return known or f"refs/heads/{project.default_branch}", new.commit
    return _head(state.settings, project, new.ref)[0], new.commit


def _head(settings: Settings, project: Project, name: str) -> tuple[str, str]:
    heads = ls_remote(project.remote(settings), tags=True)
    for ref in (name, f"refs/heads/{name}", f"refs/tags/{name}"):
        if ref in heads:
            return ref, heads[ref]
    raise NotFoundError(f'{project.name} has no branch or tag "{name}"', where="ref", remedy="name one that is there")


@router.get("/runs/{run_id}", responses=problems(404))
def show_run(request: Request, run_id: Name) -> RunOut:
    """One run with its steps, their outputs and what they put out."""
    return _shown(request.app.state.database, run_id)


def _shown(database: sa.Engine, run_id: str) -> RunOut:
    run = records.load_run(database, run_id)
    outputs = {step: found for step, (_, found) in records.outcomes(database, run_id).items()}
    steps = tuple(StepOut.of(step, outputs.get(step.step, {})) for step in records.list_steps(database, run_id))
    return RunOut.of(run, steps, artifact_rows.of_run(database, run_id))


@router.post("/runs/{run_id}/cancel", status_code=HTTPStatus.ACCEPTED, responses=problems(404, 409))
def cancel_run(request: Request, run_id: Name, actor: Actor) -> RunOut:
    """Stop a run: its processes are gone and it is cancelled within ten seconds. One that has ended is a 409."""
    state = request.app.state
    run = records.load_run(state.database, run_id)
    if run.state not in records.UNFINISHED:
        raise ConflictError(f"the run has ended: {run.state}", where=run_id)
    try:
        state.dagster.terminate(run_id)
    except NotFoundError as error:
        raise ConflictError(_NOT_OURS, where=run_id, remedy="stop it where it runs") from error
    access.record(state.database, actor, "run.cancel", run_id, project=run.info.project)
    return _shown(state.database, run_id)


@router.post("/runs/{run_id}/rerun", status_code=HTTPStatus.ACCEPTED, responses=problems(404, 409))
def rerun(request: Request, response: Response, run_id: Name, actor: Actor) -> RunOut:
    """Run again what failed and what needs it; what succeeded is taken over. Answers with the new run."""
    state = request.app.state
    former = records.load_run(state.database, run_id)
    _check_rerun(former)
    try:
        again = state.dagster.rerun(run_id)
    except NotFoundError as error:
        raise ConflictError(_NOT_OURS, where=run_id, remedy="start one with POST /api/v1/runs") from error
    _record_rerun(state.database, former, again)
    access.record(state.database, actor, "run.rerun", run_id, project=former.info.project, run=again)
    response.headers["Location"] = f"/api/v1/runs/{again}"
    return _shown(state.database, again)


def _check_rerun(former: records.RunRecord) -> None:
    run_id = former.info.id
    if former.state in records.UNFINISHED:
        raise ConflictError("the run is not over", where=run_id, remedy="wait for its end, or cancel it")
    if former.state in ("succeeded", "skipped"):
        what = "nothing of the run failed"
        raise ConflictError(what, where=run_id, remedy="start another with POST /api/v1/runs")


def _record_rerun(database: sa.Engine, former: records.RunRecord, run_id: str) -> None:
    """So that it can be seen before its process has begun, which finds it on record."""
    wanted = sa.select(runs.c.graph).where(runs.c.id == former.info.id)
    with database.connect() as connection:
        graph = Graph.from_values(connection.execute(wanted).scalar_one())
    records.create_run(database, attrs.evolve(former.info, id=run_id, trigger="rerun"), graph)
