"""
The run server: imports and definitions loaded once, a fork per run.

    python -m definitions.warm --socket PATH --loader MODULE:FUNCTION [--dagster-home DIR]

`FUNCTION() -> (version, RepositoryDefinition)` loads the definitions. Its module may also have
`current_version() -> str`, asked before each launch: another answer loads them anew; `run_begins(run)`, called in
each run's own process before Dagster prepares the run; and
`run_ended(run_id, state, reason)`, told of every run that ended (state: FAILURE, CANCELED, SUCCESS; reason: empty
unless its process was lost), so that Penstock's own tables are closed too. It may be told twice; what it raises as
PenstockError, SQLAlchemyError or OSError is tried again. None of them may leave a connection or a thread
behind: both are lost or shared in a fork.
"""

import argparse
import gc
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from attrs import frozen
from dagster import DagsterRunStatus
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import EngineEventData, JobFailureData, RunFailureReason
from dagster._core.execution.api import execute_run_iterator
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.interrupts import capture_interrupts
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from definitions.executor import cancel_was_asked
from definitions.forks import ENDED, ForkServer
from penstock.errors import InputError, PenstockError

LOST = "Penstock's run process ended unexpectedly"


@frozen
class Loader:
    """Where definitions come from: the functions that the module's docstring describes."""

    pointer: ModuleCodePointer
    load: Callable[[], tuple[str, dg.RepositoryDefinition]]
    version: Callable[[], str] | None
    run_begins: Callable[[dg.DagsterRun], None]
    run_ended: Callable[[str, str, str], None]

    @classmethod
    def at(cls, place: str) -> "Loader":
        """place: `module:function`. Raises: InputError."""
        module_name, _, function = place.partition(":")
        remedy = "give --loader as module:function"
        try:
            module = importlib.import_module(module_name)
        except (ImportError, ValueError, TypeError) as error:
            raise InputError(f"cannot be imported: {error}", where=place, remedy=remedy) from error
        if not callable(getattr(module, function, None)):
            raise InputError("is no function", where=place, remedy=remedy)
        return cls(
            ModuleCodePointer(module_name, function, os.getcwd()),  # noqa: PTH109 - Dagster wants text
            getattr(module, function),
            getattr(module, "current_version", None),
            getattr(module, "run_begins", lambda _: None),
            getattr(module, "run_ended", lambda *_: None),
        )


class WarmRuns:
    """What the fork server is for: see `definitions.forks.Work`."""

    def __init__(self, loader: Loader, instance: dg.DagsterInstance) -> None:
        self._loader, self._instance = loader, instance
        self._since = datetime.now(UTC)
        self._pool()
        self._load()

    def _load(self) -> None:
        gc.unfreeze()
        try:
            self._version, repository = self._loader.load()
        finally:
            self._disconnect()
        for job in repository.get_all_jobs():
            job.get_job_index()
        self._repository = _preloaded(self._loader.pointer, repository)
        gc.collect()
        gc.freeze()

    def _disconnect(self) -> None:
        """A connection belongs to one process; Dagster opens some here, also while definitions are built."""
        for storage in (self._instance.run_storage, self._instance.event_log_storage):
            storage._engine.dispose()

    def _pool(self) -> None:
        """Each run keeps its connections open; the engines get to know PostgreSQL here, before the fork."""
        self._instance.optimize_for_webserver(60_000, pool_recycle=1800, max_overflow=64)
        # One pool for both: a run's process opens a connection less.
        self._instance.event_log_storage._engine = self._instance.run_storage._engine
        self._instance.get_run_by_id("none")  # an empty one is not looked for
        self._instance.get_records_for_run("", limit=1)
        _ = self._instance.compute_log_manager

    def refresh(self) -> None:
        """Load again what changed; definitions that cannot be loaded leave the former in use."""
        try:
            if self._loader.version and self._loader.version() != self._version:
                self._load()
        except Exception:  # noqa: BLE001 - foreign code; a run of an unknown job fails and says so
            traceback.print_exc()
            sys.stderr.write("run server: these definitions cannot be loaded; the former stay in use\n")

    def run(self, run_id: str) -> int:
        """As `dagster api execute_run`, with the definitions at hand and the connections kept open."""
        with capture_interrupts():
            server = os.getppid()
            run = self._instance.get_run_by_id(run_id)
            if run is None:
                sys.stderr.write(f"run server: there is no run {run_id}\n")
                return ENDED
            self._execute(run)
            ended = self._instance.get_run_by_id(run_id)
            if ended and ended.is_finished:
                self._loader.run_ended(run_id, ended.status.value, "" if os.getppid() == server else LOST)
            return ENDED if ended is None or ended.is_finished else 1

    def _execute(self, run: dg.DagsterRun) -> None:
        if run.status == DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, "The run was cancelled before it started.")
            return
        self._loader.run_begins(run)
        pid = os.getpid()
        self._instance.report_engine_event(
            f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid)
        )
        job = ReconstructableJob(self._repository, run.job_name)
        try:
            # Not Dagster's `core_execute_run`: it calls a run that is cancelled early a failure.
            for _ in execute_run_iterator(job, run, self._instance):
                pass  # each event is stored already
        except DagsterExecutionInterruptedError:
            self._close(run.run_id, "it was stopped before its first step")
        except Exception:  # noqa: BLE001 - whatever it is belongs into the run's log
            error = EngineEventData.engine_error(serializable_error_info_from_exc_info(sys.exc_info()))
            self._instance.report_engine_event("The run could not be executed.", run, error)
            self._close(run.run_id, "it could not be executed")

    def report(self, run_id: str, reason: str) -> None:
        """Fail the run with the reason, or cancel it if that was asked for."""
        _until_stored(lambda: self._close(run_id, reason))

    def recover(self, started: bool, launched: Collection[str]) -> None:
        """Close what nobody executes any more; runs that wait for their launch are left alone."""
        _until_stored(lambda: self._close_lost(started, launched))

    def announce_stop(self, run_ids: Collection[str]) -> None:
        """What runs now ends CANCELED."""
        for run_id in run_ids:
            run = self._instance.get_run_by_id(run_id)
            if run and not run.is_finished:
                self._instance.report_run_canceling(run, "Penstock is stopping.")

    def _close_lost(self, started: bool, launched: Collection[str]) -> None:
        statuses = (DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)
        lost = dg.RunsFilter(statuses=statuses if started else (DagsterRunStatus.STARTING,), updated_before=self._since)
        for run_id in self._instance.get_run_ids(lost):
            if run_id not in launched:
                self._close(run_id, LOST)

    def _close(self, run_id: str, reason: str) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run and not run.is_finished and cancel_was_asked(self._instance, run):
            self._instance.report_run_canceled(run, f"Run cancelled: {reason}.")
        elif run and not run.is_finished:
            failure = JobFailureData(None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION)
            self._instance.report_run_failed(run, f"Run interrupted: {reason}.", failure)
        ended = self._instance.get_run_by_id(run_id)
        if ended:
            self._loader.run_ended(run_id, ended.status.value, reason)


def _preloaded(pointer: ModuleCodePointer, repository: dg.RepositoryDefinition) -> ReconstructableRepository:
    """A repository as Dagster's run worker wants it, which is at hand instead of being imported."""

    class Preloaded(ReconstructableRepository):
        def get_definition(self) -> dg.RepositoryDefinition:
            return repository

    return Preloaded(pointer)


def _until_stored(write: Callable[[], None]) -> None:
    wait_s = 0.5
    while True:
        try:
            return write()
        except (SQLAlchemyError, DagsterPostgresException, PenstockError, OSError):
            traceback.print_exc()
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, 30)


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m definitions.warm", description="Penstock's run server.")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--loader", required=True, help="module:function that loads the definitions")
    parser.add_argument("--dagster-home", type=Path, help="default: $DAGSTER_HOME")
    options = parser.parse_args(arguments)
    if options.dagster_home:
        os.environ["DAGSTER_HOME"] = str(options.dagster_home.resolve())
    try:
        with dg.DagsterInstance.get() as instance:
            ForkServer(options.socket, WarmRuns(Loader.at(options.loader), instance)).serve()
    except (PenstockError, DagsterPostgresException) as error:
        sys.exit(f"penstock: {error}")


if __name__ == "__main__":
    main()
