"""/projects: connected repositories."""

from http import HTTPStatus

from fastapi import APIRouter, Request

from penstock.api import access
from penstock.api.access import Actor
from penstock.api.models import Name, NewProject, ProjectOut
from penstock.api.problems import problems
from penstock.connecting.connect import connecting, disconnect
from penstock.sources import projects
from penstock.sources.reaching import reach_of

router = APIRouter(tags=["projects"])


@router.get("/projects")
def list_projects(request: Request) -> list[ProjectOut]:
    """Every connected repository, by name."""
    return [ProjectOut.of(project) for project in projects.list_projects(request.app.state.database)]


@router.post("/projects", status_code=HTTPStatus.CREATED, responses=problems(400, 409, 413))
def add_project(request: Request, new: NewProject, actor: Actor) -> ProjectOut:
    """Connect a repository; asks it for its default branch."""
    database = request.app.state.database
    project = projects.add_project(database, new.name, new.url, reach=reach_of(request.app.state.settings))
    access.record(database, actor, "project.add", project.name, url=project.url)
    return ProjectOut.of(project)


@router.get("/projects/{name}", responses=problems(404))
def show_project(request: Request, name: Name) -> ProjectOut:
    """One repository."""
    return ProjectOut.of(projects.get_project(request.app.state.database, name))


@router.delete("/projects/{name}", status_code=HTTPStatus.NO_CONTENT, responses=problems(404))
def remove_project(request: Request, name: Name, actor: Actor) -> None:
    """Disconnect a repository, with its hook, its logins and secrets; its history stays."""
    state = request.app.state
    disconnect(connecting(state.settings, state.database), name)
    access.record(state.database, actor, "project.remove", name)
