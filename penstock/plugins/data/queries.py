"""Ask what plugins of one project told: SQL of their own, or one of the questions of the API."""

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import Any

import attrs
import msgspec
import sqlalchemy as sa

from penstock.errors import ForbiddenError, InputError, PlatformError
from penstock.people.audit import record
from penstock.plugins.data.chunks import Kind
from penstock.plugins.data.limits import DataLimits
from penstock.plugins.data.messages import Answer, Bucket, Question, Source
from penstock.plugins.data.permitted import Permitted, permitted
from penstock.plugins.data.room import GRACE_S
from penstock.plugins.data.scope import Scope
from penstock.warehouse import Location
from penstock.warehouse.connect import bucket_words
from penstock.webhooks.deliveries import storable

AT_ONCE = 2
WAIT_S = 20.0
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "VIRTUAL_ENV")


@attrs.frozen(kw_only=True)
class Wanted:
    """
    Which rows: those that agree with everything that is not None.

    tenant, project: whose; none but its own are there. what: a metric's name, or the kind of a datum. before: the `seq`
    at which the page before ended.
    """

    limit: int
    tenant: str | None = None
    project: str | None = None
    plugin: str | None = None
    what: str | None = None
    key: str | None = None
    commit: str | None = None
    run_id: str | None = None
    step: str | None = None
    environment: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None


class Queries:
    """Answers questions of scopes; threads may share it. Close it: it keeps a warm room."""

    def __init__(self, database: sa.Engine, location: Location, limits: DataLimits | None = None) -> None:
        self._database, self._location, self.limits = database, location, limits or DataLimits()
        self._rooms = _Rooms()

    def close(self) -> None:
        """Let the room go."""
        self._rooms.close()

    def ask(self, scope: Scope, sql: str, views: Sequence[str] = ()) -> Answer:
        """
        The answer to a plugin's own SQL: one SELECT over `plugin_metrics` and `plugin_data` of its tenant and project.

        A query that names another tenant or project finds nothing there, and is audited; so is one that is refused.
        Raises: InputError, ForbiddenError (of the query); PlatformError when it cannot be answered now.
        """
        if len(sql) > self.limits.sql_chars:
            raise InputError(f"longer than {self.limits.sql_chars} characters", where="SQL", remedy="write less")
        answer = self._answer(scope, sql, {}, views, is_own=False)
        if answer.foreign or answer.refused == "access":
            self._audit(scope, answer, sql)
        return _checked(answer)

    def listed(self, scope: Scope, kind: Kind, wanted: Wanted) -> Answer:
        """
        Rows of the scope's tenant and project, newest first.

        Raises: PlatformError when it cannot be answered now.
        """
        foreign = tuple(
            f"{name} {told[:100]}"
            for name in ("tenant", "project")
            if (told := getattr(wanted, name)) is not None and told != getattr(scope, name)
        )
        if foreign:
            self._audit(scope, Answer(foreign=foreign), f"GET {kind.value}")
        sql, parameters = _listing(kind, wanted)
        return _checked(self._answer(scope, sql, parameters, (), is_own=True))

    def _answer(
        self, scope: Scope, sql: str, parameters: dict[str, Any], views: Sequence[str], *, is_own: bool
    ) -> Answer:
        rows = permitted(self._database, self._location, scope.tenant, scope.project)
        limits = self.limits
        question = Question(
            tenant=scope.tenant,
            project=scope.project,
            sources={kind.table: _source(rows, kind) for kind in Kind},
            sql=sql,
            views=tuple(views),
            is_own=is_own,
            parameters=parameters,
            rows=limits.answer_rows,
            bytes=limits.answer_bytes,
            time_s=limits.answer_time.total_seconds(),
            memory_bytes=limits.answer_memory_bytes,
            bucket=_bucket(self._location),
        )
        return self._rooms.ask(question, rows)

    def _audit(self, scope: Scope, answer: Answer, said: str) -> None:
        about = {"tenant": scope.tenant, "run": scope.run_id, "step": scope.step}
        reached = {"named": [storable(name) for name in answer.foreign], "refused": storable(answer.what)}
        who = f"plugin {scope.plugin}"
        record(self._database, who, "plugin_data.reach", scope.project, **about, **reached, query=storable(said[:2000]))


def _source(rows: Permitted, kind: Kind) -> Source:
    return Source(tuple((each.path, each.deleted) for each in rows.files[kind]), bool(rows.tails[kind]))


_REMEDIES = {"timeout": "narrow it", "memory": "narrow it, or ask for sums"}


def _checked(answer: Answer) -> Answer:
    if answer.refused:
        kind = ForbiddenError if answer.refused == "access" else InputError
        raise kind(answer.what, where="SQL", remedy=answer.remedy or _REMEDIES.get(answer.refused))
    return answer


def _bucket(location: Location) -> Bucket | None:
    words = bucket_words(location)
    return Bucket(*words) if words else None


_EQUAL = ("tenant", "project", "plugin", "key", "commit", "run_id", "step", "environment")


def _listing(kind: Kind, wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """SQL and parameters of a page."""
    at, what = ("measured_at", "name") if kind is Kind.METRICS else ("received_at", "kind")
    tests = {name: f'"{name}" = ${name}' for name in _EQUAL}
    tests |= {"what": f"{what} = $what", "before": "seq < $before"}
    tests |= {"since": f"{at} >= $since::TIMESTAMPTZ", "until": f"{at} < $until::TIMESTAMPTZ"}
    said = {name: getattr(wanted, name) for name in tests if getattr(wanted, name) is not None}
    where = " AND ".join(["seq IS NOT NULL", *(tests[name] for name in said)])
    parameters = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in said.items()}
    return f"SELECT * FROM {kind.table} WHERE {where} ORDER BY seq DESC LIMIT {wanted.limit + 1}", parameters


class _Rooms:
    """A warm process that forks a room for each question; AT_ONCE of them, others wait."""

    def __init__(self) -> None:
        self._guard, self._turn = threading.Lock(), threading.BoundedSemaphore(AT_ONCE)
        self._process: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None

    def ask(self, question: Question, rows: Permitted) -> Answer:
        """Raises: PlatformError when all rooms stay taken, or the room ended without an answer."""
        if not self._turn.acquire(timeout=WAIT_S):
            raise PlatformError("too many queries of plugins run at once", remedy="try again")
        try:
            with ExitStack() as stack:
                tails = [_memory(stack, rows.tails[kind]) for kind in (Kind.METRICS, Kind.DATA)]
                asked = _memory(stack, msgspec.json.encode(question))
                body = self._told(stack, [asked, *tails], question.time_s + GRACE_S + 5)
        finally:
            self._turn.release()
        if not body:
            return Answer(refused="memory", what="the query needed too much memory or time, and was ended")
        return msgspec.json.decode(body, type=Answer)

    def _told(self, stack: ExitStack, fds: list[int], limit_s: float) -> bytes:
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        try:
            self._send([*fds, writing])
        finally:
            os.close(writing)
        return _read_all(reading, limit_s)

    def _send(self, fds: list[int]) -> None:
        """Hand a question in; with a new process, when the one that was there has died."""
        with self._guard:
            for is_last in (False, True):
                if self._process is None or self._process.poll() is not None:
                    self._open()
                assert self._door is not None
                try:
                    socket.send_fds(self._door, [b"?"], fds)
                    return
                except OSError as error:
                    self._close()
                    if is_last:
                        what = "the room for plugins' queries does not start"
                        raise PlatformError(what, remedy="see logs/api.log") from error

    def _open(self) -> None:
        self._close()
        mine, other = socket.socketpair()
        env = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penstock.plugins.data.room"],
                stdin=other.fileno(),
                stdout=subprocess.DEVNULL,
                env=env,
                cwd="/",
                start_new_session=True,
            )
        self._door = mine

    def close(self) -> None:
        """Let the process end: its door is closed."""
        with self._guard:
            self._close()

    def _close(self) -> None:
        if self._door is not None:
            self._door.close()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
            self._process.kill()
            self._process.wait()
        self._door = self._process = None


def _memory(stack: ExitStack, content: bytes) -> int:
    """A file that lies in memory, and under no name."""
    fd = os.memfd_create("penstock", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def _read_all(fd: int, limit_s: float) -> bytes:
    """Everything until the other side ends; nothing, when that takes longer than `limit_s`."""
    until, parts = time.monotonic() + limit_s, list[bytes]()
    while select.select([fd], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(fd, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return b""
