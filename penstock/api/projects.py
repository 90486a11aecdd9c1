"""/projects: connected repositories."""

from http import HTTPStatus

from fastapi import APIRouter, Request

from penstock.api.models import NewProject, ProjectOut
from penstock.sources import projects

router = APIRouter(tags=["projects"])


@router.get("/projects")
def list_projects(request: Request) -> list[ProjectOut]:
    """Every connected repository, by name."""
    return [ProjectOut.of(project) for project in projects.list_projects(request.app.state.database)]


@router.post("/projects", status_code=HTTPStatus.CREATED)
def add_project(request: Request, new: NewProject) -> ProjectOut:
    """Connect a repository; asks it for its default branch."""
    return ProjectOut.of(projects.add_project(request.app.state.database, new.name, new.url))


@router.get("/projects/{name}")
def show_project(request: Request, name: str) -> ProjectOut:
    """One repository."""
    return ProjectOut.of(projects.get_project(request.app.state.database, name))


@router.delete("/projects/{name}", status_code=HTTPStatus.NO_CONTENT)
def remove_project(request: Request, name: str) -> None:
    """Disconnect a repository; its history stays."""
    projects.remove_project(request.app.state.database, name)
