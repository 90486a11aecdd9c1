"""Closes runs whose own process does not: it was killed, or it has done its part."""

import logging

import sqlalchemy as sa

from penstock.deploy.rollout import recover
from penstock.engines import open_engine
from penstock.errors import NotFoundError, PlatformError
from penstock.folders import remove_tree
from penstock.images.leftovers import remove_of_run
from penstock.pipeline import records
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.ingest import Ingest
from penstock.settings import Settings

_log = logging.getLogger(__name__)


def close_run(settings: Settings, database: sa.Engine, run_id: str, dagster_status: str, reason: str) -> None:
    """
    Close a run as Dagster says it ended, leave no process and no workspace of it, and bring it into the warehouse.

    dagster_status: SUCCESS, FAILURE or CANCELED. reason: why, if its process did not end by itself. May come twice.
    """
    try:
        run = records.load_run(database, run_id)
    except NotFoundError:
        return  # it ended before it began to be ours
    if reason:
        _reap(settings, run_id)
        recover(database, settings, _log.info, CancelToken())
    remove_of_run(settings, run_id)
    cancelled = (reason or "cancelled") if dagster_status == "CANCELED" else None
    broken = _why_broken(database, run_id, reason) if dagster_status == "FAILURE" else None
    records.finish_run(database, run_id, cancelled=cancelled, broken=broken)
    remove_tree(settings.home / "workspaces" / run.info.id)
    if not run.ingested:
        Ingest(settings, database).run(run_id)


def _reap(settings: Settings, run_id: str) -> None:
    """Leave nothing of the run on its engine. One that is away is asked again when it next runs something."""
    try:
        open_engine(settings).reap(run_id)
    except PlatformError as error:
        _log.warning("what run %s left on its engine is still there: %s", run_id, error)


def _why_broken(database: sa.Engine, run_id: str, reason: str) -> str | None:
    """A failure that no step accounts for is Penstock's own."""
    if reason:
        return reason
    states = {step.state for step in records.list_steps(database, run_id)}
    return (
        None
        if states & {"failed", "timed_out", "waiting", "infra_error"}
        else "the run failed in Dagster; see logs/runs.log in PENSTOCK_HOME"
    )
