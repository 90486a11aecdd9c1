"""What the API takes and gives."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from penstock.events.inbox import EventRecord
from penstock.pipeline.log import LogLine
from penstock.pipeline.records import RunRecord, StepRecord
from penstock.sources.projects import Project


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewProject(_Model):
    """A repository to connect."""

    name: str = Field(examples=["shop"])
    url: str = Field(examples=["https://git.example/shop.git"], max_length=2000)


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
    """A branch that moved."""

    ref: str = Field(examples=["refs/heads/main"], max_length=500)
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


class StepOut(_Model):
    """A step of a run."""

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

    @classmethod
    def of(cls, step: StepRecord) -> Self:
        return cls(**{name: getattr(step, name) for name in cls.model_fields})


class RunOut(_Model):
    """A run; `steps` only where one run is asked for."""

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

    @classmethod
    def of(cls, run: RunRecord, steps: tuple[StepRecord, ...] | None = None) -> Self:
        own = ("state", "reason", "queued_at", "started_at", "finished_at", "seconds")
        told = ("id", "project", "commit", "ref", "trigger", "author", "title", "graph_hash")
        return cls(
            **{name: getattr(run, name) for name in own},
            **{name: getattr(run.info, name) for name in told},
            steps=None if steps is None else tuple(StepOut.of(step) for step in steps),
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
