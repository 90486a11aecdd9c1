"""/connections: connect repositories to their forges, try and change that, and commit a pipeline to a branch."""

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from penstock.api import access
from penstock.api.access import Actor
from penstock.api.models import Commit, Name, PipelineOut, ProjectOut
from penstock.api.problems import problems
from penstock.connecting import editing
from penstock.connecting.connect import Connected, Connecting, Wanted, change, connect, connecting, disconnect
from penstock.connecting.trying import Check, try_connection
from penstock.sources.projects import Project, get_project
from penstock.vault import LARGEST_BYTES

router = APIRouter(tags=["projects"])

Secret = Annotated[SecretStr, Field(max_length=LARGEST_BYTES)]
_Url = Annotated[Name, Field(max_length=2000)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewConnection(_Model):
    """A repository to connect. Secrets go to the vault and are never told again."""

    url: _Url = Field(examples=["https://git.example/shop.git"])
    name: Name | None = Field(None, description="Default: the repository's name.")
    forge: Name | None = Field(None, description="Default: found out; `git` for none.")
    login: Secret | None = Field(None, description="For git: `user:token`, a token, or an SSH key.")
    token: Secret | None = Field(None, description="For the forge's API; default: the login's.")
    hook: bool = Field(default=True, description="Whether the forge is to tell of events.")
    public_url: _Url | None = Field(None, description="Where the forge reaches this API.")
    api_url: _Url | None = Field(None, description="Where the forge's API begins; default: by the address.")
    answers: bool = Field(default=True, description="Tell the forge how runs stand, where there is a token.")


class ConnectionChange(_Model):
    """What is to change; what is left out stays. An empty login or token forgets it."""

    login: Secret | None = None
    token: Secret | None = None
    default_branch: Name | None = None
    polled: bool | None = None
    hook: bool = Field(default=False, description="Make the hook if it is not there.")
    public_url: _Url | None = None


class ConnectionOut(_Model):
    """How a repository is reached: names and facts, no secret. answers: whether its forge is told how runs stand."""

    project: ProjectOut
    forge: str
    api_url: str | None
    has_login: bool
    has_token: bool
    hook: str | None
    forge_hook: str | None
    answers: bool

    @classmethod
    def of(cls, room: Connecting, project: Project) -> "ConnectionOut":
        place, known = room.place_of(project), project.connection
        return cls(
            project=ProjectOut.of(project),
            forge=place.forge,
            api_url=place.api_url,
            has_login=known.login is not None,
            has_token=known.token is not None,
            hook=known.hook,
            forge_hook=known.forge_hook,
            answers=room.is_answered(project),
        )


class ConnectedOut(_Model):
    """done: what is set up. left: what a person has to do, with the hook's secret this once."""

    connection: ConnectionOut
    done: tuple[str, ...]
    left: tuple[str, ...]

    @classmethod
    def of(cls, room: Connecting, made: Connected) -> "ConnectedOut":
        return cls(connection=ConnectionOut.of(room, made.project), done=made.done, left=made.left)


class CheckOut(_Model):
    """One thing that was really tried."""

    name: str
    verdict: Literal["ok", "missing", "wrong"]
    told: str

    @classmethod
    def of(cls, check: Check) -> "CheckOut":
        return cls(name=check.name, verdict=check.verdict, told=check.told)


class DraftOut(_Model):
    """A penstock.yaml as it is on a branch."""

    branch: str
    commit: str | None
    text: str
    branches: tuple[str, ...]


class NewDraft(_Model):
    """A penstock.yaml as somebody writes it. base: the commit that was read."""

    text: str = Field(description="At most 1 MB.")
    base: Commit | None = None


class NewCommit(NewDraft):
    """A penstock.yaml for a branch."""

    branch: Annotated[Name, Field(max_length=200)]
    message: Annotated[str, Field(min_length=1, max_length=5000)]


class CommitOut(_Model):
    """The commit that was pushed."""

    commit: str
    branch: str


def _room(request: Request) -> Connecting:
    return connecting(request.app.state.settings, request.app.state.database)


@router.post("/connections", status_code=HTTPStatus.CREATED, responses=problems(400, 404, 409, 413))
def connect_repository(request: Request, new: NewConnection, actor: Actor) -> ConnectedOut:
    """Connect a repository: ask it, keep its secrets in the vault, make the hook at its forge where the token may."""
    room = _room(request)
    login = new.login.get_secret_value().encode("utf-8", "surrogatepass") if new.login else None
    token = new.token.get_secret_value() if new.token else None
    given = (new.url, new.name, new.forge, login or None, token or None, new.hook, new.public_url, new.api_url)
    made = connect(room, Wanted(*given, answers=new.answers))
    access.record(room.database, actor, "project.add", made.project.name, url=made.project.url)
    return ConnectedOut.of(room, made)


@router.get("/connections/{name}", responses=problems(404))
def show_connection(request: Request, name: Name) -> ConnectionOut:
    """How a repository is reached."""
    room = _room(request)
    return ConnectionOut.of(room, get_project(room.database, name))


@router.patch("/connections/{name}", responses=problems(400, 404, 409, 413))
def change_connection(request: Request, name: Name, new: ConnectionChange, actor: Actor) -> ConnectedOut:
    """Change how a repository is reached. A login that the repository refuses is not kept."""
    room = _room(request)
    made = change(
        room,
        name,
        login=None if new.login is None else new.login.get_secret_value().encode("utf-8", "surrogatepass"),
        token=None if new.token is None else new.token.get_secret_value(),
        default=new.default_branch,
        polled=new.polled,
        hook=new.hook,
        public_url=new.public_url,
    )
    access.record(room.database, actor, "project.change", name, fields=sorted(new.model_fields_set))
    return ConnectedOut.of(room, made)


@router.delete("/connections/{name}", responses=problems(404))
def disconnect_repository(request: Request, name: Name, actor: Actor) -> list[str]:
    """Disconnect a repository and remove its hook at the forge. Returns what a person has still to remove."""
    room = _room(request)
    gone = disconnect(room, name)
    access.record(room.database, actor, "project.remove", name)
    return list(gone.left)


@router.post("/connections/{name}/test", responses=problems(404))
def test_connection(request: Request, name: Name, actor: Actor) -> list[CheckOut]:
    """Really try git, the token, the hook, and a trial delivery."""
    room = _room(request)
    found = try_connection(room, name)
    access.record(room.database, actor, "project.test", name)
    return [CheckOut.of(check) for check in found]


@router.get("/connections/{name}/pipeline", responses=problems(404))
def read_pipeline(
    request: Request, name: Name, branch: Annotated[Name | None, Query(max_length=200)] = None
) -> DraftOut:
    """The penstock.yaml of a branch, empty where there is none; default: the default branch."""
    room = _room(request)
    draft = editing.read(room, name, branch)
    return DraftOut(branch=draft.branch, commit=draft.commit, text=draft.text, branches=editing.branches(room, name))


@router.post("/connections/{name}/pipeline/check", responses=problems(400, 404, 413))
def check_draft(request: Request, name: Name, new: NewDraft) -> PipelineOut:
    """Compile a penstock.yaml on top of a commit, with that commit's templates; what is wrong is one line (422)."""
    return PipelineOut.of(editing.check(_room(request), name, new.text, base=new.base))


@router.post("/connections/{name}/pipeline", status_code=HTTPStatus.CREATED, responses=problems(400, 404, 409, 413))
def commit_pipeline(request: Request, name: Name, new: NewCommit, actor: Actor) -> CommitOut:
    """Commit a penstock.yaml to a branch, new or at `base`, and push it where the login may."""
    room = _room(request)
    commit = editing.write(
        room, name, new.text, branch=new.branch, base=new.base, message=new.message, author=f"{actor} (Penstock)"
    )
    access.record(room.database, actor, "pipeline.commit", name, branch=new.branch, commit=commit)
    request.app.state.dispatcher.wake()
    return CommitOut(commit=commit, branch=new.branch)
