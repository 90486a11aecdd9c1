"""What the API takes and gives."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from penstock.events.inbox import EventRecord
from penstock.pipeline.log import LogLine
from penstock.pipeline.plan import Graph
from penstock.pipeline.records import RunRecord, StepRecord
from penstock.pipeline.spec import path_in_workspace
from penstock.sources.projects import Project
from penstock.steps import StepType

RunState = Literal[
    "queued", "running", "succeeded", "failed", "cancelled", "timed_out", "skipped", "waiting", "infra_error"
]
# No name holds a NUL character, which the database could not keep.
Name = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
Commit = Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$", description="The full hash of a commit.")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, 64 hex digits.")]
ArtifactKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


def _written(value: object) -> object:
    """Pydantic takes bare numbers for seconds; a moment is written out."""
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", value):
        raise ValueError("write it as 2026-01-02T03:04:05Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_written), Field(description="RFC 3339, with its zone.")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewProject(_Model):
    """A repository to connect."""

    name: Name = Field(examples=["shop"])
    url: Annotated[Name, Field(max_length=2000)] = Field(examples=["https://git.example/shop.git"])


class ProjectOut(_Model):
    """A connected repository."""

    name: str
    url: str
    default_branch: str
    polled: bool

    @classmethod
    def of(cls, project: Project) -> Self:
        return cls(name=project.name, url=project.url, default_branch=project.default_branch, polled=project.polled)


class NewPush(_Model):
    """A branch or tag that moved."""

    ref: Name = Field(examples=["refs/heads/main"])
    commit: str = Field(examples=["5c6f9a0e3d1b7c284f00aa6d92e3c1b7f4d8e905"], max_length=64)
    before: str | None = Field(None, description="Where it was; zeros or nothing for a new branch.", max_length=64)


class EventOut(_Model):
    """An event and what became of it."""

    id: int
    key: str
    project: str
    kind: str
    ref: str
    commit: str
    source: str
    state: str
    reason: str | None
    run_id: str | None
    received_at: datetime

    @classmethod
    def of(cls, event: EventRecord) -> Self:
        return cls(**{name: getattr(event, name) for name in cls.model_fields})


class PushAnswer(_Model):
    """Whether the push is new; the event that it became."""

    accepted: bool
    event: EventOut | None


class NewRun(_Model):
    """A run to start: of a branch or tag as it is now, or of a commit."""

    project: Name = Field(examples=["shop"])
    ref: Name | None = Field(
        None,
        description="A branch or tag, in full or by its name; default: the default branch.",
        examples=["main", "refs/tags/v1"],
    )
    commit: Commit | None = Field(
        None,
        description="A commit that is on a branch or tag; default: where the ref is now.",
        examples=["5c6f9a0e3d1b7c284f00aa6d92e3c1b7f4d8e905"],
    )


class ArtifactOut(_Model):
    """Bytes that a step put out, or that somebody sent. run_id, step: None when they were sent."""

    digest: Digest
    size_bytes: int
    project: str
    commit: str
    ref: str
    run_id: str | None
    step: str | None
    key: str
    path: str = Field(description="Where in the workspace they belong.")
    kind: str = Field(description="file, executable, or tree: a tar archive of a folder.")
    published: bool
    created_at: datetime


class NewArtifact(_Model):
    """What an artifact that is sent is called, and which commit it is of."""

    project: Name = Field(examples=["shop"])
    key: ArtifactKey = Field(description="The name under which step.artifact_pull finds it.", examples=["ui-dist"])
    commit: Commit = Field(examples=["5c6f9a0e3d1b7c284f00aa6d92e3c1b7f4d8e905"])
    ref: Name | None = Field(None, description="Default: the ref for which the commit last ran, or the default branch.")
    path: Annotated[Name, AfterValidator(path_in_workspace)] | None = Field(
        None, description="Where in a workspace it belongs; default: its key."
    )


class Removed(_Model):
    """
    An artifact that was taken off the record.

    bytes_removed: False while others need them, or until a sweep comes by: what is younger than a day stays till then.
    """

    digest: Digest
    records: int
    bytes_removed: bool


class ArtifactQuery(_Model):
    """Which artifacts. Each that is given must hold."""

    project: Name | None = None
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{4,64}$", description="The beginning is enough.")] | None = None
    ref: Name | None = None
    run: Name | None = None
    step: Name | None = None
    key: Name | None = None
    digest: Digest | None = None
    published: bool | None = None
    limit: int = Field(50, ge=1, le=1000)
    cursor: str | None = Field(None, max_length=1000, description="Of the Link header of the page before.")


class StepTypeOut(_Model):
    """A step type. schema: JSON Schema of what may stand in its step."""

    name: str = Field(examples=["step.shell_exec"])
    kind: str = Field(description="The kind of asset that it makes: build, report, image or deployment.")
    summary: str
    outputs: tuple[str, ...] = Field(description="What ${{ steps.NAME.outputs.X }} can name.")
    json_schema: dict[str, Any] = Field(serialization_alias="schema")

    @classmethod
    def of(cls, found: StepType) -> Self:
        model = found.model
        schema = model.model_json_schema()
        schema["properties"]["type"] = {"const": found.name, "description": model.summary}
        own = {"name": found.name, "kind": found.kind, "summary": model.summary, "outputs": model.outputs}
        return cls(json_schema=schema, **own)


class PlannedStep(_Model):
    """A step of a graph that has not run."""

    name: str
    type: str
    kind: str
    needs: tuple[str, ...]
    check: str | None = Field(description="The blocking check that it decides: tests, findings or healthy.")


class PipelineOut(_Model):
    """A pipeline that is right. graph: what is stored with a run of it."""

    hash: str = Field(description="SHA-256 of everything that the steps do.")
    structure_hash: str = Field(description="SHA-256 of names, kinds and needs alone.")
    steps: tuple[PlannedStep, ...] = Field(description="Each after all that it needs.")
    graph: dict[str, Any]

    @classmethod
    def of(cls, graph: Graph) -> Self:
        planned = tuple(
            PlannedStep(name=s.name, type=s.type, kind=s.kind, needs=s.needs, check=s.check_name()) for s in graph.steps
        )
        return cls(hash=graph.hash, structure_hash=graph.structure_hash, steps=planned, graph=graph.to_values())


class StepOut(_Model):
    """A step of a run. outputs: what later steps can read of it."""

    step: str
    type: str
    state: str
    reason: str | None
    attempt: int
    exit_code: int | None
    produced: str
    reused_from: str | None
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    outputs: dict[str, JsonValue] = {}

    @classmethod
    def of(cls, step: StepRecord, outputs: Mapping[str, Any]) -> Self:
        own = {name: getattr(step, name) for name in cls.model_fields if name != "outputs"}
        return cls(**own, outputs=dict(outputs))


class RunOut(_Model):
    """A run; `steps` and `artifacts` only where one run is asked for."""

    id: str
    project: str
    commit: str
    ref: str
    trigger: str
    author: str | None
    title: str | None
    graph_hash: str
    state: str
    reason: str | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    steps: tuple[StepOut, ...] | None = None
    artifacts: tuple[ArtifactOut, ...] | None = None

    @classmethod
    def of(
        cls,
        run: RunRecord,
        steps: tuple[StepOut, ...] | None = None,
        artifacts: tuple[ArtifactOut, ...] | None = None,
    ) -> Self:
        own = ("state", "reason", "queued_at", "started_at", "finished_at", "seconds")
        told = ("id", "project", "commit", "ref", "trigger", "author", "title", "graph_hash")
        return cls(
            **{name: getattr(run, name) for name in own},
            **{name: getattr(run.info, name) for name in told},
            steps=steps,
            artifacts=artifacts,
        )


class LogLineOut(_Model):
    """A line of a log. own: whether Penstock said it."""

    at: str
    text: str
    own: bool

    @classmethod
    def of(cls, line: LogLine) -> Self:
        return cls(at=line.at, text=line.text, own=line.own)


class LogOut(_Model):
    """Lines from an offset on; ask again with `next_offset`. complete: the step has ended and this is all."""

    lines: tuple[LogLineOut, ...]
    next_offset: int
    complete: bool
