"""/releases and /rollouts: what is live where, what was, and what people do to it by hand."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from penstock.api.access import Actor
from penstock.api.models import Name
from penstock.api.paging import PAGED, link_next, read_cursor, write_cursor
from penstock.api.problems import problems
from penstock.deploy import operations
from penstock.deploy.operations import Order
from penstock.deploy.pins import Pin, pin_of
from penstock.deploy.releases import Release, find_releases, get_release, service_url
from penstock.deploy.rollouts import OPEN, Rollout, find_rollouts, get_rollout, rollout_of
from penstock.state.rollout_tables import rollouts
from penstock.state.tables import releases

router = APIRouter(tags=["releases"])

ReleaseState = Literal["pending", "live", "superseded", "failed"]
RolloutState = Literal["requested", "going", "succeeded", "failed"]
_Limit = Annotated[int, Query(ge=1, le=1000)]
_Cursor = Annotated[str | None, Query(max_length=1000, description="Of the Link header of the page before.")]
_Environment = Annotated[Name | None, Query(description="Only what is there.")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Told(_Model):
    """Why somebody does something, for the record."""

    why: str = Field("", max_length=2000, pattern=r"^[^\x00]*$")


class Return(Told):
    """How to take a former release up again."""

    own_strategy: bool = Field(
        False,
        description="By the strategy that the release has; else all instances beside the present, then the switch.",
    )
    pin: bool = Field(False, description="Whether no run is to deploy the service meanwhile.")


class PinOut(_Model):
    """Who holds a service at which release, and why."""

    number: int
    actor: str
    why: str
    created_at: datetime

    @classmethod
    def of(cls, pin: Pin) -> "PinOut":
        return cls(number=pin.number, actor=pin.actor, why=pin.why, created_at=pin.created_at)


class ReleaseOut(_Model):
    """
    A release. configuration: how it runs, with the names of its secrets.

    previous, rollback_of, rollout: ids; `url`, `pin` and `rollout` only where one release is asked for.
    """

    id: str
    project: str
    environment: str
    service: str
    number: int
    commit: str
    digest: str
    graph_hash: str
    run_id: str
    configuration: dict[str, Any]
    previous: str | None
    rollback_of: str | None
    state: str
    reason: str | None
    created_at: datetime
    live_at: datetime | None
    ended_at: datetime | None
    url: str | None = None
    pin: PinOut | None = None
    rollout: str | None = None

    @classmethod
    def of(
        cls, release: Release, *, url: str | None = None, pin: PinOut | None = None, rollout: str | None = None
    ) -> "ReleaseOut":
        same = ("id", "number", "commit", "digest", "graph_hash", "run_id", "previous", "rollback_of", "state")
        more = ("reason", "created_at", "live_at", "ended_at")
        service = release.service
        return cls(
            **{name: getattr(release, name) for name in (*same, *more)},
            project=service.project,
            environment=service.environment,
            service=service.name,
            configuration=msgspec.to_builtins(release.configuration),
            url=url,
            pin=pin,
            rollout=rollout,
        )


class RolloutEvent(_Model):
    """Something that happened on the way."""

    at: datetime
    text: str


class RolloutOut(_Model):
    """
    How a release takes over. weight: per cent of the requests that it has. clock_s: seconds that it was at work.

    source, release, former: ids of what is taken up again, what takes over, and from what. trouble: why it failed.
    """

    id: str
    project: str
    environment: str
    service: str
    kind: str = Field(description="deployment, rollback or roll_forward.")
    release: str | None
    source: str | None
    former: str | None
    strategy: str
    actor: str
    asked_why: str
    state: str
    phase: str
    step: int
    clock_s: float
    weight: int
    paused: bool
    command: str | None
    why: str
    probe: str
    trouble: str | None
    events: tuple[RolloutEvent, ...]
    created_at: datetime
    began_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, rollout: Rollout) -> "RolloutOut":
        same = ("id", "kind", "actor", "asked_why", "state", "clock_s", "weight", "paused", "command", "why", "probe")
        more = ("trouble", "created_at", "began_at", "ended_at")
        return cls(
            **{name: getattr(rollout, name) for name in (*same, *more)},
            project=rollout.service.project,
            environment=rollout.service.environment,
            service=rollout.service.name,
            release=rollout.release_id,
            source=rollout.source_id,
            former=rollout.former_id,
            strategy=rollout.strategy.name,
            phase=rollout.progress.phase,
            step=rollout.progress.step,
            events=tuple(RolloutEvent(at=one.at, text=one.text) for one in rollout.events),
        )


class DifferenceOut(_Model):
    """A field in which two releases differ, and how it is in each; empty where it is not."""

    field: str
    left: str
    right: str


def _conditions(
    table: sa.Table, given: Mapping[str, str | None], states: Sequence[str]
) -> list[sa.ColumnElement[bool]]:
    named = [table.c[name] == value for name, value in given.items() if value is not None]
    return [*named, *([table.c.state.in_(states)] if states else [])]


def _after(table: sa.Table, cursor: str) -> sa.ColumnElement[bool]:
    at, key = read_cursor(cursor)
    return sa.tuple_(table.c.created_at, table.c.id) < sa.tuple_(sa.literal(at), sa.literal(key))


@router.get("/releases", responses=PAGED)
def list_releases(
    *,
    request: Request,
    response: Response,
    environment: _Environment = None,
    project: Name | None = None,
    service: Name | None = None,
    state: Annotated[tuple[ReleaseState, ...], Query(description="One or several; each may be.")] = (),
    limit: _Limit = 50,
    cursor: _Cursor = None,
) -> list[ReleaseOut]:
    """Newest first; the Link header says where the next page is."""
    wanted = _conditions(releases, {"environment": environment, "project": project, "service": service}, state)
    wanted += [_after(releases, cursor)] if cursor is not None else []
    with request.app.state.database.connect() as connection:
        found = find_releases(connection, wanted, limit + 1)
    if len(found) > limit:
        link_next(request, response, write_cursor(found[limit - 1].created_at, found[limit - 1].id))
    return [ReleaseOut.of(one) for one in found[:limit]]


@router.get("/releases/{release_id}", responses=problems(404))
def show_release(request: Request, release_id: Name) -> ReleaseOut:
    """One release, with where its service answers, who holds that, and the rollout by which it came."""
    database = request.app.state.database
    with database.connect() as connection:
        release = get_release(connection, release_id)
        held, rollout = pin_of(connection, release.service), rollout_of(connection, release_id)
    pin = PinOut.of(held) if held else None
    return ReleaseOut.of(
        release, url=service_url(database, release.service), pin=pin, rollout=rollout.id if rollout else None
    )


@router.get("/releases/{release_id}/difference/{other_id}", responses=problems(404))
def compare_releases(request: Request, release_id: Name, other_id: Name) -> list[DifferenceOut]:
    """In what two releases differ."""
    with request.app.state.database.connect() as connection:
        left, right = get_release(connection, release_id), get_release(connection, other_id)
    found = operations.difference(left, right)
    return [DifferenceOut(field=name, left=one, right=other) for name, (one, other) in found.items()]


@router.post("/releases/{release_id}/rollback", status_code=HTTPStatus.ACCEPTED, responses=problems(400, 404, 409, 413))
def roll_back(request: Request, response: Response, release_id: Name, actor: Actor, new: Return) -> RolloutOut:
    """
    Have this release's digest and configuration live again, as a release with a number of its own.

    It is stored when this is answered; the rollout tells how it goes on.
    """
    state = request.app.state
    release = _release(request, release_id)
    rollout = operations.ask_rollback(
        state.database,
        state.settings,
        release.service,
        number=release.number,
        same=new.own_strategy,
        actor=actor,
        why=new.why,
    )
    return _asked(request, response, rollout, actor, new)


@router.post(
    "/releases/{release_id}/roll-forward", status_code=HTTPStatus.ACCEPTED, responses=problems(400, 404, 409, 413)
)
def roll_forward(request: Request, response: Response, release_id: Name, actor: Actor, new: Return) -> RolloutOut:
    """Have the newest release of this one's service live again that was before somebody went back."""
    state, service = request.app.state, _release(request, release_id).service
    rollout = operations.ask_roll_forward(
        state.database, state.settings, service, same=new.own_strategy, actor=actor, why=new.why
    )
    return _asked(request, response, rollout, actor, new)


def _asked(request: Request, response: Response, rollout: Rollout, actor: str, new: Return) -> RolloutOut:
    state = request.app.state
    if new.pin:
        operations.hold(state.database, rollout.service, actor=actor, why=new.why)
    state.rollouts.wake()
    response.headers["Location"] = f"/api/v1/rollouts/{rollout.id}"
    return RolloutOut.of(rollout)


def _release(request: Request, release_id: str) -> Release:
    with request.app.state.database.connect() as connection:
        return get_release(connection, release_id)


@router.post("/releases/{release_id}/pin", status_code=HTTPStatus.CREATED, responses=problems(400, 404, 409, 413))
def pin_release(request: Request, release_id: Name, actor: Actor, new: Told) -> PinOut:
    """Hold the service of this release at what is live now: runs that deploy it fail, and say why."""
    service = _release(request, release_id).service
    return PinOut.of(operations.hold(request.app.state.database, service, actor=actor, why=new.why))


@router.post("/releases/{release_id}/unpin", responses=problems(400, 404, 413))
def unpin_release(request: Request, release_id: Name, actor: Actor, new: Told) -> PinOut:
    """Let runs deploy the service of this release again. Answers with how it was held."""
    service = _release(request, release_id).service
    return PinOut.of(operations.let_go(request.app.state.database, service, actor=actor, why=new.why))


@router.get("/rollouts", responses=PAGED)
def list_rollouts(
    *,
    request: Request,
    response: Response,
    environment: _Environment = None,
    project: Name | None = None,
    service: Name | None = None,
    state: Annotated[tuple[RolloutState, ...], Query(description="Default: those that are not over.")] = OPEN,
    limit: _Limit = 50,
    cursor: _Cursor = None,
) -> list[RolloutOut]:
    """Newest first; the Link header says where the next page is."""
    wanted = _conditions(rollouts, {"environment": environment, "project": project, "service": service}, state)
    wanted += [_after(rollouts, cursor)] if cursor is not None else []
    with request.app.state.database.connect() as connection:
        found = find_rollouts(connection, conditions=wanted, limit=limit + 1)
    if len(found) > limit:
        link_next(request, response, write_cursor(found[limit - 1].created_at, found[limit - 1].id))
    return [RolloutOut.of(one) for one in found[:limit]]


@router.get("/rollouts/{rollout_id}", responses=problems(404))
def show_rollout(request: Request, rollout_id: Name) -> RolloutOut:
    """One rollout: where it stands, and what happened on the way."""
    with request.app.state.database.connect() as connection:
        return RolloutOut.of(get_rollout(connection, rollout_id))


@router.post("/rollouts/{rollout_id}/{order}", status_code=HTTPStatus.ACCEPTED, responses=problems(400, 404, 409, 413))
def tell_rollout(request: Request, rollout_id: Name, order: Order, actor: Actor, new: Told) -> RolloutOut:
    """
    Pause a rollout, resume it, promote it to its next stage, or abort it, which goes back to the former release.

    Obeyed within a second. While it is paused nothing changes, unless the new release fails: that is undone.
    """
    state = request.app.state
    rollout = operations.tell(state.database, rollout_id, order, actor=actor, why=new.why)
    state.rollouts.wake()
    return RolloutOut.of(rollout)
