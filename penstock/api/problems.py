"""How errors are said: RFC 9457's problem+json, in the words of the command line."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from penstock.errors import (
    AccessError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    PenstockError,
    PlatformError,
)

MEDIA_TYPE = "application/problem+json"
_STATUS: tuple[tuple[type[PenstockError], HTTPStatus], ...] = (
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (AccessError, HTTPStatus.UNAUTHORIZED),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (PlatformError, HTTPStatus.SERVICE_UNAVAILABLE),
)
_MEANING = {
    HTTPStatus.BAD_REQUEST: "The body cannot be read.",
    HTTPStatus.UNAUTHORIZED: "A valid token is needed.",
    HTTPStatus.FORBIDDEN: "The token, or the person whose it is, may not.",
    HTTPStatus.NOT_FOUND: "Nothing answers to that name.",
    HTTPStatus.NOT_ACCEPTABLE: "None of the media types asked for can be given.",
    HTTPStatus.CONFLICT: "It changed meanwhile, or something lives on it.",
    HTTPStatus.PRECONDITION_FAILED: "Somebody has changed it since it was read.",
    HTTPStatus.PRECONDITION_REQUIRED: "It is not said which version was read.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is larger than the limit.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is encoded in a way that is not understood.",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "There are no bytes where the request wants to begin.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "What was sent is wrong.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Not your fault: something that Penstock needs does not answer.",
}


class HttpError(StarletteHTTPException):
    """An error that only HTTP knows: too large, no such range, no such representation."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status.value, detail, headers)


class Problem(BaseModel):
    """An error. detail: the line that the command line prints; the other words are its parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(ge=400, le=599)
    detail: str = Field(
        min_length=1,
        examples=['penstock.yaml:14: steps.image.needs: no step is called "biuld"; did you mean "build"?'],
    )
    where: str | None = Field(None, description="A file with its line, a field, the name of a thing.")
    what: str | None = Field(None, description="What is wrong.")
    remedy: str | None = Field(None, description="What helps.")
    line: int | None = Field(None, ge=1, description="The line in the file.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses as OpenAPI declares them: each is a problem."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _MEANING[HTTPStatus(status)], "content": content} for status in statuses}


def answer(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None, **parts: Any) -> JSONResponse:
    """A problem as a response. parts: those of `Problem` that are known."""
    told = Problem(
        type="about:blank", title=status.phrase, status=status.value, detail=detail or status.phrase, **parts
    )
    challenge = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    body = told.model_dump(exclude_none=True)
    return JSONResponse(body, status, headers={**challenge, **(headers or {})}, media_type=MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Every error that a route can raise leaves as a problem."""
    app.add_exception_handler(PenstockError, _penstock)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(sa.exc.OperationalError, _database_away)
    app.add_exception_handler(sa.exc.TimeoutError, _database_away)
    app.add_exception_handler(Exception, _defect)


def status_of(error: PenstockError) -> HTTPStatus:
    """The status with which an error leaves."""
    return next((code for kind, code in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


async def _penstock(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PenstockError)
    status = status_of(error)
    line = re.match(r"[^:]*:(\d+)(?::|$)", error.where or "")
    number = int(line[1]) if line else None
    return answer(status, str(error), where=error.where, what=error.what, remedy=error.remedy, line=number)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    detail = f"{where}: {first['msg']}"
    return answer(HTTPStatus.UNPROCESSABLE_ENTITY, detail, where=where, what=str(first["msg"]))


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """No such address, no such method, a body that cannot be read."""
    assert isinstance(error, StarletteHTTPException)
    return answer(HTTPStatus(error.status_code), str(error.detail), error.headers)


async def _gone(_: Request, __: Exception) -> JSONResponse:
    """Nobody reads it: the client hung up before its body was complete."""
    return answer(HTTPStatus.BAD_REQUEST, "the body is not complete")


async def _database_away(_: Request, __: Exception) -> JSONResponse:
    return answer(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer; try again")


async def _defect(_: Request, __: Exception) -> JSONResponse:
    """The traceback goes to the API's own log."""
    return answer(HTTPStatus.INTERNAL_SERVER_ERROR, "a defect in Penstock; its log (logs/api.log) says more")
