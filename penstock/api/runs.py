"""/runs: what ran, its steps and logs, and how to stop it."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request

from penstock.api.models import LogLineOut, LogOut, RunOut
from penstock.errors import ConflictError, NotFoundError
from penstock.pipeline import records
from penstock.pipeline.log import log_path, read_log

router = APIRouter(tags=["runs"])


@router.get("/runs")
def list_runs(
    request: Request,
    project: str | None = None,
    commit: Annotated[str | None, Query(pattern=r"^[0-9a-f]{4,64}$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> list[RunOut]:
    """Newest first."""
    found = records.list_runs(request.app.state.database, project=project, commit=commit, limit=limit)
    return [RunOut.of(run) for run in found]


@router.get("/runs/{run_id}")
def show_run(request: Request, run_id: str) -> RunOut:
    """One run with its steps."""
    database = request.app.state.database
    return RunOut.of(records.load_run(database, run_id), records.list_steps(database, run_id))


@router.get("/runs/{run_id}/steps/{step}/log")
def show_log(request: Request, run_id: str, step: str, offset: Annotated[int, Query(ge=0)] = 0) -> LogOut:
    """A step's log from a byte offset on, at most 4 MiB at a time."""
    record = _step(request, run_id, step)
    lines, following = read_log(log_path(request.app.state.settings.home, run_id, step), offset=offset)
    complete = record.state not in records.UNFINISHED and not lines
    return LogOut(lines=tuple(LogLineOut.of(line) for line in lines), next_offset=following, complete=complete)


def _step(request: Request, run_id: str, step: str) -> records.StepRecord:
    steps = {record.step: record for record in records.list_steps(request.app.state.database, run_id)}
    if step not in steps:
        raise NotFoundError(f'run "{run_id}" has no step "{step}"', remedy=f"there are: {', '.join(steps) or 'none'}")
    return steps[step]


@router.post("/runs/{run_id}/cancel", status_code=HTTPStatus.ACCEPTED)
def cancel_run(request: Request, run_id: str) -> RunOut:
    """Stop a run: its processes are gone and it is cancelled within ten seconds."""
    run = records.load_run(request.app.state.database, run_id)
    if run.state not in records.UNFINISHED:
        raise ConflictError(f"the run has ended: {run.state}", where=run_id)
    request.app.state.dagster.terminate(run_id)
    return RunOut.of(run)
