"""Runs, a clock and forges, for tests of what forges are told."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import sqlalchemy as sa
from forge_server import COMMIT, ForgeServer, running
from forge_servers import SERVERS

from penstock.pipeline import records
from penstock.pipeline.load import load_spec
from penstock.pipeline.plan import compile_graph
from penstock.steps.context import Artifact, RunInfo, StepResult

MAIN = "refs/heads/main"
PIPELINE = b"""\
version: 1
steps:
  - {name: build, type: step.shell_exec, commands: [make]}
  - {name: test, type: step.shell_exec, needs: [build], commands: [make test]}
"""
REQUEST = {"number": 7, "source": "orders", "target": "main", "fork": False}


@attrs.define
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime = attrs.field(factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        """By so many seconds, minutes, hours, days."""
        self.now += timedelta(**by)


class Forges(contextlib.ExitStack):
    """Forges that listen until the test is over."""

    def __call__(self, name: str) -> Any:
        made: ForgeServer = self.enter_context(running(SERVERS[name]))
        return made


@attrs.frozen
class Runs:
    """Makes runs of two steps, `build` and `test`, and lets them go on."""

    database: sa.Engine
    numbers: Iterator[int]

    def queue(self, commit: str = COMMIT, **more: Any) -> RunInfo:
        """A run that waits to start."""
        graph = compile_graph(load_spec(PIPELINE))
        number = next(self.numbers)
        values = {"project": "shop", "ref": MAIN, **more}
        info = RunInfo(f"r{number}", commit=commit, graph_hash=graph.hash, structure_hash="s", **values)
        records.create_run(self.database, info, graph)
        return info

    def start(self, commit: str = COMMIT, **more: Any) -> RunInfo:
        """A run that is at work."""
        info = self.queue(commit, **more)
        records.start_run(self.database, info.id)
        records.start_step(self.database, info.id, "build")
        return info

    def end(self, info: RunInfo, state: Any = "succeeded", reason: str | None = None, *made: Artifact) -> None:
        """Its steps end, and so does it."""
        records.finish_step(self.database, info, "build", StepResult("succeeded", artifacts=made))
        records.start_step(self.database, info.id, "test")
        records.finish_step(self.database, info, "test", StepResult(state, reason))
        records.finish_run(self.database, info.id)

    def pull_request(self, commit: str = COMMIT, **about: Any) -> RunInfo:
        """A run of pull request 7 that is at work."""
        request = {"pull_request": {**REQUEST, **about}}
        return self.start(commit, ref="refs/pull/7/head", event="pull_request", about=request)
