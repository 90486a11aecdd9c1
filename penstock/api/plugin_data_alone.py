"""The data API by itself, for plugins of a run that works without a platform: served on a socket only we know."""

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI

from penstock.api import plugin_data
from penstock.api.app import PREFIX
from penstock.api.limits import load_limits
from penstock.api.problems import add_handlers
from penstock.errors import PlatformError
from penstock.processes import wait_until
from penstock.settings import Settings

START_LIMIT_S = 20.0


@contextmanager
def served_alone(database: sa.Engine, settings: Settings) -> Iterator[Callable[[], socket.socket]]:
    """
    Gives what connects to it.

    Raises: PlatformError when it does not start.
    """
    # Routes go by their functions' names, as `only_known` looks for them.
    app = FastAPI(title="Penstock", generate_unique_id_function=lambda route: route.name)
    app.state.settings, app.state.database, app.state.limits = settings, database, load_limits(os.environ)
    app.include_router(plugin_data.router, prefix=PREFIX)
    add_handlers(app)
    with tempfile.TemporaryDirectory(prefix="penstock-data-") as folder:
        path = str(Path(folder) / "data.sock")
        server = uvicorn.Server(uvicorn.Config(app, uds=path, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, name="data API", daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), limit_s=START_LIMIT_S, every_s=0.01)
            if not server.started:
                raise PlatformError("the data API does not start")

            def connect() -> socket.socket:
                made = socket.socket(socket.AF_UNIX)
                made.connect(path)
                return made

            yield connect
        finally:
            server.should_exit = True
            thread.join(START_LIMIT_S)
