"""From an event to a launch: read the pipeline at the commit, know its structure, say what is to run."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import NotFoundError, SpecError
from penstock.events import inbox
from penstock.events.inbox import EventRecord
from penstock.events.triggers import why_no_run
from penstock.pipeline import records
from penstock.pipeline.facts import group_of
from penstock.pipeline.plan import Graph, Structure, read_graph
from penstock.pipeline.session import new_run_id
from penstock.pipeline.spec import When
from penstock.settings import Settings
from penstock.sources.git import CommitInfo, Repository
from penstock.sources.projects import Project, PullRequestHead, get_project
from penstock.state.tables import graphs
from penstock.steps.context import RunInfo

SENSOR = "git_events"
TAG_PROJECT, TAG_COMMIT, TAG_REF = "penstock/project", "penstock/commit", "penstock/ref"
PRIVILEGED = frozenset({"step.deploy", "step.gate", "step.docker_push", "step.artifact_push"})
TAG_EVENT, TAG_TRIGGER = "penstock/event", "penstock/trigger"
TAG_STRUCTURE = "penstock/structure"  # on a job: the shape that Dagster has loaded


@attrs.frozen
class Launch:
    """
    What Dagster is to run.

    info, graph: as they go on record; `info.id` is empty until Dagster has given the run its own.
    group: runs of the project with the same one do not overlap.
    """

    job: str
    info: RunInfo
    graph: Graph
    event_key: str
    group: str | None = None

    @property
    def partitions(self) -> str:
        """The name of the project's dynamic partitions."""
        return partitions_name(self.info.project)

    @property
    def tags(self) -> Mapping[str, str]:
        """Tags of the run; run key and sensor name are the safety net's, so that it knows this run as its own."""
        return {
            TAG_PROJECT: self.info.project,
            TAG_COMMIT: self.info.commit,
            TAG_REF: self.info.ref,
            TAG_EVENT: self.event_key,
            TAG_TRIGGER: self.info.trigger,
            "dagster/partition": self.info.partition,
            "dagster/run_key": self.event_key,
            "dagster/sensor_name": SENSOR,
        }


@attrs.frozen
class KnownStructure:
    """A shape that a project's commits have had. is_default: that of its default branch."""

    project: str
    structure: Structure
    is_default: bool

    @property
    def job(self) -> str:
        """The name of the job that runs it."""
        return job_name(self.project, self.structure.hash, is_default=self.is_default)


def partitions_name(project: str) -> str:
    """The name of a project's dynamic partitions in Dagster."""
    return f"{project}/commits"


def word(name: str) -> str:
    """A project's or step's name in Dagster's letters. Names that differ only in - and _ are refused earlier."""
    return name.replace("-", "_")


def job_name(project: str, structure_hash: str, *, is_default: bool) -> str:
    """The job of a structure: the project's name; one that is not the default branch's carries its hash."""
    return word(project) if is_default else f"{word(project)}__{structure_hash[:10]}"


def op_name(project: str, step: str) -> str:
    """A step's name in Dagster's plans."""
    return f"{word(project)}__{word(step)}"


def prepare(database: sa.Engine, settings: Settings, event: EventRecord) -> Launch | None:
    """
    What is to run for an event.

    Returns: None when nothing is: the event is closed, a pipeline that cannot be read is on record as a failed run.
    Raises: PlatformError when the repository cannot be reached.
    """
    project = get_project(database, event.project)
    try:
        repository, event = _fetched(database, settings, project, event)
    except NotFoundError as error:
        inbox.close(database, event, reason=str(error))
        return None
    if event.kind == "tag" and event.before == event.commit:
        inbox.close(database, event, reason=f"{event.ref} is there already: told as a tag object and as a commit")
        return None
    try:
        graph = read_pipeline(repository, event.commit, settings, event)
    except SpecError as error:
        _record_unreadable(database, repository, event, str(error))
        return None
    about = repository.info(event.commit)
    info = run_info(about, project, event.ref, graph, trigger=event.kind, event=event)
    if reason := why_no_run(graph.triggers, event, about.message, lambda: changed(repository, event)):
        inbox.close(database, event, reason=reason, by_rule=True)
        return None
    is_default_branch = event.ref == f"refs/heads/{project.default_branch}"
    known = _know(database, project, graph.structure, is_default_branch=is_default_branch)
    return Launch(known.job, info, graph, event.key, group_of(graph, info))


def _fetched(
    database: sa.Engine, settings: Settings, project: Project, event: EventRecord
) -> tuple[Repository, EventRecord]:
    """
    The repository with the event's commit, and the event as git knows it.

    Raises: NotFoundError, PlatformError.
    """
    if event.kind == "release" and event.commit == inbox.NOTHING:
        repository, commit = project.with_ref(settings, event.ref)
    else:
        repository = project.with_commit(settings, event.commit, head_of(event))
        commit = repository.resolve(event.commit)
    before = _before(repository, event, commit)
    if (commit, before) != (event.commit, event.before):
        event = inbox.correct(database, event, commit, before)
    return repository, event


def _before(repository: Repository, event: EventRecord, commit: str) -> str | None:
    """Where the ref was: for a pull request where it left its target, for a tag the commit rather than the object."""
    if event.kind == "pull_request":
        return repository.branched_from(str(_pull_request(event).get("target")), commit)
    if event.kind == "tag" and event.before and repository.has(event.before):
        return repository.resolve(event.before)
    return event.before


def _pull_request(event: EventRecord | None) -> Mapping[str, Any]:
    return (event.about.get("pull_request") if event else None) or {}


def head_of(event: EventRecord | None) -> PullRequestHead | None:
    """What fetches the head of the pull request that an event is about; None when it is about none."""
    told = _pull_request(event)
    return PullRequestHead(told.get("fetch"), bool(told.get("fork"))) if told else None


def read_pipeline(repository: Repository, commit: str, settings: Settings, event: EventRecord | None) -> Graph:
    """
    The graph of a commit as this event may run it: of a fork's pull request without what asks for trust.

    Raises: SpecError.
    """
    graph = read_graph(repository, commit, settings.templates_path)
    return without_privileges(graph) if _pull_request(event).get("fork") else graph


def without_privileges(graph: Graph) -> Graph:
    """
    The same graph, whose deployments, gates, pushes to registries and published artifacts, and all that needs
    them, are skipped and say why. Its hash is another one: nothing that it decides is taken for the graph's own.
    """
    barred = {step.name for step in graph.steps if step.type in PRIVILEGED}
    barred |= {step.name for step in graph.steps if barred & set(graph.upstream(step.name))}
    never = (When.model_validate({"if": "!pull_request.fork"}),)
    steps = tuple(s.model_copy(update={"when": never}) if s.name in barred else s for s in graph.steps)
    return attrs.evolve(graph, steps=steps)


def changed(repository: Repository, event: EventRecord) -> Sequence[str] | None:
    """The files that an event is about; None when the commit before is not known."""
    return repository.changed_files(event.before, event.commit) if event.before else None


def run_info(
    about: CommitInfo,
    project: Project,
    ref: str,
    graph: Graph,
    *,
    trigger: str,
    event: EventRecord | None = None,
    run_id: str = "",
) -> RunInfo:
    """A run's description, with what the commit and the event say of themselves."""
    return RunInfo(
        id=run_id,
        project=project.name,
        commit=about.commit,
        ref=ref,
        graph_hash=graph.hash,
        structure_hash=graph.structure_hash,
        trigger=trigger,
        event=event.kind if event else "manual",
        before=event.before if event else None,
        about=event.about if event else {},
        author=about.author,
        title=about.title,
        committed_at=about.committed_at,
    )


def _record_unreadable(database: sa.Engine, repository: Repository, event: EventRecord, reason: str) -> None:
    about = repository.info(event.commit)
    info = RunInfo(
        id=new_run_id(),
        project=event.project,
        commit=event.commit,
        ref=event.ref,
        graph_hash="",
        structure_hash="",
        trigger=event.kind,
        event=event.kind,
        before=event.before,
        about=event.about,
        author=about.author,
        title=about.title,
        committed_at=about.committed_at,
    )
    records.create_failed_run(database, info, reason, event_key=event.key)


def _know(database: sa.Engine, project: Project, structure: Structure, *, is_default_branch: bool) -> KnownStructure:
    """The structure, on record from now on; the newest of the default branch is the default."""
    key = {"project": project.name, "structure_hash": structure.hash}
    row = insert(graphs).values(**key, structure=structure.to_values(), is_default=is_default_branch)
    with database.begin() as connection:
        if is_default_branch:
            connection.execute(sa.update(graphs).where(graphs.c.project == project.name).values(is_default=False))
            row = row.on_conflict_do_update(index_elements=list(key), set_={"is_default": True})
        else:
            row = row.on_conflict_do_nothing()
        connection.execute(row)
        same = sa.and_(graphs.c.project == project.name, graphs.c.structure_hash == structure.hash)
        is_default = connection.execute(sa.select(graphs.c.is_default).where(same)).scalar_one()
    return KnownStructure(project.name, structure, is_default)


def known_structures(database: sa.Engine) -> tuple[KnownStructure, ...]:
    """Every structure that Dagster has to know, by project."""
    with database.connect() as connection:
        rows = connection.execute(sa.select(graphs).order_by(graphs.c.project, graphs.c.structure_hash)).mappings()
        return tuple(
            KnownStructure(row["project"], Structure.from_values(row["structure"]), row["is_default"]) for row in rows
        )


def structures_version(database: sa.Engine) -> str:
    """Changes when a structure comes, goes or becomes the default."""
    parts = sa.func.concat(graphs.c.project, graphs.c.structure_hash, graphs.c.is_default)
    ordered = sa.func.string_agg(parts, sa.literal(",").op("ORDER BY")(parts))
    with database.connect() as connection:
        return str(connection.execute(sa.select(sa.func.md5(sa.func.coalesce(ordered, "")))).scalar())
