"""
/plugin-data: what plugins tell, and what other plugins of the same tenant and project told.

Only tokens of plugins open it (`ppd_…`), each bound to one step; nobody names a tenant or project to read from.
"""

import asyncio
import json
import logging
import math
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from typing import IO, Annotated, Any, Literal

import attrs
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.concurrency import run_in_threadpool

from penstock.api.bodies import told_length, too_large
from penstock.api.models import Moment, Name
from penstock.api.paging import PAGED, link_next
from penstock.api.problems import HttpError, problems
from penstock.api.queries import only_known
from penstock.errors import AccessError, ForbiddenError, PlatformError, SettingsError
from penstock.plugins.data import PluginData, Scope, Taken, bounded_lines
from penstock.plugins.data.chunks import Kind
from penstock.plugins.data.limits import MIB, DataLimits
from penstock.plugins.data.messages import Answer
from penstock.plugins.data.mover import Mover
from penstock.plugins.data.queries import Queries, Wanted
from penstock.plugins.data.rates import Rate, TooFast
from penstock.rounds import Rounds
from penstock.settings import Settings, is_loopback
from penstock.warehouse import Location, Warehouse, warehouse_location

BODY_BYTES = 64 * MIB
BODY_LIMIT_S = 60.0
PIECE_BYTES = 256 * 1024
MOVE_EVERY_S = 5.0

_log = logging.getLogger(__name__)


@attrs.frozen
class _Desk:
    """What the routes share."""

    store: PluginData
    queries: Queries | None
    telling: Rate
    asking: Rate


@asynccontextmanager
async def _working(app: FastAPI) -> AsyncIterator[None]:
    """The mover and the room live as long as the application."""
    state = app.state
    limits: DataLimits = state.limits.plugin_data
    location = _location(state.settings)
    queries = Queries(state.database, location, limits) if location else None
    telling, asking = Rate(limits.lines_per_s, limits.burst_lines), Rate(limits.asks_per_s, limits.burst_asks)
    state.plugin_data = _Desk(PluginData(state.database, state.settings, limits), queries, telling, asking)
    if location is None or queries is None:
        yield
        return
    with Warehouse(location) as warehouse:
        rounds = Rounds("plugin-data", Mover(state.database, warehouse, limits).round, every_s=MOVE_EVERY_S)
        rounds.start()
        yield
        await run_in_threadpool(rounds.stop)
        await run_in_threadpool(queries.close)


def _location(settings: Settings) -> Location | None:
    try:
        return warehouse_location(settings)
    except SettingsError as error:
        _log.warning("what plugins tell waits: %s", error)
        return None


router = APIRouter(prefix="/plugin-data", tags=["plugin data"], lifespan=_working)

_bearer = HTTPBearer(
    auto_error=False, scheme_name="PluginToken", description="The token that a plugin's step was given."
)


def _teller(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Scope:
    """
    Whose token came along.

    Raises: ForbiddenError where it came over the network in plain text, AccessError when it is nobody's.
    """
    if request.url.scheme != "https" and request.client and not is_loopback(request.client.host):
        raise ForbiddenError("a token came over the network in plain text", remedy="use https")
    scope = _desk(request).store.scope_of(given.credentials) if given else None
    if scope is None:
        raise AccessError("a plugin's token is needed, of a step that is at work")
    return scope


Teller = Annotated[Scope, Depends(_teller)]


def _desk(request: Request) -> _Desk:
    found: _Desk = request.app.state.plugin_data
    return found


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TakenOut(_Model):
    """What became of the lines. reasons: why lines were rejected, the first ones. is_cut: the step's limit came."""

    accepted: int
    rejected: int
    reasons: tuple[str, ...]
    is_cut: bool


class _Row(_Model):
    seq: int = Field(description="Ascends in the order in which rows came.")
    tenant: str
    project: str
    commit: str
    run_id: str
    step: str
    plugin: str
    environment: str | None
    received_at: datetime


class MetricOut(_Row):
    """A metric that a plugin told."""

    name: str
    value: float
    unit: str | None
    kind: Literal["gauge", "counter", "histogram"]
    labels: dict[str, str]
    measured_at: datetime


class DatumOut(_Row):
    """Anything else that a plugin told."""

    kind: str
    key: str | None
    value: JsonValue


class _RowsQuery(_Model):
    tenant: Name | None = Field(None, description="Of another there is nothing to be found; asking is audited.")
    project: Name | None = Field(None, description="Of another there is nothing to be found; asking is audited.")
    plugin: Name | None = None
    commit: Name | None = None
    run_id: Name | None = None
    step: Name | None = None
    environment: Name | None = None
    since: Moment | None = None
    until: Moment | None = Field(None, description="Up to this moment, without it.")
    cursor: int | None = Field(None, ge=0, le=2**62, description="From the Link header of the page before.")
    limit: int = Field(50, ge=1, le=1000)


class MetricsQuery(_RowsQuery):
    """Which metrics. since, until: of the measurement."""

    name: Name | None = None


class DataQuery(_RowsQuery):
    """Which data. since, until: of its arrival."""

    kind: Name | None = None
    key: Annotated[Name, Field(max_length=1024)] | None = None


class SqlIn(_Model):
    """One SELECT over `plugin_metrics` and `plugin_data`."""

    sql: str = Field(min_length=1, max_length=20_000, examples=["SELECT name, max(value) FROM plugin_metrics"])


class ColumnOut(_Model):
    """A column of an answer. type: DuckDB's word."""

    name: str
    type: str


class SqlOut(_Model):
    """Rows of an answer. is_cut: there were more, or they were too large."""

    columns: tuple[ColumnOut, ...]
    rows: tuple[tuple[JsonValue, ...], ...]
    is_cut: bool


_LATER: dict[int | str, dict[str, Any]] = {
    429: {
        **problems(503)[503],
        "description": "Too much at once; come again after Retry-After.",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    }
}
_LINES = {"schema": {"type": "string", "format": "binary"}}
_NDJSON = {
    "requestBody": {
        "required": True,
        "content": {"application/x-ndjson": _LINES, "application/octet-stream": _LINES},
    }
}
_TELL = problems(400, 401, 403, 409, 413, 415, 422, 503) | _LATER
_ASK = problems(401, 403, 422, 503) | _LATER


Key = Annotated[
    str | None,
    Header(
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Names these lines among those of the step; sent again under it, they are there once.",
    ),
]


@router.post("/metrics", openapi_extra=_NDJSON, responses=_TELL)
async def tell_metrics(request: Request, scope: Teller, idempotency_key: Key = None) -> TakenOut:
    """
    Publish metrics, one JSON object a line: `name`, `value`, and if you like `unit`, `kind`, `labels`, `at`.

    Answered when they are on disk. Lines that are broken are left out and counted; when they are more than half,
    nothing is taken (422).
    """
    return await _take(request, scope, _desk(request).store.take_metrics, idempotency_key)


@router.post("/data", openapi_extra=_NDJSON, responses=_TELL)
async def tell_data(request: Request, scope: Teller, idempotency_key: Key = None) -> TakenOut:
    """Publish anything else, one JSON object a line: `kind`, `value`, and if you like `key`. As for metrics."""
    return await _take(request, scope, _desk(request).store.take_data, idempotency_key)


_Take = Callable[[Scope, Iterable[bytes], str | None], Taken]


async def _take(request: Request, scope: Scope, take: _Take, key: str | None) -> TakenOut:
    rate, limits = _desk(request).telling, _desk(request).store.limits
    _wait_your_turn(rate, scope)
    with tempfile.SpooledTemporaryFile(max_size=MIB) as body:
        size = await _receive(request, body)
        rate.charge(scope, size / 1024)
        body.seek(0)
        pieces = iter(lambda: body.read(PIECE_BYTES), b"")
        taken = await run_in_threadpool(take, scope, bounded_lines(pieces, limits.line_bytes), key)
    rate.charge(scope, max(0.0, taken.accepted + taken.rejected - size / 1024))
    return TakenOut(**attrs.asdict(taken))


def _wait_your_turn(rate: Rate, scope: Scope) -> None:
    try:
        rate.check(scope)
    except TooFast as error:
        later = {"Retry-After": str(math.ceil(error.after_s) or 1)}
        raise HttpError(HTTPStatus.TOO_MANY_REQUESTS, "this step sends too much at once", later) from error


async def _receive(request: Request, body: IO[bytes]) -> int:
    """The whole body, before a thread takes it up: who is slow keeps none waiting. Returns: its bytes."""
    if told_length(request.scope) > BODY_BYTES:
        raise too_large(BODY_BYTES)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send it without Content-Encoding")
    size = 0
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            async for piece in request.stream():
                size += len(piece)
                if size > BODY_BYTES:
                    raise too_large(BODY_BYTES)
                body.write(piece)
    except TimeoutError:
        what = f"the body did not come within {BODY_LIMIT_S:g} s"
        raise HttpError(HTTPStatus.BAD_REQUEST, what, {"Connection": "close"}) from None
    return size


@router.get("/metrics", responses=PAGED | _ASK, dependencies=[Depends(only_known)])
def list_metrics(
    request: Request, response: Response, scope: Teller, query: Annotated[MetricsQuery, Query()]
) -> list[MetricOut]:
    """Metrics that plugins told of this tenant and project, newest first; the Link header says where it goes on."""
    return [MetricOut(**row) for row in _rows(request, response, scope, query)]


@router.get("/data", responses=PAGED | _ASK, dependencies=[Depends(only_known)])
def list_data(
    request: Request, response: Response, scope: Teller, query: Annotated[DataQuery, Query()]
) -> list[DatumOut]:
    """Data that plugins told of this tenant and project, newest first; the Link header says where it goes on."""
    return [DatumOut(**row) for row in _rows(request, response, scope, query)]


def _rows(request: Request, response: Response, scope: Scope, query: MetricsQuery | DataQuery) -> list[dict[str, Any]]:
    kind, what = (Kind.METRICS, query.name) if isinstance(query, MetricsQuery) else (Kind.DATA, query.kind)
    wanted = Wanted(**query.model_dump(exclude={"cursor", "name", "kind"}), what=what, before=query.cursor)
    answer = _asked(request, scope, lambda queries: queries.listed(scope, kind, wanted))
    rows = [_opened(kind, dict(zip(answer.columns, row, strict=True))) for row in answer.rows[: query.limit]]
    if rows and (len(answer.rows) > query.limit or answer.is_cut):
        link_next(request, response, str(rows[-1]["seq"]))
    return rows


def _opened(kind: Kind, row: dict[str, Any]) -> dict[str, Any]:
    """Texts that hold JSON, as JSON."""
    if kind is Kind.METRICS:
        return {**row, "labels": json.loads(row["labels"] or "{}"), "kind": row["kind"] or "gauge"}
    return {**row, "value": json.loads(row["value"])}


@router.post("/query", responses=_ASK | problems(400, 413))
def query_plugin_data(request: Request, scope: Teller, asked: SqlIn) -> SqlOut:
    """
    One SELECT over `plugin_metrics` and `plugin_data`, in DuckDB's SQL.

    Rows of other tenants and projects are not there; naming them, or reaching for files and settings, is audited.
    """
    answer = _asked(request, scope, lambda queries: queries.ask(scope, asked.sql))
    columns = tuple(ColumnOut(name=name, type=kind) for name, kind in zip(answer.columns, answer.types, strict=True))
    return SqlOut(columns=columns, rows=answer.rows, is_cut=answer.is_cut)


def _asked(request: Request, scope: Scope, ask: Callable[[Queries], Answer]) -> Answer:
    desk = _desk(request)
    if desk.queries is None:
        raise PlatformError("the warehouse cannot be reached", remedy="see logs/api.log")
    _wait_your_turn(desk.asking, scope)
    desk.asking.charge(scope, 1.0)
    return ask(desk.queries)
