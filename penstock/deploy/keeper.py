"""
The keeper: `python -m penstock.deploy.keeper` runs the instances that the table `instances` wants.

One loop: read what is wanted, start, watch, stop, write down what is. It wakes at once for a
notification from PostgreSQL, the end of a child, a signal, or a target that has news, and looks around every second
anyway. While the database is away it goes on with what it knows. Processes die with it, by `kill -9`
too, and the next keeper starts them again; containers outlive a `kill -9`, and the next keeper finds them.
"""

import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec
import psycopg
import sqlalchemy as sa

from penstock.deploy.plan import Service, ServiceConfiguration
from penstock.deploy.releases import CHANNEL, instance_log
from penstock.deploy.routing import apply_routes
from penstock.deploy.supervised import adopt_orphans, reap_orphans
from penstock.deploy.targets import Assignment, Census, Kept, Report, Target, Wake, open_target
from penstock.deploy.targets.process import ProcessTarget
from penstock.errors import PenstockError, PlatformError
from penstock.processes import wait_until
from penstock.settings import Settings, create_home, load_settings
from penstock.state.database import create_engine, database_url
from penstock.state.tables import instances, releases

POLL_S = 1.0
WANTED = ("running", "draining")  # what is being drained still answers its last requests
LOCK_LIMIT_S = 3.0
LAST_WAIT_S = 5.0  # beyond their grace, for instances that do not stop: those of a target that is away


class Doorbell:
    """LISTEN on a connection of its own. Lost with the server, and tried again at every `ring`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: psycopg.Connection | None = None

    def fileno(self) -> int | None:
        """What to wait on; None while there is no connection."""
        return None if self._connection is None else self._connection.fileno()

    def rang(self) -> bool:
        """Whether there was a notification, or may have been: a new connection has missed what came before."""
        try:
            if self._connection is None:
                self._connect()
                return True
            return bool(list(self._connection.notifies(timeout=0)))
        except psycopg.Error:
            self.close()
            return False

    def _connect(self) -> None:
        url = database_url(self._settings).render_as_string(hide_password=False)
        connection = psycopg.connect(url, autocommit=True, connect_timeout=3)
        connection.execute(f"LISTEN {CHANNEL}")
        self._connection = connection

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Targets:
    """The targets that releases name, opened when one does: without a container, nobody needs an engine."""

    def __init__(self, settings: Settings, wake: Wake) -> None:
        self._settings, self._wake = settings, wake
        self._open: dict[str, Target] = {}

    def __getitem__(self, name: str) -> Target:
        if name not in self._open:
            self._open[name] = open_target(name, self._settings, self._wake)
        return self._open[name]


class Keeper:
    """The supervised instances of one PENSTOCK_HOME, by id, and what has been written down about them."""

    def __init__(self, settings: Settings, engine: sa.Engine, targets: Targets) -> None:
        self._settings, self._engine, self._targets = settings, engine, targets
        self._running: dict[str, Kept] = {}
        self._written: dict[str, Report] = {}
        self._trouble = ""
        self._longest_grace_s = 0.0

    def round(self, *, look: bool) -> None:
        """One turn. look: read the tables; otherwise only mind the children. A database that is away is waited for."""
        try:
            unwanted = self._read() if look else []
            self._step()
            if self._write() or look:
                self._route()
            for instance in unwanted:
                instance.stop(time.monotonic())
            if unwanted:
                self._step()
                self._write()
        except sa.exc.DBAPIError as error:
            self._step()
            self._say(f"the database does not answer: {str(error.orig).splitlines()[0]}")
        else:
            self._forget_stopped()

    def next_due_s(self) -> float:
        """Seconds until something is due without anybody ringing."""
        dues = [one.due_s for one in self._running.values() if one.phase in ("waiting", "stopping")]
        return max(0.0, min([POLL_S, *(due_s - time.monotonic() for due_s in dues)]))

    def clear_leftovers(self) -> None:
        """Have each target that a release ever named remove what a keeper that was killed has left."""
        column = releases.c.configuration["target"].astext
        with self._engine.begin() as connection:
            named = set(connection.execute(sa.select(sa.func.coalesce(column, "process")).distinct()).scalars())
        for name in named:
            self._targets[name].reap(self._census)

    def _census(self) -> Census:
        kept = set(
            self._running
        )  # first: what is wanted later may be kept by then, and is neither known nor wanted yet
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(instances.c.id, instances.c.desired)).all()
        return Census({row.id for row in rows}, {row.id for row in rows if row.desired in WANTED}, kept)

    def stop_all(self) -> None:
        """Stop every instance, which stays wanted; returns when all are gone, or those of a target that is away."""
        self._step()
        for one in self._running.values():
            one.stop(time.monotonic())
        deadline_s = time.monotonic() + self._longest_grace_s + LAST_WAIT_S
        while any(one.phase != "stopped" for one in self._running.values()) and time.monotonic() < deadline_s:
            self._step()
            time.sleep(0.02)
        try:
            self._write()
        except sa.exc.DBAPIError:
            self._say("stopped; the database is already gone")

    def _read(self) -> list[Kept]:
        """Take on what is newly wanted. Returns: what no longer is."""
        with self._engine.begin() as connection:
            wanted = {this.instance_id: this for this in _assignments(connection, self._settings)}
            _close_never_started(connection, [*wanted, *self._running])
        for instance_id in wanted.keys() - self._running.keys():
            configuration = wanted[instance_id].configuration
            self._longest_grace_s = max(self._longest_grace_s, configuration.stop_grace_s)
            self._running[instance_id] = self._targets[configuration.target].keep(wanted[instance_id])
        return [one for instance_id, one in self._running.items() if instance_id not in wanted]

    def _step(self) -> None:
        for instance_id, one in self._running.items():
            others = (other.report.port for name, other in self._running.items() if name != instance_id)
            one.step(time.monotonic(), {port for port in others if port is not None})
        reap_orphans({one.pid for one in self._running.values()})

    def _write(self) -> bool:
        """Returns: whether an instance has moved to another port, has ended or has come back."""
        changed = {name: one.report for name, one in self._running.items() if self._written.get(name) != one.report}
        if not changed:
            return False
        with self._engine.begin() as connection:
            for instance_id, report in changed.items():
                _write_report(connection, instance_id, report)
        moved = any(
            (report.port, report.state) != (before.port, before.state)
            for name, report in changed.items()
            if (before := self._written.get(name))
        )
        self._written.update(changed)
        return moved

    def _route(self) -> None:
        try:
            routing = apply_routes(self._engine, self._settings)
        except (PlatformError, OSError) as error:  # a full disk, say: the instances go on
            self._say(f"routes cannot be applied: {error}")
            return
        if routing.blocked:
            self._say(f"somebody else listens on {', '.join(map(str, routing.blocked))}; those services do not answer")
        elif routing.front_blocked:
            self._say(f"nobody may listen on {', '.join(map(str, routing.front_blocked))}; no name is served")
        else:
            self._say("" if routing.caddy_answers else "Caddy does not answer")

    def _forget_stopped(self) -> None:
        for instance_id in [name for name, one in self._running.items() if one.phase == "stopped"]:
            del self._running[instance_id]
            self._written.pop(instance_id, None)

    def _say(self, trouble: str) -> None:
        """Once, not every second."""
        if trouble and trouble != self._trouble:
            print(f"keeper: {trouble}", file=sys.stderr, flush=True)
        self._trouble = trouble


def _assignments(connection: sa.Connection, settings: Settings) -> Iterator[Assignment]:
    query = (
        sa.select(instances.c.id, instances.c.port, instances.c.restarts, instances.c.release_id, releases)
        .join(releases, releases.c.id == instances.c.release_id)
        .where(instances.c.desired.in_(WANTED))
    )
    for row in connection.execute(query):
        yield Assignment(
            instance_id=row[0],
            release_id=row.release_id,
            service=Service(row.project, row.environment, row.service),
            digest=row.digest,
            configuration=msgspec.convert(row.configuration, ServiceConfiguration),
            log=instance_log(settings, row[0]),
            port=row.port,
            restarts=row.restarts,
        )


def _close_never_started(connection: sa.Connection, known: Iterable[str]) -> None:
    """Rows that are unwanted and that this keeper does not run are stopped, whatever they say."""
    gone = sa.update(instances).where(instances.c.desired == "stopped", instances.c.state != "stopped")
    connection.execute(gone.where(instances.c.id.not_in(list(known))).values(state="stopped", pid=None))


def _write_report(connection: sa.Connection, instance_id: str, report: Report) -> None:
    values = {
        "state": report.state,
        "pid": report.pid,
        "port": report.port,
        "restarts": report.restarts,
        "reason": report.reason,
        "started_at": report.started_at,
    }
    connection.execute(sa.update(instances).where(instances.c.id == instance_id).values(values))


@contextmanager
def only_keeper(settings: Settings) -> Iterator[None]:
    """
    The right to run instances for this PENSTOCK_HOME.

    Raises: PlatformError when another keeper has it and keeps it for three seconds.
    """
    with (settings.home / "keeper.lock").open("w") as lock:

        def taken() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not wait_until(taken, limit_s=LOCK_LIMIT_S):
            raise PlatformError(f"another keeper runs for {settings.home}", remedy="stop that one first")
        yield


@contextmanager
def wakeup() -> Iterator[tuple[int, int, list[signal.Signals]]]:
    """A descriptor that becomes readable at any signal, where to write for that, and the signals that ask to end."""
    asked: list[signal.Signals] = []
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda number, _: asked.append(signal.Signals(number)))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading, writing, asked
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reading)
        os.close(writing)


def keep(settings: Settings) -> None:
    """Run instances until SIGTERM or SIGINT. Raises: PlatformError when there is a keeper already."""
    create_home(settings)
    adopt_orphans()
    with only_keeper(settings), wakeup() as (signalled, waking, asked):
        targets = Targets(settings, lambda: _wake(waking))
        _say_isolation(targets["process"])
        keeper, doorbell = Keeper(settings, create_engine(settings), targets), Doorbell(settings)
        if _cleared(keeper, asked):
            _loop(keeper, doorbell, signalled, asked)
        keeper.stop_all()
        doorbell.close()


def _say_isolation(target: Target) -> None:
    if isinstance(target, ProcessTarget) and target.host.bwrap is None:
        print("keeper: bubblewrap is not usable here, processes run without isolation", file=sys.stderr, flush=True)


def _wake(descriptor: int) -> None:
    with suppress(OSError):  # full, and so it is awake; or closed, and the keeper ends
        os.write(descriptor, b"\0")


def _cleared(keeper: Keeper, asked: list[signal.Signals]) -> bool:
    """Leftovers first, once the database answers. Returns: False when asked to end before."""
    while not asked:
        try:
            keeper.clear_leftovers()
        except sa.exc.DBAPIError:
            time.sleep(0.1)
        else:
            return True
    return False


def _loop(keeper: Keeper, doorbell: Doorbell, signalled: int, asked: list[signal.Signals]) -> None:
    looked_s = 0.0
    while not asked:
        rang = doorbell.rang()
        if look := rang or time.monotonic() - looked_s >= POLL_S:
            looked_s = time.monotonic()
        keeper.round(look=look)
        _wait([signalled, doorbell.fileno()], keeper.next_due_s())
        _drain(signalled)


def _wait(descriptors: list[int | None], limit_s: float) -> None:
    poll = select.poll()
    for descriptor in descriptors:
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
    poll.poll(limit_s * 1000 + 1)


def _drain(descriptor: int) -> None:
    try:
        os.read(descriptor, 4096)
    except BlockingIOError:
        return


def main() -> int:
    """Run the keeper. Returns: its exit code."""
    try:
        keep(load_settings())
    except PenstockError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
