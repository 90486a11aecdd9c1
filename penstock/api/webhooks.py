"""/hooks: forges tell what happened; people see what came in and what became of it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State

from penstock.api import access
from penstock.api.access import Actor
from penstock.api.bodies import told_length, too_large
from penstock.api.models import EventOut, Name
from penstock.api.problems import HttpError, problems
from penstock.events import inbox
from penstock.forges.clients import Link
from penstock.vault import open_vault
from penstock.webhooks import deliveries, hooks, sns
from penstock.webhooks.addresses import allowed_hosts
from penstock.webhooks.deliveries import Delivery
from penstock.webhooks.hooks import Hook
from penstock.webhooks.intake import Intake, Receipt, TooFast
from penstock.webhooks.processor import Processor
from penstock.webhooks.queues import QueueReaders, Room
from penstock.webhooks.rereading import Rereader

LARGEST_BODY_BYTES = 25 * 1024**2  # GitHub sends no more
MOST_HELD_BYTES = 200 * 1024**2  # of bodies that are being received, all together
BODY_LIMIT_S = 60.0
THREADS = 8
SWITCH_S = 0.001  # Python's 5 ms would be added whenever an answer meets a thread that is at work

Number = Annotated[int, Path(ge=1, le=2**62)]


@asynccontextmanager
async def _working(app: FastAPI) -> AsyncIterator[None]:
    """The intake's thread lives as long as the application."""
    state = app.state
    ask = getattr(state, "sns_get", sns.get)
    link = Link(allowed_hosts(state.settings))
    vault = partial(open_vault, state.settings)
    state.intake = Intake(state.database, vault(), certificates=sns.Certificates(ask))
    state.processor = Processor(state.database, state.dispatcher.wake, confirm=ask, tidy=state.intake.note_refused)
    reread = Rereader(state.database, vault, link)
    state.unsigned = Processor(state.database, state.dispatcher.wake, confirm=ask, reread=reread)
    state.queues = QueueReaders(Room(state.database, vault, link, state.processor.wake))
    state.held_bytes = 0
    # Few threads: they wait for one disk, and more of them only wait for each other.
    state.intake_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="intake")
    sys.setswitchinterval(SWITCH_S)
    state.processor.start()
    state.unsigned.start()
    state.queues.start()
    yield
    await run_in_threadpool(state.queues.stop)
    await run_in_threadpool(state.unsigned.stop)
    await run_in_threadpool(state.processor.stop)
    await run_in_threadpool(state.intake.note_refused)
    state.intake_threads.shutdown()


router = APIRouter(tags=["hooks"])
open_router = APIRouter(tags=["hooks"], lifespan=_working)  # a forge has no token: its signature is what counts


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DeliveryAnswer(_Model):
    """That a delivery is on disk. delivery: its number; nothing when it was told before."""

    status: Literal["accepted", "known"]
    delivery: int | None = None


class HookOut(_Model):
    """An address at which a forge tells of a project. Its secrets are in the vault and nowhere else."""

    id: str
    project: str
    forge: str
    repository: str | None
    path: str
    live_secrets: int
    created_at: datetime
    refused: int
    refused_at: datetime | None
    refused_reason: str | None

    @classmethod
    def of(cls, hook: Hook) -> "HookOut":
        told = {name: getattr(hook, name) for name in cls.model_fields if name != "live_secrets"}
        return cls(**told, live_secrets=len(hook.secrets))


class DeliveryOut(_Model):
    """A delivery and what became of it. events: {kind, ref, commit, became, reason, event}, in its order."""

    id: int
    hook: str
    project: str
    forge: str
    delivery_id: str | None
    state: Literal["received", "done", "ignored", "rejected"]
    reason: str | None
    events: list[dict[str, Any]]
    repeats: int
    replays: int
    received_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, delivery: Delivery) -> "DeliveryOut":
        return cls(**{name: getattr(delivery, name) for name in cls.model_fields})


_TOO_MANY: dict[int | str, dict[str, Any]] = {
    429: {**problems(503)[503], "description": "Too many at once; come again after Retry-After."}
}
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {}}}}}


@open_router.post(
    "/hooks/{hook_id}",
    status_code=HTTPStatus.ACCEPTED,
    openapi_extra=_BODY,
    responses=problems(400, 401, 404, 413, 422, 503) | _TOO_MANY,
)
async def receive_delivery(request: Request, hook_id: str) -> DeliveryAnswer:
    """A forge's delivery; needs no token but the forge's own signature. Answered when it is on disk."""
    state = request.app.state
    loop, threads = asyncio.get_running_loop(), state.intake_threads
    if not state.intake.knows(hook_id):
        await loop.run_in_executor(threads, state.intake.expects, hook_id)  # a stranger's body is not read
    body, held = await _read(request)
    try:
        receive = partial(state.intake.receive, hook_id, body, dict(request.headers))
        receipt: Receipt = await loop.run_in_executor(threads, receive)
    except TooFast as error:
        later = {"Retry-After": str(int(error.after_s) + 1)}
        raise HttpError(HTTPStatus.TOO_MANY_REQUESTS, "this hook tells too much at once", later) from error
    finally:
        state.held_bytes -= held
    if receipt.refusal:
        raise receipt.refusal
    if receipt.number is None:
        return DeliveryAnswer(status="known")
    _wake(state)
    return DeliveryAnswer(status="accepted", delivery=receipt.number)


def _wake(state: State) -> None:
    """Whichever of the two it is for."""
    state.processor.wake()
    state.unsigned.wake()


async def _read(request: Request) -> tuple[bytes, int]:
    """
    The body, and how many bytes of the memory for bodies it holds until they are given back.

    Raises: HttpError 413, 503 when too many are at it, 400 when it does not come to its end.
    """
    if told_length(request.scope) > LARGEST_BODY_BYTES:
        raise too_large(LARGEST_BODY_BYTES)
    state, body = request.app.state, bytearray()
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            async for chunk in request.stream():
                body += chunk
                state.held_bytes += len(chunk)
                if len(body) > LARGEST_BODY_BYTES:
                    raise too_large(LARGEST_BODY_BYTES)
                if state.held_bytes > MOST_HELD_BYTES:
                    what = "too many deliveries are being received; try again"
                    raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, what, {"Connection": "close", "Retry-After": "5"})
    except TimeoutError as error:
        state.held_bytes -= len(body)
        raise HttpError(HTTPStatus.BAD_REQUEST, "the body took too long", {"Connection": "close"}) from error
    except BaseException:
        state.held_bytes -= len(body)
        raise
    return bytes(body), len(body)


@router.get("/hooks")
def list_hooks(request: Request, project: Name | None = None) -> list[HookOut]:
    """The addresses at which forges tell of projects."""
    return [HookOut.of(hook) for hook in hooks.list_hooks(request.app.state.database, project)]


@router.get("/deliveries")
def list_deliveries(
    request: Request,
    project: Name | None = None,
    hook: Name | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> list[DeliveryOut]:
    """What forges told, newest first, and what became of it."""
    found = deliveries.list_deliveries(request.app.state.database, project=project, hook=hook, limit=limit)
    return [DeliveryOut.of(delivery) for delivery in found]


@router.get("/deliveries/{number}", responses=problems(404))
def show_delivery(request: Request, number: Number) -> DeliveryOut:
    """One delivery."""
    return DeliveryOut.of(deliveries.get_delivery(request.app.state.database, number))


@router.post("/deliveries/{number}/replay", status_code=HTTPStatus.ACCEPTED, responses=problems(404, 409))
def replay_delivery(request: Request, response: Response, number: Number, actor: Actor) -> DeliveryOut:
    """Work on a delivery once more; its events run again."""
    state = request.app.state
    again = deliveries.replay(state.database, number)
    access.record(state.database, actor, "delivery.replay", str(number), project=again.project)
    _wake(state)
    response.headers["Location"] = f"/api/v1/deliveries/{number}"
    return DeliveryOut.of(again)


@router.post("/events/{number}/approve", status_code=HTTPStatus.ACCEPTED, responses=problems(404))
def approve_event(request: Request, number: Number, actor: Actor) -> EventOut:
    """Let the first pull request of a stranger's fork start; later ones of the same author start by themselves."""
    state = request.app.state
    event = inbox.let_start(state.database, number, actor)
    access.record(state.database, actor, "event.approve", event.key, project=event.project)
    state.dispatcher.wake()
    return EventOut.of(event)
