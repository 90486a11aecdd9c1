"""The application: routes, who may call them, and what it keeps open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from penstock import __version__
from penstock.answers.deliver import Deliverer
from penstock.api import (
    approval_links,
    approvals,
    artifacts,
    audit,
    connections,
    environments,
    events,
    logs,
    people,
    pipelines,
    plugin_data,
    plugins,
    projects,
    releases,
    runs,
    step_types,
    webhooks,
)
from penstock.api.access import authorised
from penstock.api.bodies import BodyLimit
from penstock.api.limits import Limits
from penstock.api.problems import Problem, add_handlers, problems
from penstock.api.queries import only_known
from penstock.api.uploads import upload_threads
from penstock.artifacts import open_store
from penstock.deploy.carrying import Carrier
from penstock.environments.waiting import watcher
from penstock.events.dispatcher import Dispatcher
from penstock.notify.mailer import Mailer
from penstock.pipeline.continuing import continuer
from penstock.platform.dagster import DagsterClient
from penstock.settings import Settings
from penstock.state.database import create_engine

PREFIX = "/api/v1"
_ROUTERS = (
    *(projects, connections, events, runs, logs, artifacts, pipelines, plugins, step_types, webhooks),
    *(environments, approvals, people, audit, releases),
)
_TAGS = [
    {"name": "projects", "description": "Connected repositories."},
    {"name": "events", "description": "What came in, and what became of it."},
    {"name": "hooks", "description": "Where forges tell what happened, and what they told."},
    {"name": "runs", "description": "A graph at a commit, and how it ended."},
    {"name": "logs", "description": "What steps printed."},
    {"name": "artifacts", "description": "Bytes by their SHA-256."},
    environments.TAG,
    {"name": "releases", "description": "What is live where, what was, and how one takes over from another."},
    {"name": "approvals", "description": "Gates that wait for people, and what people have said."},
    {"name": "people", "description": "Users, groups, and tokens with what they let do."},
    {"name": "audit", "description": "Who changed what, when."},
    {"name": "pipelines", "description": "What may stand in penstock.yaml, and whether it is right."},
    {"name": "plugin data", "description": "What plugins tell each other; opened by the tokens of their steps alone."},
    {"name": "plugins", "description": "What is installed, what can be, and who uses it."},
    {"name": "health", "description": "Whether the API works."},
]


class Health(BaseModel):
    """That the API works, and its version."""

    status: str
    version: str


def create_app(settings: Settings, limits: Limits | None = None) -> FastAPI:
    """The API over the database, the artifact store and the Dagster of these settings."""
    app = FastAPI(
        title="Penstock",
        version=__version__,
        lifespan=_lifespan,
        docs_url="/docs",
        redoc_url=None,
        openapi_tags=_TAGS,
        generate_unique_id_function=_operation_id,
    )
    _open(app, settings, limits or Limits())
    for module in _ROUTERS:
        needs, told = [Depends(authorised), Depends(only_known)], problems(401, 403, 422, 503)
        app.include_router(module.router, prefix=PREFIX, dependencies=needs, responses=told)
    app.include_router(webhooks.open_router, prefix=PREFIX)
    app.include_router(approval_links.router, prefix=PREFIX)
    app.include_router(plugin_data.router, prefix=PREFIX)
    app.get(f"{PREFIX}/health", tags=["health"], responses=problems(503))(health)
    app.add_middleware(BodyLimit, limit_bytes=app.state.limits.body_bytes)
    add_handlers(app)
    _complete_document(app)
    return app


def _open(app: FastAPI, settings: Settings, limits: Limits) -> None:
    """What routes find in `app.state`."""
    app.state.settings, app.state.limits = settings, limits
    app.state.database = create_engine(settings, pool_size=10)
    app.state.store = open_store(settings.artifacts_path)
    app.state.uploads = upload_threads()
    app.state.dagster = DagsterClient.at(settings.dagster_url)
    app.state.dispatcher = Dispatcher(app.state.database, settings, app.state.dagster)
    app.state.answers = Deliverer(app.state.database, settings)
    app.state.rollouts = Carrier(app.state.database, settings)
    app.state.approvals = continuer(app.state.database, app.state.dagster)
    app.state.waits = watcher(app.state.database, app.state.dagster)
    app.state.mails = Mailer(app.state.database, settings)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.dispatcher.start()
    app.state.answers.start()
    app.state.rollouts.start()
    app.state.approvals.start()
    app.state.waits.start()
    app.state.mails.start()
    yield
    app.state.mails.stop()
    app.state.waits.stop()
    app.state.approvals.stop()
    app.state.rollouts.stop()
    app.state.answers.stop()
    app.state.dispatcher.stop()
    app.state.database.dispose()


def health(request: Request) -> Health:
    """Whether the API works; asks the database. Needs no token."""
    with request.app.state.database.connect() as connection:
        connection.execute(sa.select(1))
    return Health(status="ok", version=__version__)


def _operation_id(route: APIRoute) -> str:
    """The function's name: short, and the same for as long as the function is."""
    return route.name


def _complete_document(app: FastAPI) -> None:
    """Add what FastAPI leaves out: the model of problems, which no route returns itself."""
    original = app.openapi

    def complete() -> dict[str, Any]:
        document = original()
        model = Problem.model_json_schema()
        document["components"]["schemas"].setdefault("Problem", model)
        return document

    app.openapi = complete  # type: ignore[method-assign]
