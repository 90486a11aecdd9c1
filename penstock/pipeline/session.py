"""
One run at work: the same for the command line and for Dagster.

A session records the run, prepares each step's workspace, runs the step, records what came of it and
closes the run. Who decides the order (the local scheduler, Dagster's executor) only calls `step`.
"""

import traceback
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs
import sqlalchemy as sa

from penstock.artifacts import ArtifactStore, open_store
from penstock.engines import Engine, open_engine
from penstock.errors import Cancelled, PenstockError, PlatformError, StepTimeout
from penstock.folders import remove_tree
from penstock.pipeline import records
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.ingest import Ingest
from penstock.pipeline.log import FileLog, log_path
from penstock.pipeline.plan import Graph
from penstock.pipeline.spec import StepFields
from penstock.settings import Settings
from penstock.sources.git import Repository
from penstock.steps import step_types
from penstock.steps.context import Artifact, RunInfo, State, StepContext, StepResult
from penstock.steps.workspace import place_artifact

OnLine = Callable[[str, str], None]


@attrs.frozen
class Services:
    """What a run works with. `platform_up`: whether a platform keeps deployed services alive."""

    settings: Settings
    database: sa.Engine
    store: ArtifactStore
    engine: Engine
    ingest: Ingest
    platform_up: bool


def open_services(settings: Settings, database: sa.Engine, *, platform_up: bool) -> Services:
    """The services that the settings name."""
    return Services(
        settings=settings,
        database=database,
        store=open_store(settings.artifacts_path),
        engine=open_engine(settings),
        ingest=Ingest(settings, database),
        platform_up=platform_up,
    )


@attrs.frozen
class RunSession:
    """A run that has been recorded and can take steps. on_line: step, line → shown live."""

    services: Services
    info: RunInfo
    graph: Graph
    repository: Repository
    on_line: OnLine

    @classmethod
    def start(
        cls,
        services: Services,
        info: RunInfo,
        graph: Graph,
        repository: Repository,
        *,
        on_line: OnLine,
        only: Iterable[str] | None = None,
        event_key: str | None = None,
    ) -> "RunSession":
        """
        Record the run and begin.

        only: run no more than these steps; the others are taken over from runs of this commit and graph that passed.
        """
        records.create_run(services.database, info, graph, event_key=event_key, begun=True)
        session = cls(services, info, graph, repository, on_line)
        if only is not None:
            session._take_over(set(only))
        return session

    def _take_over(self, only: set[str]) -> None:
        passed = records.passed_steps(self.services.database, self.info)
        for step in self.graph.steps:
            if step.name not in only:
                records.leave_step(self.services.database, self.info.id, step.name, passed.get(step.name))

    def step(self, name: str, token: CancelToken) -> StepResult:
        """Run one step whose needs have succeeded. Never raises for what the step did; its result says it."""
        config = self.graph.step(name)
        if token.cancelled:
            return StepResult("cancelled", reason=token.reason)
        records.start_step(self.services.database, self.info.id, name)
        path = log_path(self.services.settings.home, self.info.id, name)
        with FileLog(path, lambda line: self.on_line(name, line)) as log:
            result = self._guarded(config, log, token)
            if result.state == "cancelled":
                result = attrs.evolve(result, reason=token.reason or result.reason)
            result = attrs.evolve(result, produced=result.produced or in_words(result), reason=storable(result.reason))
            result = self._ingested(config, result)
            if result.reason:
                log.line(f"{result.state}: {result.reason}")
        records.finish_step(self.services.database, self.info, name, result)
        return result

    def finish(self, *, cancelled: str | None = None, broken: str | None = None) -> State:
        """Close the run, whatever became of it, and bring it into the warehouse."""
        state = records.finish_run(self.services.database, self.info.id, cancelled=cancelled, broken=broken)
        remove_tree(self._folder())
        self.services.ingest.run(self.info.id)
        return state

    def _ingested(self, config: StepFields, result: StepResult) -> StepResult:
        """A step whose findings could not be kept has not succeeded."""
        try:
            self.services.ingest.step(self.info, config, result)
        except PlatformError as error:
            return attrs.evolve(result, state="infra_error", reason=str(error))
        return result

    def _guarded(self, config: StepFields, log: FileLog, token: CancelToken) -> StepResult:
        workspace = self._folder() / config.name
        try:
            return self._run(config, workspace, log, token)
        except PenstockError as error:
            return StepResult(_state_of(error, token), reason=str(error))
        except Exception as error:  # noqa: BLE001 - the boundary: a defect in a step type ends the step, not the run
            log.line(traceback.format_exc())
            return StepResult("infra_error", reason=f"defect in {config.type}: {type(error).__name__}: {error}")
        finally:
            remove_tree(workspace)

    def _run(self, config: StepFields, workspace: Path, log: FileLog, token: CancelToken) -> StepResult:
        context = self._context(workspace, log, token)
        remove_tree(workspace)
        self.repository.check_out(self.info.commit, workspace)
        for artifact in self._upstream_artifacts(config.name):
            if not artifact.published:
                place_artifact(context, artifact)
        return step_types()[config.type].run(config, context)

    def _upstream_artifacts(self, step: str) -> tuple[Artifact, ...]:
        passed = records.passed_steps(self.services.database, self.info)
        made_by = [(passed[need], need) for need in self.graph.upstream(step) if need in passed]
        return records.artifacts_of(self.services.database, made_by)

    def _folder(self) -> Path:
        return self.services.settings.home / "workspaces" / self.info.id

    def _context(self, workspace: Path, log: FileLog, token: CancelToken) -> StepContext:
        database = self.services.database
        return StepContext(
            run=self.info,
            settings=self.services.settings,
            workspace=workspace,
            engine=self.services.engine,
            store=self.services.store,
            log=log,
            token=token,
            defaults_env=self.graph.env,
            find_published=lambda key, ref: records.find_published(database, self.info, key, ref),
            upstream_artifacts=self._upstream_artifacts,
            undecided=self.undecided,
            database=database,
            platform_up=self.services.platform_up,
        )

    def undecided(self, step: str) -> tuple[str, ...]:
        """Steps upstream of `step` whose passing is not on record for this commit and graph."""
        passed = records.passed_steps(self.services.database, self.info)
        return tuple(need for need in self.graph.upstream(step) if need not in passed)


def _state_of(error: PenstockError, token: CancelToken) -> State:
    if token.cancelled or isinstance(error, Cancelled):
        return "cancelled"
    if isinstance(error, StepTimeout):
        return "timed_out"
    return "infra_error" if isinstance(error, PlatformError) else "failed"


def in_words(result: StepResult) -> str:
    """What a step produced, in a few words: verdict first, then artifacts."""
    words = [result.verdict.summary] if result.verdict and result.state == "succeeded" else []
    words += [f"{made.key} ({size_in_words(made.size_bytes)})" for made in result.artifacts]
    return ", ".join(words)


def storable(text: str | None) -> str | None:
    """Without what PostgreSQL and JSON cannot hold: NUL, and halves of surrogate pairs from odd file names."""
    return text and text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def size_in_words(size_bytes: int) -> str:
    """`1.5 MB`: powers of 1000."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def new_run_id() -> str:
    """An identifier of the kind that Dagster gives: its first eight digits are enough for people."""
    return str(uuid.uuid4())
