"""The application: routes, who may call them, and how errors are said."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException as StarletteHTTPException

from penstock import __version__
from penstock.api import events, projects, runs
from penstock.api.tokens import subject_of
from penstock.errors import AccessError, ConflictError, InputError, NotFoundError, PenstockError, PlatformError
from penstock.events.dispatcher import Dispatcher
from penstock.platform.dagster import DagsterClient
from penstock.settings import Settings
from penstock.state.database import create_engine

_STATUS: tuple[tuple[type[PenstockError], HTTPStatus], ...] = (
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
    (AccessError, HTTPStatus.UNAUTHORIZED),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (PlatformError, HTTPStatus.SERVICE_UNAVAILABLE),
)
_bearer = HTTPBearer(auto_error=False, description="The token that lies in PENSTOCK_HOME/token.")


def authorised(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> str:
    """Whose token came along. Raises: AccessError."""
    subject = subject_of(request.app.state.database, given.credentials) if given else None
    if subject is None:
        raise AccessError("a valid token is needed", remedy="send `Authorization: Bearer` and a token")
    return subject


def create_app(settings: Settings) -> FastAPI:
    """The API over the database and the Dagster of these settings."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.dispatcher.start()
        yield
        app.state.dispatcher.stop()
        app.state.database.dispose()

    app = FastAPI(title="Penstock", version=__version__, lifespan=lifespan, docs_url="/docs", redoc_url=None)
    app.state.settings = settings
    app.state.database = create_engine(settings, pool_size=10)
    app.state.dagster = DagsterClient.at(settings.dagster_url)
    app.state.dispatcher = Dispatcher(app.state.database, settings, app.state.dagster)
    for router in (projects.router, events.router, runs.router):
        app.include_router(router, prefix="/api/v1", dependencies=[Depends(authorised)])
    app.get("/api/v1/health", tags=["health"])(health)
    app.add_exception_handler(PenstockError, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(sa.exc.OperationalError, _database_away)
    app.add_exception_handler(StarletteHTTPException, _refused)
    return app


def health(request: Request) -> dict[str, str]:
    """Whether the API works; asks the database. Needs no token."""
    with request.app.state.database.connect() as connection:
        connection.execute(sa.select(1))
    return {"status": "ok", "version": __version__}


async def _problem(_: Request, error: Exception) -> JSONResponse:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    return problem(status, str(error))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{where}: {first['msg']}")


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """No such address, no such method, a body that cannot be read."""
    assert isinstance(error, StarletteHTTPException)
    return problem(HTTPStatus(error.status_code), str(error.detail))


async def _database_away(_: Request, __: Exception) -> JSONResponse:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer; try again")


def problem(status: HTTPStatus, detail: str) -> JSONResponse:
    """An error as RFC 9457 wants it, in the words of the command line."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    return JSONResponse(body, status, headers=headers, media_type="application/problem+json")
