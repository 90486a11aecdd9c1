"""/users, /groups and /tokens: people, which groups they are in, and what their tokens let them do."""

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from penstock.api.access import Actor, record_in
from penstock.api.paging import PAGED, link_next, read_cursor, write_cursor
from penstock.api.problems import problems
from penstock.people import NAME, groups, tokens, users
from penstock.people.tokens import Scope
from penstock.people.users import User
from penstock.pipeline.log import utc_now

router = APIRouter(tags=["people"])

Who = Annotated[str, StringConstraints(pattern=NAME)]
_Named = Annotated[str, Path(pattern=NAME, description="The name.")]
_Address = Annotated[str, StringConstraints(min_length=3, max_length=320, pattern=r"^[^\x00-\x20@]+@[^\x00-\x20@]+$")]
_Called = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Limit = Annotated[int, Query(ge=1, le=1000)]
_Cursor = Annotated[str | None, Query(max_length=1000, description="Of the Link header of the page before.")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


class NewUser(_Model):
    """A person. git_names, git_mails: what else commits and forges call them."""

    name: Who = Field(examples=["ada"])
    mail: _Address | None = Field(None, examples=["ada@example.org"])
    git_names: tuple[_Called, ...] = Field((), max_length=50, examples=[["Ada Lovelace"]])
    git_mails: tuple[_Address, ...] = Field((), max_length=50)
    is_local: bool = Field(default=False, description="Whether this machine's own token speaks for them.")


class UserChange(_Model):
    """What is to change; what is left out stays."""

    mail: _Address | None = None
    git_names: tuple[_Called, ...] = Field((), max_length=50)
    git_mails: tuple[_Address, ...] = Field((), max_length=50)
    is_local: bool = False


class UserOut(_Model):
    """A person."""

    name: str
    mail: str | None
    git_names: tuple[str, ...]
    git_mails: tuple[str, ...]
    is_local: bool


class NewGroup(_Model):
    """A group, and users to put into it."""

    name: Who = Field(examples=["release-managers"])
    members: tuple[Who, ...] = Field((), max_length=1000)


class GroupOut(_Model):
    """A group, and who is in it."""

    name: str
    members: tuple[str, ...]


class NewToken(_Model):
    """A token for a user."""

    user: Who = Field(examples=["ada"])
    scopes: tuple[Scope, ...] = Field(min_length=1, max_length=4, description="admin includes the others.")
    expires_in_days: int | None = Field(90, ge=1, le=3650, description="null: never.")
    label: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


class TokenOut(_Model):
    """A token without its secret."""

    id: str
    subject: str
    scopes: tuple[Scope, ...]
    label: str
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None = Field(description="About when it was last used, to five minutes.")


class TokenMade(_Model):
    """A new token. secret: shown this once."""

    token: TokenOut
    secret: str


@router.get("/users", responses=PAGED)
def list_users(request: Request, response: Response, limit: _Limit = 50, cursor: _Cursor = None) -> list[UserOut]:
    """Every person, by name."""
    with request.app.state.database.connect() as connection:
        found = users.list_users(connection, after=_after(cursor), limit=limit + 1)
    return [UserOut.model_validate(one) for one in _page(request, response, found, limit, "name")]


@router.post("/users", status_code=HTTPStatus.CREATED, responses=problems(400, 409, 413))
def add_user(request: Request, new: NewUser, actor: Actor) -> UserOut:
    """Make a person known."""
    with request.app.state.database.begin() as connection:
        made = users.add_user(connection, User(**new.model_dump()))
        record_in(connection, actor, "user.add", new.name, **new.model_dump(exclude={"name"}))
    return UserOut.model_validate(made)


@router.get("/users/{name}", responses=problems(404))
def show_user(request: Request, name: _Named) -> UserOut:
    """One person."""
    with request.app.state.database.connect() as connection:
        return UserOut.model_validate(users.get_user(connection, name))


@router.patch("/users/{name}", responses=problems(400, 404, 413))
def edit_user(request: Request, name: _Named, change: UserChange, actor: Actor) -> UserOut:
    """Change a person."""
    given = change.model_dump(exclude_unset=True)
    with request.app.state.database.begin() as connection:
        changed = users.edit_user(connection, name, given)
        record_in(connection, actor, "user.edit", name, **given)
    return UserOut.model_validate(changed)


@router.delete("/users/{name}", status_code=HTTPStatus.NO_CONTENT, responses=problems(404))
def remove_user(request: Request, name: _Named, actor: Actor) -> None:
    """Forget a person, with tokens and memberships; what the person said stays on record."""
    with request.app.state.database.begin() as connection:
        users.remove_user(connection, name)
        record_in(connection, actor, "user.remove", name)


@router.get("/groups", responses=PAGED)
def list_groups(request: Request, response: Response, limit: _Limit = 50, cursor: _Cursor = None) -> list[GroupOut]:
    """Every group and who is in it, by name."""
    with request.app.state.database.connect() as connection:
        found = groups.list_groups(connection, after=_after(cursor), limit=limit + 1)
    return [GroupOut.model_validate(one, extra="ignore") for one in _page(request, response, found, limit, "name")]


@router.post("/groups", status_code=HTTPStatus.CREATED, responses=problems(400, 404, 409, 413))
def add_group(request: Request, new: NewGroup, actor: Actor) -> GroupOut:
    """Make a group."""
    with request.app.state.database.begin() as connection:
        made = groups.add_group(connection, new.name, new.members)
        record_in(connection, actor, "group.add", new.name, members=new.members)
    return GroupOut.model_validate(made)


@router.get("/groups/{name}", responses=problems(404))
def show_group(request: Request, name: _Named) -> GroupOut:
    """One group."""
    with request.app.state.database.connect() as connection:
        return GroupOut.model_validate(groups.get_group(connection, name))


@router.delete("/groups/{name}", status_code=HTTPStatus.NO_CONTENT, responses=problems(404))
def remove_group(request: Request, name: _Named, actor: Actor) -> None:
    """Remove a group; its people stay. A gate that asks only this group can be opened by nobody then."""
    with request.app.state.database.begin() as connection:
        groups.remove_group(connection, name)
        record_in(connection, actor, "group.remove", name)


@router.put("/groups/{name}/members/{user}", responses=problems(404))
def add_member(request: Request, name: _Named, user: _Named, actor: Actor) -> GroupOut:
    """Put a user into a group; who is in it already stays."""
    with request.app.state.database.begin() as connection:
        groups.add_member(connection, name, user)
        record_in(connection, actor, "group.join", name, user=user)
        return GroupOut.model_validate(groups.get_group(connection, name))


@router.delete("/groups/{name}/members/{user}", status_code=HTTPStatus.NO_CONTENT, responses=problems(404))
def remove_member(request: Request, name: _Named, user: _Named, actor: Actor) -> None:
    """Take a user out of a group; approvals of theirs that the group made count, and are not used, count no more."""
    with request.app.state.database.begin() as connection:
        groups.remove_member(connection, name, user)
        record_in(connection, actor, "group.leave", name, user=user)


@router.get("/tokens", responses=PAGED)
def list_tokens(
    request: Request,
    response: Response,
    user: Annotated[Who | None, Query(description="Only this user's.")] = None,
    limit: _Limit = 50,
    cursor: _Cursor = None,
) -> list[TokenOut]:
    """The tokens of users, without their secrets."""
    with request.app.state.database.connect() as connection:
        found = tokens.list_tokens(connection, user=user, after=_after(cursor), limit=limit + 1)
    return [TokenOut.model_validate(one) for one in _page(request, response, found, limit, "id")]


@router.post("/tokens", status_code=HTTPStatus.CREATED, responses=problems(400, 404, 413))
def create_token(request: Request, response: Response, new: NewToken, actor: Actor) -> TokenMade:
    """Make a token; its secret is in this answer and nowhere else."""
    until = utc_now() + timedelta(days=new.expires_in_days) if new.expires_in_days else None
    with request.app.state.database.begin() as connection:
        made, secret = tokens.create_token(connection, new.user, new.scopes, expires_at=until, label=new.label)
        told = {"id": made.id, "scopes": made.scopes, "label": new.label, "days": new.expires_in_days}
        record_in(connection, actor, "token.create", new.user, **told)
    response.headers["Cache-Control"] = "no-store"
    return TokenMade(token=TokenOut.model_validate(made), secret=secret)


@router.delete("/tokens/{token_id}", status_code=HTTPStatus.NO_CONTENT, responses=problems(404))
def revoke_token(
    request: Request,
    token_id: Annotated[str, Path(pattern=r"^[0-9a-f]{8}$", description="Its identifier.")],
    actor: Actor,
) -> None:
    """Make a token worth nothing, at once."""
    with request.app.state.database.begin() as connection:
        gone = tokens.revoke_token(connection, token_id)
        record_in(connection, actor, "token.revoke", gone.subject, id=token_id)


def _after(cursor: str | None) -> str:
    return read_cursor(cursor)[1] if cursor else ""


def _page(request: Request, response: Response, found: tuple[Any, ...], limit: int, key: str) -> tuple[Any, ...]:
    """What belongs to this page; the Link header says where the next one is."""
    if len(found) > limit:
        last = found[limit - 1]
        link_next(request, response, write_cursor(last.created_at or utc_now(), getattr(last, key)))
    return found[:limit]
