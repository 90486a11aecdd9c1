"""/environments: what may be deployed where, and under which rules; who holds one; what waits for one."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from penstock.api import access
from penstock.api.access import Actor
from penstock.api.models import Name
from penstock.api.paging import PAGED, link_next
from penstock.api.problems import HttpError, problems
from penstock.environments import store, waiting
from penstock.environments.model import Environment, Line, NamedRules, Rules, TargetKind
from penstock.environments.store import OutdatedError, Wanted
from penstock.environments.testing import Check, try_environment
from penstock.people.users import person_of
from penstock.pipeline.spec import StepName

router = APIRouter(tags=["environments"])
TAG = {"name": "environments", "description": "Where releases go, and the rules for getting there."}

_ETAG = {"headers": {"ETag": {"description": "The version, for If-Match.", "schema": {"type": "string"}}}}
IfMatch = Annotated[
    str | None, Header(alias="If-Match", max_length=100, description='The ETag that was read, or "*" for any.')
]
Reason = Annotated[Line, Field(min_length=1, examples=["the checkout is broken"])]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HoldOut(_Model):
    """Who holds an environment, and why."""

    by: str
    why: str
    at: datetime


class EnvironmentOut(_Model):
    """An environment. version: as in its ETag."""

    name: str
    rules: Rules
    version: int
    hold: HoldOut | None
    created_by: str
    created_at: datetime
    changed_by: str
    changed_at: datetime

    @classmethod
    def of(cls, found: Environment) -> "EnvironmentOut":
        held = HoldOut(by=found.hold.by, why=found.hold.why, at=found.hold.at) if found.hold else None
        names = ("name", "rules", "version", "created_by", "created_at", "changed_by", "changed_at")
        return cls(hold=held, **{name: getattr(found, name) for name in names})


class EnvironmentCheckOut(_Model):
    """One thing that was really tried. told: what was found, or what is wrong."""

    name: str
    passed: bool
    told: str
    remedy: str

    @classmethod
    def of(cls, check: Check) -> "EnvironmentCheckOut":
        return cls(name=check.name, passed=check.passed, told=check.told, remedy=check.remedy)


class NewHold(_Model):
    """For the record."""

    why: Reason


class NewOverride(_Model):
    """A freeze to lift, this once."""

    freeze: StepName
    why: Reason


class OverrideOut(_Model):
    """A freeze that is lifted, and until when."""

    freeze: str
    until: datetime


class WaitOut(_Model):
    """A deployment that waits. look_at: when the rules are asked again; none: when the environment is let go."""

    run_id: str
    step: str
    project: str
    service: str
    reason: str
    since: datetime
    look_at: datetime | None

    @classmethod
    def of(cls, wait: waiting.Wait) -> "WaitOut":
        return cls(**{name: getattr(wait, name) for name in cls.model_fields})


@contextmanager
def _changing(request: Request, actor: str) -> Iterator[tuple[sa.Connection, str]]:
    """A transaction, and whom the token speaks for. Raises: HttpError 412 when somebody was quicker."""
    try:
        with request.app.state.database.begin() as connection:
            yield connection, person_of(connection, actor)
    except OutdatedError as error:
        raise HttpError(HTTPStatus.PRECONDITION_FAILED, str(error)) from error


def _version(if_match: str | None) -> int | None:
    """Which version was read; None for any. Raises: HttpError 428 when it is not said, 412 for what is no version."""
    if if_match is None:
        told = "say which version you have read: send If-Match with its ETag"
        raise HttpError(HTTPStatus.PRECONDITION_REQUIRED, told)
    if if_match.strip() == "*":
        return None
    if not (match := re.fullmatch(r'\s*"(\d{1,9})"\s*', if_match, re.ASCII)):
        raise HttpError(HTTPStatus.PRECONDITION_FAILED, "no version has that ETag; look at the environment again")
    return int(match[1])


def _tagged(response: Response, found: Environment) -> EnvironmentOut:
    response.headers["ETag"] = f'"{found.version}"'
    return EnvironmentOut.of(found)


_GIVEN: dict[int | str, dict[str, Any]] = {200: _ETAG}


@router.get("/environments", responses=PAGED)
def list_environments(
    request: Request,
    response: Response,
    *,
    group: Annotated[StepName | None, Query(description="Only those of this group.")] = None,
    production: Annotated[bool | None, Query(description="Only those of production, or only the others.")] = None,
    target: Annotated[TargetKind | None, Query(description="Only those with this target.")] = None,
    name: Annotated[StepName | None, Query(description="Only those whose names begin so.")] = None,
    cursor: Annotated[StepName | None, Query(description="From the Link header of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[EnvironmentOut]:
    """Environments by name, page by page."""
    wanted = Wanted(group, production, target, name, cursor, limit + 1)
    with request.app.state.database.connect() as connection:
        found = store.list_environments(connection, wanted)
    if len(found) > limit:
        link_next(request, response, found[limit - 1].name)
    return [EnvironmentOut.of(one) for one in found[:limit]]


@router.post("/environments", status_code=HTTPStatus.CREATED, responses={**problems(400, 409, 413), 201: _ETAG})
def add_environment(request: Request, response: Response, new: NamedRules, actor: Actor) -> EnvironmentOut:
    """Make an environment."""
    with _changing(request, actor) as (connection, person):
        made = store.add(connection, new, person)
    response.headers["Location"] = f"/api/v1/environments/{made.name}"
    return _tagged(response, made)


@router.get("/environments/{name}", responses={**problems(404), **_GIVEN})
def show_environment(request: Request, response: Response, name: Name) -> EnvironmentOut:
    """One environment, with its version as ETag."""
    with request.app.state.database.connect() as connection:
        return _tagged(response, store.get_environment(connection, name))


@router.put("/environments/{name}", responses={**problems(400, 404, 412, 413, 428), **_GIVEN})
def change_environment(
    request: Request, response: Response, name: Name, new: Rules, actor: Actor, *, if_match: IfMatch = None
) -> EnvironmentOut:
    """Replace the rules. What waits there is looked at again."""
    version = _version(if_match)
    with _changing(request, actor) as (connection, person):
        return _tagged(response, store.change(connection, name, new, person, version=version))


@router.delete("/environments/{name}", status_code=HTTPStatus.NO_CONTENT, responses=problems(404, 409, 412, 428))
def remove_environment(request: Request, name: Name, actor: Actor, if_match: IfMatch = None) -> None:
    """Forget an environment; refused while a release is live there. Its history stays."""
    version = _version(if_match)
    with _changing(request, actor) as (connection, person):
        store.remove(connection, name, person, version=version)


@router.post("/environments/{name}/test", responses=problems(404))
def test_environment(request: Request, name: Name, actor: Actor) -> list[EnvironmentCheckOut]:
    """Really connect to its target, and look for its secrets."""
    state = request.app.state
    with state.database.connect() as connection:
        found = store.get_environment(connection, name)
    checks = try_environment(found, state.settings, state.database)
    access.record(state.database, actor, "environment.test", name, passed=all(check.passed for check in checks))
    return [EnvironmentCheckOut.of(check) for check in checks]


@router.post("/environments/{name}/hold", responses={**problems(400, 404, 409, 413), **_GIVEN})
def hold_environment(request: Request, response: Response, name: Name, new: NewHold, actor: Actor) -> EnvironmentOut:
    """Hold an environment: runs that would deploy there wait until it is let go."""
    with _changing(request, actor) as (connection, person):
        return _tagged(response, store.hold(connection, name, person, new.why))


@router.delete("/environments/{name}/hold", responses={**problems(404, 409), **_GIVEN})
def release_environment(request: Request, response: Response, name: Name, actor: Actor) -> EnvironmentOut:
    """Let an environment go; what waits for it goes on."""
    with _changing(request, actor) as (connection, person):
        return _tagged(response, store.let_go(connection, name, person))


@router.post(
    "/environments/{name}/freezes/override",
    status_code=HTTPStatus.CREATED,
    responses=problems(400, 403, 404, 409, 413),
)
def override_freeze(request: Request, name: Name, new: NewOverride, actor: Actor) -> OverrideOut:
    """Lift a freeze until it would end by itself; only for who is on its list."""
    with _changing(request, actor) as (connection, person):
        made = store.lift(connection, name, new.freeze, person, why=new.why)
    return OverrideOut(freeze=made.freeze, until=made.until)


@router.get("/environments/{name}/waiting", responses=problems(404))
def list_waiting(request: Request, name: Name) -> list[WaitOut]:
    """Deployments that wait for a time, or for the environment to be let go; the oldest first."""
    with request.app.state.database.connect() as connection:
        store.get_environment(connection, name)
        return [WaitOut.of(wait) for wait in waiting.list_waits(connection, name)]


@router.delete("/environments/{name}/waiting/{run_id}", status_code=HTTPStatus.NO_CONTENT, responses=problems(404))
def drop_waiting(request: Request, name: Name, run_id: Name, actor: Actor) -> None:
    """A deployment waits no more, and is not carried out."""
    database = request.app.state.database
    with database.connect() as connection:
        person = person_of(connection, actor)
    waiting.drop(database, name, run_id, person)
