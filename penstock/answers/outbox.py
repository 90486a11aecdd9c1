"""
The outbox: one row for each thing that a forge shows, with what it shall show now.

Nothing in a run's path writes to it. Runs, steps and ignored events carry the state that was last told of them; where
that is not their state, `look` puts the newer one into the outbox and marks it as told, in one transaction. So a kill
at any moment loses nothing, and a state that nobody saw in time is never sent.
"""

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Insert, insert

from penstock.answers.connections import Connection, connection_of
from penstock.answers.texts import status_line
from penstock.errors import NotFoundError
from penstock.sources.projects import is_commit
from penstock.state.tables import artifacts, connections, inbox, outbox, runs, steps

BATCH = 500
CLAIMED_FOR = timedelta(minutes=2)  # what a killed process had in hand waits so long
KEPT_FOR = timedelta(days=90)
GIVEN_UP_AFTER = timedelta(days=5)
_UNFINISHED = ("queued", "running")
_STEPS_SHOWN_BY = ("github",)
# Should a crash take it back, `look` finds the same again, and a forge that is told twice shows it once.
_UNHURRIED = sa.text("SET LOCAL synchronous_commit TO off")

# Written out, so that PostgreSQL sees that its partial indexes hold everything that is asked for.
_QUEUED: sa.ColumnElement[str] = sa.literal_column("'queued'")
_IGNORED: sa.ColumnElement[str] = sa.literal_column("'ignored'")
_WAITING: sa.ColumnElement[str] = sa.literal_column("'waiting'")

_KEY = ("project", "kind", "target", "context")

RunUrl = Callable[[str | None], str]


@attrs.frozen
class Item:
    """
    Something that a forge shall show.

    kind: status, comment or asset. target: the commit, the pull request's number, or the tag. attempts: so far.
    remote_id: what the forge calls it, where that is known. wanted: the fields of its text, as `look` made them.
    """

    id: int
    project: str
    kind: str
    target: str
    context: str
    run_id: str | None
    wanted: Mapping[str, Any]
    version: int
    state: str
    reason: str | None
    remote_id: str | None
    attempts: int
    asked_at: datetime
    changed_at: datetime
    again_at: datetime
    sent_at: datetime | None

    def is_too_old(self, now: datetime) -> bool:
        """Whether nobody waits for it any more."""
        return now - self.changed_at > GIVEN_UP_AFTER


@attrs.frozen
class _Wish:
    """A row as it shall be. asked_at: the newer one wins. only_new: what is there already stays."""

    project: str
    kind: str
    target: str
    context: str
    run_id: str | None
    asked_at: datetime
    wanted: Mapping[str, Any]
    only_new: bool = False


def look(database: sa.Engine, run_url: RunUrl, now: datetime) -> int:
    """
    Put what has changed since the last look into the outbox.

    run_url: a run's page; of None: the page of all runs. Returns: how many runs, steps and events had changed.
    """
    with database.begin() as connection:
        connection.execute(_UNHURRIED)
        told = {found.project: found for found in _connections(connection)}
        changed_runs = _mark(connection, runs, runs.c.told.is_distinct_from(runs.c.state), runs.c.queued_at)
        stale = sa.and_(steps.c.state != _QUEUED, steps.c.told.is_distinct_from(steps.c.state))
        changed_steps = _mark(connection, steps, stale, steps.c.run_id)
        ignored = sa.and_(inbox.c.state == _IGNORED, inbox.c.told.is_distinct_from(inbox.c.state))
        left_out = _mark(connection, inbox, ignored, inbox.c.id)
        wishes = [
            *_of_runs(connection, told, changed_runs, run_url),
            *_of_steps(connection, told, changed_steps, run_url),
            *_of_events(told, left_out, run_url),
        ]
        _put(connection, wishes, now)
    return len(changed_runs) + len(changed_steps) + len(left_out)


def _connections(connection: sa.Connection) -> Sequence[Connection]:
    return [connection_of(row) for row in connection.execute(sa.select(connections)).mappings()]


def _mark(
    connection: sa.Connection, table: sa.Table, stale: sa.ColumnElement[bool], order: sa.ColumnElement[Any]
) -> Sequence[sa.RowMapping]:
    """Rows whose state nobody told of, told now; one that is being written is left for the next look."""
    key = tuple(table.primary_key.columns)
    chosen = sa.select(*key).where(stale).order_by(order).limit(BATCH).with_for_update(skip_locked=True)
    change = sa.update(table).where(sa.tuple_(*key).in_(chosen)).values(told=table.c.state)
    return connection.execute(change.returning(*table.c)).mappings().all()


def _of_runs(
    connection: sa.Connection, told: Mapping[str, Connection], rows: Iterable[sa.RowMapping], run_url: RunUrl
) -> Iterable[_Wish]:
    for run in rows:
        of = told.get(run["project"])
        if of is None or _was_over(of, run):
            continue
        yield _status(of, run, run, run_url)
        if run["state"] in _UNFINISHED:
            continue
        request = run["about"].get("pull_request") or {}
        if of.options.comments and run["event"] == "pull_request" and request.get("number") is not None:
            wanted = {"commit": run["commit"], "ref": run["ref"], "target": request.get("target"), "url": ""}
            wanted["url"] = run_url(run["id"])
            number = str(request["number"])
            yield _Wish(of.project, "comment", number, "findings", run["id"], run["queued_at"], wanted)
        if of.options.assets and run["event"] in ("tag", "release") and run["state"] == "succeeded":
            yield from _assets(connection, of, run)


def _of_steps(
    connection: sa.Connection, told: Mapping[str, Connection], rows: Sequence[sa.RowMapping], run_url: RunUrl
) -> Iterable[_Wish]:
    shown_of = [name for name, of in told.items() if shows_steps(of)]
    wanted = sa.select(runs).where(runs.c.id.in_({row["run_id"] for row in rows}), runs.c.project.in_(shown_of))
    of_run = {run["id"]: run for run in connection.execute(wanted).mappings()} if shown_of and rows else {}
    for row in rows:
        run = of_run.get(row["run_id"])
        if run and not _was_over(told[run["project"]], run):
            yield _status(told[run["project"]], run, row, run_url, step=row["step"])


def _was_over(of: Connection, run: Mapping[Any, Any]) -> bool:
    """Whether the run ended before anybody wanted to be told."""
    return run["finished_at"] is not None and run["finished_at"] < of.created_at


def shows_steps(connection: Connection) -> bool:
    """Whether each step is shown too: where it was asked for, else where the forge has checks."""
    asked = connection.options.steps
    return connection.forge in _STEPS_SHOWN_BY if asked is None else asked


def _status(
    of: Connection, run: Mapping[Any, Any], row: Mapping[Any, Any], run_url: RunUrl, *, step: str | None = None
) -> _Wish:
    """row: the run itself, or one of its steps."""
    request = run["about"].get("pull_request") or {}
    wanted = {
        "state": row["state"],
        "line": status_line(row["state"], row["reason"], row["started_at"], row["finished_at"]),
        "url": run_url(run["id"]),
        "external_id": f"{run['id']}/{step}" if step else run["id"],
        "ref": run["ref"],
        "pull_request": request.get("number"),
        "source": None if request.get("fork") else request.get("source"),
        "started_at": _text(row["started_at"]),
        "finished_at": _text(row["finished_at"]),
    }
    context = "/".join((of.options.context, run["event"], *([step] if step else [])))
    return _Wish(of.project, "status", run["commit"], context, run["id"], run["queued_at"], wanted)


def _of_events(told: Mapping[str, Connection], rows: Iterable[sa.RowMapping], run_url: RunUrl) -> Iterable[_Wish]:
    """What the rules left out is a success where that was asked for, unless the commit has run for the same event."""
    for event in rows:
        of = told.get(event["project"])
        if of is None or not of.options.skipped or event["received_at"] < of.created_at:
            continue
        # A commit that cannot be fetched, or that a newer one overtook, was not looked at: no success is told of it.
        if not is_commit(event["commit"]) or not event["by_rule"]:
            continue
        request = event["about"].get("pull_request") or {}
        wanted = {
            "state": "skipped",
            "line": status_line("skipped", event["reason"]),
            "url": run_url(None),
            "external_id": f"event-{event['id']}",
            "ref": event["ref"],
            "pull_request": request.get("number"),
            "source": None if request.get("fork") else request.get("source"),
            "started_at": None,
            "finished_at": None,
        }
        context = f"{of.options.context}/{event['kind']}"
        at = event["received_at"]
        yield _Wish(of.project, "status", event["commit"], context, None, at, wanted, only_new=True)


def _assets(connection: sa.Connection, of: Connection, run: Mapping[Any, Any]) -> Iterable[_Wish]:
    tag = run["about"].get("tag") or run["ref"].removeprefix("refs/tags/")
    found = connection.execute(sa.select(artifacts).where(artifacts.c.run_id == run["id"])).mappings()
    for made in found:
        if any(fnmatch.fnmatchcase(made["key"], pattern) for pattern in of.options.assets):
            name = made["path"].rpartition("/")[2] + (".tar" if made["kind"] == "tree" else "")
            wanted = {"name": name, "digest": made["digest"], "size_bytes": made["size_bytes"]}
            yield _Wish(of.project, "asset", tag, name, run["id"], run["queued_at"], wanted)


def _text(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _put(connection: sa.Connection, wishes: Sequence[_Wish], now: datetime) -> None:
    """In order, so that the newer one of two wins."""
    for only_new, statement in ((False, _newest()), (True, insert(outbox).on_conflict_do_nothing(index_elements=_KEY))):
        rows = [_row(wish, now) for wish in wishes if wish.only_new is only_new]
        if rows:
            connection.execute(statement, rows)


def _row(wish: _Wish, now: datetime) -> dict[str, Any]:
    return {**attrs.asdict(wish, filter=attrs.filters.exclude("only_new")), "changed_at": now, "again_at": now}


def _newest() -> Insert:
    """What is there already is changed, unless it is of a newer run or says the same."""
    row = insert(outbox)
    same = sa.or_(outbox.c.kind == "comment", outbox.c.run_id.is_not_distinct_from(row.excluded.run_id))
    change = {
        **{name: row.excluded[name] for name in ("run_id", "wanted", "asked_at", "changed_at", "again_at")},
        "version": outbox.c.version + 1,
        "remote_id": sa.case((same, outbox.c.remote_id), else_=None),
        "state": "waiting",
        "reason": None,
        "attempts": 0,
    }
    newer = sa.and_(outbox.c.asked_at <= row.excluded.asked_at, outbox.c.wanted != row.excluded.wanted)
    return row.on_conflict_do_update(index_elements=_KEY, set_=change, where=newer)


def claim(database: sa.Engine, now: datetime, limit: int = 10) -> tuple[tuple[Connection, tuple[Item, ...]], ...]:
    """
    What is due, by connection, longest waiting first; it is the caller's until it says what came of it.

    limit: for each connection, so that none keeps the others waiting. One that rests has nothing due.
    """
    free = sa.or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until <= now)
    awake = sa.or_(connections.c.again_at.is_(None), connections.c.again_at <= now)
    turn = sa.func.row_number().over(partition_by=outbox.c.project, order_by=(outbox.c.again_at, outbox.c.id))
    waiting = (
        sa.select(outbox.c.id, turn.label("turn"))
        .join(connections, connections.c.project == outbox.c.project)
        .where(outbox.c.state == _WAITING, outbox.c.again_at <= now, free, awake)
        .subquery()
    )
    chosen = sa.select(waiting.c.id).where(waiting.c.turn <= limit)
    due = sa.select(outbox.c.id).where(outbox.c.id.in_(chosen), free).with_for_update(skip_locked=True)
    taken = sa.update(outbox).where(outbox.c.id.in_(due)).values(claimed_until=now + CLAIMED_FOR)
    with database.begin() as connection:
        connection.execute(_UNHURRIED)
        rows = connection.execute(taken.returning(*outbox.c)).mappings().all()
        of = {found.project: found for found in _connections(connection)} if rows else {}
    items = sorted((_item(row) for row in rows), key=lambda item: (item.again_at, item.id))
    projects = dict.fromkeys(item.project for item in items)
    return tuple((of[name], tuple(item for item in items if item.project == name)) for name in projects if name in of)


def sent(database: sa.Engine, item: Item, remote_id: str | None, now: datetime) -> None:
    """The forge shows it; what has changed meanwhile waits on."""
    same = sa.or_(outbox.c.kind == "comment", outbox.c.run_id.is_not_distinct_from(item.run_id))
    values = {
        "state": sa.case((outbox.c.version == item.version, "sent"), else_=outbox.c.state),
        "remote_id": sa.case((same, remote_id or item.remote_id), else_=outbox.c.remote_id),
        "reason": None,
        "attempts": 0,
        "claimed_until": None,
        "sent_at": now,
    }
    fine = {"failures": 0, "reason": None, "again_at": None}
    troubled = sa.or_(
        connections.c.failures > 0, connections.c.reason.is_not(None), connections.c.again_at.is_not(None)
    )
    with database.begin() as connection:
        connection.execute(_UNHURRIED)
        connection.execute(sa.update(outbox).where(outbox.c.id == item.id).values(**values))
        connection.execute(sa.update(connections).where(connections.c.project == item.project, troubled).values(**fine))


def put_off(database: sa.Engine, item: Item, reason: str, again_at: datetime) -> None:
    """It is tried again."""
    values = {"attempts": outbox.c.attempts + 1, "reason": reason, "again_at": again_at, "claimed_until": None}
    with database.begin() as connection:
        connection.execute(sa.update(outbox).where(outbox.c.id == item.id).values(**values))


def let_go(database: sa.Engine, items: Iterable[Item]) -> None:
    """They were not tried after all."""
    ids = [item.id for item in items]
    if not ids:
        return
    with database.begin() as connection:
        connection.execute(sa.update(outbox).where(outbox.c.id.in_(ids)).values(claimed_until=None))


def refused(database: sa.Engine, item: Item, reason: str) -> None:
    """It is not tried again, unless somebody asks for it or it changes."""
    state = sa.case((outbox.c.version == item.version, "failed"), else_=outbox.c.state)
    values = {"state": state, "reason": reason, "attempts": outbox.c.attempts + 1, "claimed_until": None}
    with database.begin() as connection:
        connection.execute(sa.update(outbox).where(outbox.c.id == item.id).values(**values))


def rest(database: sa.Engine, project: str, reason: str | None, until: datetime, *, failed: bool) -> None:
    """The forge of a project is left alone for a while. failed: it did not answer as it should."""
    failures = connections.c.failures + 1 if failed else connections.c.failures
    values = {"reason": reason, "again_at": until, "failures": failures}
    with database.begin() as connection:
        connection.execute(sa.update(connections).where(connections.c.project == project).values(**values))


def note(database: sa.Engine, project: str, reason: str) -> None:
    """Show with the connection why the forge refused."""
    with database.begin() as connection:
        connection.execute(sa.update(connections).where(connections.c.project == project).values(reason=reason))


def retry(database: sa.Engine, now: datetime, *, project: str | None = None, item_id: int | None = None) -> int:
    """
    Try at once what failed or waits. Returns: how many.

    Raises: NotFoundError when nothing answers to the number.
    """
    wanted = [outbox.c.state != "sent"]
    wanted += [outbox.c.project == project] if project else []
    wanted += [outbox.c.id == item_id] if item_id is not None else []
    values = {"state": "waiting", "again_at": now, "changed_at": now, "attempts": 0}
    with database.begin() as connection:
        change = sa.update(outbox).where(*wanted).values(**values).returning(outbox.c.project)
        found = connection.execute(change).scalars().all()
        awake = {"again_at": None, "failures": 0}
        connection.execute(sa.update(connections).where(connections.c.project.in_(set(found))).values(**awake))
    if item_id is not None and not found:
        raise NotFoundError(f"nothing with the number {item_id} failed or waits", remedy="see `penstock answers list`")
    return len(found)


def list_items(
    database: sa.Engine, *, project: str | None = None, state: str | None = None, limit: int = 50
) -> tuple[Item, ...]:
    """The newest change first."""
    wanted = sa.select(outbox).order_by(outbox.c.changed_at.desc(), outbox.c.id.desc()).limit(limit)
    wanted = wanted.where(outbox.c.project == project) if project else wanted
    wanted = wanted.where(outbox.c.state == state) if state else wanted
    with database.connect() as connection:
        return tuple(_item(row) for row in connection.execute(wanted).mappings())


def forget_old(database: sa.Engine, now: datetime) -> int:
    """Forget what was shown months ago. Returns: how many."""
    old = sa.delete(outbox).where(outbox.c.changed_at < now - KEPT_FOR, outbox.c.state != "waiting")
    with database.begin() as connection:
        return connection.execute(old).rowcount


def _item(row: Mapping[Any, Any]) -> Item:
    return Item(**{field.name: row[field.name] for field in attrs.fields(Item)})
