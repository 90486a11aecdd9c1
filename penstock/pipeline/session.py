"""
One run at work: the same for the command line and for Dagster.

A session records the run, prepares each step's workspace, runs the step, records what came of it and
closes the run. Who decides the order (the local scheduler, Dagster's executor) only calls `step`.
"""

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import sqlalchemy as sa

from penstock.artifacts import ArtifactStore, open_store
from penstock.engines import Engine, open_engine
from penstock.errors import PlatformError
from penstock.folders import remove_tree
from penstock.images.leftovers import remove_of_run
from penstock.pipeline import records
from penstock.pipeline.approvals import outdated_gates
from penstock.pipeline.attempts import Attempt, try_step
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.expressions import holds
from penstock.pipeline.facts import checks_of, facts_of, group_of, why_not
from penstock.pipeline.ingest import Ingest
from penstock.pipeline.kept import keep_workspace
from penstock.pipeline.live import live_in
from penstock.pipeline.log import FileLog, log_path
from penstock.pipeline.plan import Graph
from penstock.pipeline.spec import StepFields
from penstock.settings import Settings
from penstock.sources.git import Repository
from penstock.steps.context import Artifact, RunInfo, State, StepResult

OnLine = Callable[[str, str], None]
_KEPT = ("failed", "timed_out")  # states whose workspace can be looked into afterwards


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
    default_branch: str = "main"
    _limits: dict[str, threading.BoundedSemaphore] = attrs.field(factory=dict, repr=False)

    def __attrs_post_init__(self) -> None:
        for step in self.graph.steps:
            if step.combination and step.combination.limit:
                self._limits.setdefault(step.combination.of, threading.BoundedSemaphore(step.combination.limit))

    @classmethod
    def start(
        cls,
        services: Services,
        info: RunInfo,
        graph: Graph,
        repository: Repository,
        *,
        on_line: OnLine,
        default_branch: str = "main",
        only: Iterable[str] | None = None,
        event_key: str | None = None,
    ) -> "RunSession":
        """
        Record the run and begin.

        only: run no more than these steps; the others are taken over from runs of this commit and graph that passed.
        """
        group = group_of(graph, info) if event_key else None
        records.create_run(services.database, info, graph, event_key=event_key, group=group, begun=True)
        session = cls(services, info, graph, repository, on_line, default_branch)
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
        with self._turn(config, token):
            if token.cancelled:
                return StepResult("cancelled", reason=token.reason)
            records.start_step(self.services.database, self.info.id, name)
            path = log_path(self.services.settings.home, self.info.id, name)
            with FileLog(path, lambda line: self.on_line(name, line)) as log:
                result = self._settled(config, self._tried(config, log, token), token)
                if result.reason:
                    log.line(f"{result.state}: {result.reason}")
            records.finish_step(self.services.database, self.info, name, result)
            return result

    def finish(self, *, cancelled: str | None = None, broken: str | None = None) -> State:
        """Close the run, whatever became of it, and bring it into the warehouse."""
        remove_of_run(self.services.settings, self.info.id)
        state = records.finish_run(self.services.database, self.info.id, cancelled=cancelled, broken=broken)
        remove_tree(self._folder())
        self.services.ingest.run(self.info.id)
        if not self.services.platform_up and any(step.type == "step.plugin" for step in self.graph.steps):
            self.services.ingest.told()
        return state

    @contextmanager
    def _turn(self, config: StepFields, token: CancelToken) -> Iterator[None]:
        """Of a matrix with a limit only so many steps are at work at once."""
        limit = self._limits.get(config.combination.of) if config.combination else None
        if limit is None:
            yield
            return
        while not limit.acquire(timeout=0.2):
            if token.cancelled:
                yield
                return
        try:
            yield
        finally:
            limit.release()

    def _tried(self, config: StepFields, log: FileLog, token: CancelToken) -> StepResult:
        """The condition asked, the step run as often as it may be, its workspace kept or removed."""
        workspace = self._folder() / config.name
        attempt = Attempt(self, config, workspace, log, token)
        try:
            result = try_step(attempt)
            if result.state in _KEPT:
                keep_workspace(self.services.settings.home, self.info.id, config.name, workspace)
            return result
        finally:
            remove_tree(workspace)

    def _settled(self, config: StepFields, result: StepResult, token: CancelToken) -> StepResult:
        if result.state == "cancelled":
            result = attrs.evolve(result, reason=token.reason or result.reason)
        result = attrs.evolve(result, produced=result.produced or in_words(result), reason=storable(result.reason))
        result = self._ingested(config, result)
        if config.continue_on_error and result.state in ("failed", "timed_out", "infra_error"):
            result = attrs.evolve(result, allowed=True)
        return result

    def _ingested(self, config: StepFields, result: StepResult) -> StepResult:
        """A step whose findings could not be kept has not succeeded."""
        try:
            self.services.ingest.step(self.info, config, result)
        except PlatformError as error:
            return attrs.evolve(result, state="infra_error", reason=str(error))
        return result

    def facts(self, step: str) -> dict[str, Any]:
        """What the expressions of a step may name."""
        of_run = records.outcomes(self.services.database, self.info.id)
        upstream = {name: of_run[name] for name in self.graph.upstream(step) if name in of_run}
        return facts_of(self.info, self.graph.env, upstream)

    def unmet(self, config: StepFields) -> str:
        """Why the step is not needed; empty when it is. Raises: InputError for a condition that has no answer."""
        if not config.when:
            return ""
        before = self.info.before
        return why_not(
            config.when,
            self.facts(config.name),
            lambda: self.repository.changed_files(before, self.info.commit) if before else None,
        )

    def holds(self, step: str, condition: str) -> bool:
        """Whether a condition over what is upstream of the step is true. Raises: InputError when it has no answer."""
        decided = records.verdicts_of(self.services.database, self.info, self.graph.upstream(step))
        facts = self.facts(step)
        functions = {"env": partial(live_in, self.services.database, self.info.project)}
        return holds(condition, {**facts, **checks_of(decided, facts["steps"])}, functions)

    def upstream_artifacts(self, step: str) -> tuple[Artifact, ...]:
        """What the steps that `step` needs put out, directly or through others."""
        passed = records.passed_steps(self.services.database, self.info)
        made_by = [(passed[need], need) for need in self.graph.upstream(step) if need in passed]
        return records.artifacts_of(self.services.database, made_by)

    def undecided(self, step: str) -> tuple[str, ...]:
        """Steps upstream of `step` whose passing is not on record for this commit and graph."""
        upstream = self.graph.upstream(step)
        passed = records.passed_steps(self.services.database, self.info)
        gates = {name: passed[name] for name in {*upstream} & {*passed} if self.graph.step(name).type == "step.gate"}
        outdated = outdated_gates(self.services.database, self.info, gates)
        return tuple(need for need in upstream if need not in passed or need in outdated)

    def _folder(self) -> Path:
        return self.services.settings.home / "workspaces" / self.info.id


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
