"""
The inbox: an event is on disk before anybody is told that it was accepted.

A push's key is its project, ref and commits, so that a hook, its repetition and the poll that finds
the same push are one event; a ref that goes the same way once more (there, back by force, there) makes
another. Pull requests and releases, which no poll sees, have the key of their forge's event. Whoever wants
to start an event claims it first; a claim that came to nothing lapses.
"""

import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import InputError, NotFoundError
from penstock.sources.projects import is_commit
from penstock.state.tables import heads, inbox, runs

CLAIM_LAPSES_AFTER = timedelta(seconds=20)
NOTHING = "0" * 40
_PART = re.compile(r"[0-9a-f]{7,64}")


@attrs.frozen
class Push:
    """A branch or tag that moved. before: None when it is not known or there was none. source: who said so."""

    project: str
    ref: str
    commit: str
    before: str | None = None
    source: str = "hook"
    author: str | None = None
    about: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def kind(self) -> str:
        """push for a branch, tag for a tag."""
        return "tag" if self.ref.startswith("refs/tags/") else "push"

    @property
    def key(self) -> str:
        """The same for every way in which this push may be reported."""
        return f"{self.project}:{self.kind}:{self.ref}:{self.before or NOTHING}..{self.commit}"


@attrs.frozen
class Told:
    """
    A pull request's head or a release, as a forge told of it.

    commit: a full hash, at least seven digits of one, or NOTHING where the forge named none: then `ref` decides.
    key: the same however often it is told. held: why a person has to let it go first; None when it may start.
    """

    project: str
    kind: Literal["pull_request", "release"]
    ref: str
    commit: str
    key: str
    author: str | None = None
    about: Mapping[str, Any] = attrs.field(factory=dict)
    source: str = "hook"
    held: str | None = None


@attrs.frozen
class EventRecord:
    """An event in the inbox, and what became of it. by_rule: ignored because it was not to run, as `close` says."""

    id: int
    key: str
    project: str
    kind: str
    ref: str
    commit: str
    source: str
    state: str
    reason: str | None
    run_id: str | None
    received_at: datetime
    attempts: int
    before: str | None = None
    about: Mapping[str, Any] = attrs.field(factory=dict)
    by_rule: bool = False

    @property
    def claimed_before(self) -> bool:
        """Whether somebody claimed it before and came to nothing."""
        return self.attempts > 1


def accept(database: sa.Engine, push: Push) -> EventRecord | None:
    """
    Store a push.

    Returns: the event; None when it is known already, or says nothing new (the ref is where it says).
    Raises: InputError when it is no push of a branch or tag.
    """
    with database.begin() as connection:
        return accept_in(connection, push)


def accept_in(connection: sa.Connection, push: Push, *, again: str = "") -> EventRecord | None:
    """
    The same inside a transaction.

    again: makes it another event although it is known: a person wants it once more.
    """
    _check(push.ref, push.commit)
    lock_refs(connection, [(push.project, push.ref)])
    if again:
        found = _store(connection, push, f"{push.key}#{again}")
        return _record(found) if found else None
    known = _head(connection, push)
    if known == push.commit:
        return None
    told = attrs.evolve(push, before=push.before if is_commit(push.before or "") else known)
    found = _store(connection, told, told.key)
    if found is None and told.before == known:
        found = _store(connection, told, _next_key(connection, told))
    if told.before == known or not _is_superseded(connection, told):
        _move_head(connection, push)
    return _record(found) if found else None


def _move_head(connection: sa.Connection, push: Push) -> None:
    move = insert(heads).values(project=push.project, ref=push.ref, commit=push.commit)
    changed = {"commit": push.commit, "seen_at": sa.func.now()}
    connection.execute(move.on_conflict_do_update(index_elements=["project", "ref"], set_=changed))


def accept_told(connection: sa.Connection, told: Told) -> EventRecord | None:
    """
    Store a pull request's head or a release. Older heads of a pull request that are still held never run.

    Returns: the event; None when it is known already.
    Raises: InputError for a ref or commit that cannot be.
    """
    _check_told(told)
    values = attrs.asdict(told, filter=attrs.filters.exclude("held"))
    state = {"state": "held" if told.held else "received", "reason": told.held}
    row = insert(inbox).values(**values, **state).on_conflict_do_nothing(index_elements=["key"]).returning(*inbox.c)
    found = connection.execute(row).mappings().first()
    if found and told.kind == "pull_request":
        older = (inbox.c.project == told.project, inbox.c.ref == told.ref, inbox.c.id < found["id"])
        gone = {"state": "ignored", "reason": f"a newer head of the pull request came ({told.commit[:12]})"}
        connection.execute(sa.update(inbox).where(*older, inbox.c.state == "held").values(**gone))
    return _record(found) if found else None


def ignore_in(connection: sa.Connection, event: EventRecord, reason: str) -> None:
    """It came in, and runs never, because its author asked for that."""
    values = {"state": "ignored", "reason": reason, "by_rule": True}
    connection.execute(sa.update(inbox).where(inbox.c.id == event.id).values(**values))


def let_start(database: sa.Engine, event_id: int, actor: str) -> EventRecord:
    """
    A person lets a held event start; later ones of its author are not held.

    Raises: NotFoundError when no event with this number is held.
    """
    about = inbox.c.about.op("||")(sa.cast({"approved_by": actor}, inbox.c.about.type))
    change = sa.update(inbox).where(inbox.c.id == event_id, inbox.c.state == "held")
    with database.begin() as connection:
        done = change.values(state="received", reason=None, about=about).returning(*inbox.c)
        row = connection.execute(done).mappings().first()
    if row is None:
        raise NotFoundError(f"no event {event_id} waits for approval", remedy="see `penstock hook deliveries`")
    return _record(row)


def is_trusted(connection: sa.Connection, project: str, author: str | None) -> bool:
    """Whether somebody let an earlier event of this author start."""
    same = (inbox.c.project == project, inbox.c.author == author, inbox.c.about.has_key("approved_by"))
    return bool(author) and connection.execute(sa.select(inbox.c.id).where(*same).limit(1)).first() is not None


def forget_head(
    connection: sa.Connection, project: str, ref: str, commit: str | None, *, seen_until: datetime | None = None
) -> bool:
    """
    The ref is gone, so that its coming again is news. Returns: whether it was known.

    commit: where it was; another head, or one that was seen after `seen_until`, stays: the report came too late.
    """
    lock_refs(connection, [(project, ref)])
    gone = sa.delete(heads).where(heads.c.project == project, heads.c.ref == ref)
    if commit:
        gone = gone.where(heads.c.commit == commit)
    if seen_until:
        gone = gone.where(heads.c.seen_at < seen_until)
    return bool(connection.execute(gone).rowcount)


def correct(database: sa.Engine, event: EventRecord, commit: str, before: str | None) -> EventRecord:
    """The event's commit as git knows it, where the forge told a tag object, a part of it or nothing at all."""
    with database.begin() as connection:
        lock_refs(connection, [(event.project, event.ref)])
        values = {"commit": commit, "before": before}
        connection.execute(sa.update(inbox).where(inbox.c.id == event.id).values(**values))
        same = (heads.c.project == event.project, heads.c.ref == event.ref, heads.c.commit == event.commit)
        connection.execute(sa.update(heads).where(*same).values(commit=commit))
    return attrs.evolve(event, commit=commit, before=before)


def _check(ref: str, commit: str) -> None:
    if not ref.startswith(("refs/heads/", "refs/tags/")) or "\0" in ref or len(ref) > 500:
        raise InputError(f'"{ref}" is no branch', where="ref", remedy="give refs/heads/NAME or refs/tags/NAME")
    if not is_commit(commit):
        raise InputError(f'"{commit[:80]}" is no commit', where="commit", remedy="give the full hash")


def _check_told(told: Told) -> None:
    if not told.ref.startswith("refs/") or "\0" in told.ref or len(told.ref) > 500:
        raise InputError(f'"{told.ref[:80]}" is no ref of a {told.kind}', where="ref")
    if not _PART.fullmatch(told.commit):
        raise InputError(f'"{told.commit[:80]}" is no commit', where="commit")


def ask_for_run(
    database: sa.Engine,
    project: str,
    ref: str,
    commit: str,
    *,
    actor: str,
    kind: str = "manual",
    key: str | None = None,
) -> EventRecord | None:
    """
    Store that a run is wanted although nothing was pushed: by a person (kind manual) or the clock (kind schedule).

    key: what makes it the same event; by default each is one of its own.
    Returns: the event; None when it is known already.
    Raises: InputError when ref or commit is none.
    """
    _check(ref, commit)
    named = key or f"{project}:{kind}:{uuid.uuid4()}"
    row = insert(inbox).values(
        key=named, project=project, kind=kind, ref=ref, commit=commit, source=kind, author=actor, about={"actor": actor}
    )
    stored = row.on_conflict_do_nothing(index_elements=["key"]).returning(*inbox.c)
    with database.begin() as connection:
        found = connection.execute(stored).mappings().first()
    return _record(found) if found else None


def find(database: sa.Engine, key: str) -> EventRecord | None:
    """The event with this key."""
    with database.connect() as connection:
        row = connection.execute(sa.select(inbox).where(inbox.c.key == key)).mappings().first()
    return _record(row) if row else None


def _store(connection: sa.Connection, push: Push, key: str) -> sa.RowMapping | None:
    row = insert(inbox).values(kind=push.kind, key=key, **attrs.asdict(push))
    stored = row.on_conflict_do_nothing(index_elements=["key"]).returning(*inbox.c)
    return connection.execute(stored).mappings().first()


def _next_key(connection: sa.Connection, push: Push) -> str:
    """For a way that the ref has gone before, and goes again from where it is."""
    same = sa.or_(inbox.c.key == push.key, inbox.c.key.startswith(f"{push.key}#", autoescape=True))
    times = connection.execute(sa.select(sa.func.count()).where(same)).scalar_one()
    return f"{push.key}#{times + 1}"


def _is_superseded(connection: sa.Connection, push: Push) -> bool:
    """Whether the ref is known to have moved on from the push's commit: this report came too late to be its head."""
    moved_on = (inbox.c.project == push.project, inbox.c.ref == push.ref, inbox.c.before == push.commit)
    return connection.execute(sa.select(inbox.c.id).where(*moved_on).limit(1)).first() is not None


def lock_refs(connection: sa.Connection, refs: Iterable[tuple[str, str]]) -> None:
    """Whoever else reports one of these (project, ref) waits until the transaction ends; always in the same order."""
    for project, ref in sorted(set(refs)):
        lock = sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"{project}:{ref}", 0))
        connection.execute(sa.select(lock))


def _head(connection: sa.Connection, push: Push) -> str | None:
    wanted = sa.select(heads.c.commit).where(heads.c.project == push.project, heads.c.ref == push.ref)
    return connection.execute(wanted).scalar()


def claim(database: sa.Engine, *, older_than: timedelta = timedelta(0), limit: int = 20) -> tuple[EventRecord, ...]:
    """
    Events that nobody has started, oldest first; each is the caller's until the claim lapses.

    One that waits for its concurrency group is left alone until it is the group's turn.
    """
    now = sa.func.now()
    free = sa.or_(inbox.c.claimed_at.is_(None), inbox.c.claimed_at < now - CLAIM_LAPSES_AFTER)
    waiting = sa.select(inbox.c.id).where(inbox.c.state == "received", free, inbox.c.received_at <= now - older_than)
    waiting = waiting.where(~_group_is_busy())
    chosen = waiting.order_by(inbox.c.id).limit(limit).with_for_update(skip_locked=True)
    with database.begin() as connection:
        taken = (
            sa.update(inbox)
            .where(inbox.c.id.in_(chosen))
            .values(claimed_at=now, attempts=inbox.c.attempts + 1)
            .returning(*inbox.c)
        )
        rows = connection.execute(taken).mappings().all()
    return tuple(_record(row) for row in sorted(rows, key=lambda row: row["id"]))


def _group_is_busy() -> sa.ColumnElement[bool]:
    """Whether a run of the event's group is not over yet, or an older event of it waits too."""
    older = inbox.alias("older")
    same = (older.c.project == inbox.c.project, older.c.concurrency_group == inbox.c.concurrency_group)
    before = sa.exists().where(*same, older.c.state == "received", older.c.id < inbox.c.id)
    of_group = (runs.c.project == inbox.c.project, runs.c.concurrency_group == inbox.c.concurrency_group)
    running = sa.exists().where(*of_group, runs.c.state.in_(("queued", "running")))
    return sa.and_(inbox.c.concurrency_group.is_not(None), sa.or_(before, running))


def wait_for_group(database: sa.Engine, event: EventRecord, group: str, *, newest_only: bool) -> tuple[str, ...]:
    """
    Join a concurrency group. If it is not the event's turn it waits, and nobody holds it.

    newest_only: those that wait in the group already never run.
    Returns: the runs of the group that are not over; empty when the event may start now.
    """
    in_group = (inbox.c.project == event.project, inbox.c.concurrency_group == group, inbox.c.state == "received")
    of_group = (runs.c.project == event.project, runs.c.concurrency_group == group)
    unfinished = sa.select(runs.c.id).where(*of_group, runs.c.state.in_(("queued", "running")))
    with database.begin() as connection:
        _lock_group(connection, event.project, group)
        if newest_only:
            gone = {"state": "ignored", "reason": f"a newer {event.kind} of its group came ({event.commit[:12]})"}
            connection.execute(sa.update(inbox).where(*in_group, inbox.c.id < event.id).values(**gone))
        connection.execute(sa.update(inbox).where(inbox.c.id == event.id).values(concurrency_group=group))
        running = tuple(connection.execute(unfinished).scalars())
        older = connection.execute(sa.select(inbox.c.id).where(*in_group, inbox.c.id < event.id).limit(1)).first()
        if running or older:
            why = f"waits for its turn in the group {group}"
            change = sa.update(inbox).where(inbox.c.id == event.id)
            connection.execute(change.values(claimed_at=None, attempts=inbox.c.attempts - 1, reason=why))
            return running or (f"event {older.id}" if older else "",)
    return ()


def _lock_group(connection: sa.Connection, project: str, group: str) -> None:
    lock = sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"group:{project}:{group}", 0))
    connection.execute(sa.select(lock))


def close(
    database: sa.Engine,
    event: EventRecord,
    *,
    run_id: str | None = None,
    reason: str | None = None,
    by_rule: bool = False,
) -> None:
    """
    The event was started as a run, or is ignored for a reason. One that is started already stays so.

    by_rule: the triggers or its author's own word keep it from running, so that nothing is missing.
    """
    state = "started" if run_id else "ignored"
    values = {"state": state, "run_id": run_id, "reason": reason, "by_rule": by_rule}
    with database.begin() as connection:
        connection.execute(sa.update(inbox).where(inbox.c.id == event.id, inbox.c.run_id.is_(None)).values(**values))


def let_go(
    database: sa.Engine, event: EventRecord, reason: str, *, again_after: timedelta = CLAIM_LAPSES_AFTER
) -> None:
    """It could not be started just now; somebody tries again after a while. The reason can be seen."""
    claimed_at = sa.func.now() - CLAIM_LAPSES_AFTER + again_after
    with database.begin() as connection:
        values = {"reason": reason, "claimed_at": claimed_at}
        connection.execute(sa.update(inbox).where(inbox.c.id == event.id).values(**values))


def list_events(
    database: sa.Engine, *, project: str | None = None, state: str | None = None, limit: int = 50
) -> tuple[EventRecord, ...]:
    """Newest first. state: received, held, started or ignored; None is any."""
    wanted = sa.select(inbox).order_by(inbox.c.id.desc()).limit(limit)
    if project:
        wanted = wanted.where(inbox.c.project == project)
    if state:
        wanted = wanted.where(inbox.c.state == state)
    with database.connect() as connection:
        return tuple(_record(row) for row in connection.execute(wanted).mappings())


def _record(row: sa.RowMapping) -> EventRecord:
    return EventRecord(**{field.name: row[field.name] for field in attrs.fields(EventRecord)})
