"""The run's session as a Dagster resource: one for each run process, opened while Dagster prepares the run."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Lock

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.tags import PARTITION_NAME_TAG

from penstock.engines import open_engine
from penstock.events import inbox
from penstock.events.dispatch import (
    TAG_COMMIT,
    TAG_EVENT,
    TAG_PROJECT,
    TAG_REF,
    TAG_TRIGGER,
    head_of,
    op_name,
    read_pipeline,
    run_info,
)
from penstock.pipeline import records
from penstock.pipeline.cancel import current_token
from penstock.pipeline.log import OWN_MARK, log_path, read_tail
from penstock.pipeline.plan import Graph
from penstock.pipeline.session import RunSession, open_services
from penstock.settings import load_settings
from penstock.sources.projects import get_project, list_projects
from penstock.state.database import create_engine
from penstock.steps import step_types
from penstock.steps.context import StepResult


class PenstockRun:
    """
    Takes the steps of one Dagster run.

    A run that Penstock started says which project it is of: its session is opened while Dagster prepares the run.
    """

    def __init__(self, run: dg.DagsterRun, database: sa.Engine) -> None:
        self._run, self._database = run, database
        self._lock = Lock()
        self._session: Future[RunSession] | None = None
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="open session")
        if TAG_PROJECT in run.tags:
            self._opened(run.tags[TAG_PROJECT])

    def step(self, project: str, name: str) -> StepResult:
        """Run a step; see `RunSession.step`."""
        return self._opened(project).result().step(name, current_token())

    def close(self) -> None:
        """Nothing is being opened any more."""
        self._opener.shutdown()

    def _opened(self, project: str) -> Future[RunSession]:
        with self._lock:
            if self._session is None:
                self._session = self._opener.submit(self._open, project)
            return self._session

    def output(self, step: str) -> str:
        """The last lines that a step printed in this run."""
        lines = read_tail(log_path(load_settings().home, self._run.run_id, step))
        return "\n".join(f"{OWN_MARK}{line.text}" if line.own else line.text for line in lines)

    def _open(self, project_name: str) -> RunSession:
        settings, tags = load_settings(), self._run.tags
        project = get_project(self._database, project_name)
        # Started by hand in Dagster's own pages a run has no tags of ours, but always its partition.
        commit = tags.get(TAG_COMMIT) or project.repository(settings).resolve(tags[PARTITION_NAME_TAG])
        event = inbox.find(self._database, tags.get(TAG_EVENT, ""))
        repository = project.with_commit(settings, commit, head_of(event))
        graph = read_pipeline(repository, commit, settings, event)
        ref = tags.get(TAG_REF) or records.ref_of(self._database, project_name, commit) or "HEAD"
        trigger = tags.get(TAG_TRIGGER) or "manual"
        if self._run.parent_run_id:
            trigger = "rerun"
        info = run_info(
            repository.info(commit), project, ref, graph, trigger=trigger, event=event, run_id=self._run.run_id
        )
        return RunSession.start(
            open_services(settings, self._database, platform_up=True),
            info,
            graph,
            repository,
            on_line=lambda _step, _line: None,
            default_branch=project.default_branch,
            only=self._chosen(project_name, graph),
            event_key=None if self._run.parent_run_id else tags.get(TAG_EVENT),
        )

    def _chosen(self, project: str, graph: Graph) -> set[str] | None:
        """The steps that this run was started for, when it is not all of them."""
        if self._run.step_keys_to_execute:
            names = {op_name(project, step.name): step.name for step in graph.steps}
            return {names[key] for key in self._run.step_keys_to_execute}
        if self._run.asset_selection:
            return {key.path[-1] for key in self._run.asset_selection}
        return None


class PenstockSession(dg.ConfigurableResource[PenstockRun]):
    """Opens the run's session and the database for it, and closes the database."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[PenstockRun]:
        """One for each run process."""
        assert context.run is not None
        run = _begun.get() or PenstockRun(context.run, run_database())
        try:
            yield run
        finally:
            run.close()
            run_database().dispose()


_begun: ContextVar[PenstockRun | None] = ContextVar("penstock_run", default=None)


def begin(run: dg.DagsterRun) -> None:
    """For a process that executes one run and no other: open its session before Dagster has prepared it."""
    _begun.set(PenstockRun(run, run_database()))


@cache
def run_database() -> sa.Engine:
    """The engine of this process's run. The run server makes it before it forks, see `be_ready`."""
    return create_engine(load_settings())


def be_ready() -> None:
    """
    For the run server, before it forks: what every run would find out for itself. Holds no connection afterwards.

    The engine gets to know PostgreSQL and how to say what a run's beginning asks, step types are imported, and the
    sandbox is tried.
    Raises: sqlalchemy.exc.OperationalError when the database does not answer.
    """
    database = run_database()
    try:
        list_projects(database)
        records.list_steps(database, "")
    finally:
        database.dispose()
    step_types()
    open_engine(load_settings()).isolation()
