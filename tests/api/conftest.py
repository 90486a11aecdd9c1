"""The API over real HTTP on a real PostgreSQL, a connected repository, and a run that is at work."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from api_calls import API, MAIN, graph
from git_builder import PIPELINE, GitRepository

from penstock.api.app import create_app
from penstock.api.limits import Limits
from penstock.api.tokens import ensure_local_token, token_file
from penstock.pipeline import records
from penstock.settings import Settings
from penstock.steps.context import RunInfo


@contextmanager
def serving(settings: Settings, limits: Limits) -> Iterator[tuple[str, uvicorn.Server]]:
    """The API on a free port. Yields: its address, and the server."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(settings, limits), log_level="warning", access_log=False, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def limits() -> Limits:
    """Small ones, and a log that is looked at often."""
    return Limits(upload_bytes=48 * 1024**2, look_every_s=0.02, heartbeat_s=0.1)


@pytest.fixture
def served(settings: Settings, database: sa.Engine, limits: Limits) -> Iterator[tuple[str, uvicorn.Server]]:
    """The API, which knows this machine's token. Dagster is away, unless the settings name one."""
    ensure_local_token(database, settings)
    with serving(settings, limits) as found:
        yield found


@pytest.fixture
def server(served: tuple[str, uvicorn.Server]) -> uvicorn.Server:
    """What serves it."""
    return served[1]


@pytest.fixture
def api(settings: Settings, served: tuple[str, uvicorn.Server]) -> Iterator[httpx.Client]:
    """A client with this machine's token."""
    headers = {"Authorization": f"Bearer {token_file(settings).read_text()}"}
    with httpx.Client(base_url=served[0], headers=headers, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def shop(api: httpx.Client, make_repository: Callable[..., GitRepository]) -> GitRepository:
    """A connected repository."""
    made = make_repository("shop", {"penstock.yaml": PIPELINE})
    assert api.post(f"{API}/projects", json={"name": "shop", "url": str(made.root)}).status_code == 201
    return made


@pytest.fixture
def run(database: sa.Engine, shop: GitRepository) -> RunInfo:
    """A run of the shop that is at work."""
    made = graph()
    info = RunInfo("run-1", "shop", shop.git("rev-parse", "HEAD"), MAIN, made.hash, made.structure_hash)
    records.create_run(database, info, made)
    records.start_run(database, info.id)
    records.start_step(database, info.id, "hello")
    return info
