"""Deliveries on disk: stored once however often they are sent, claimed by whoever works on them, kept for a month."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import ConflictError, NotFoundError
from penstock.state.tables import deliveries, hooks

KEPT_FOR = timedelta(days=30)
State = Literal["received", "done", "ignored", "rejected"]

# Their signature is over the body alone: the same bytes under another id are the same delivery, sent again by whoever
# caught it. GitLab and SNS sign the id too; who can send Azure DevOps' password or GitLab's token can say anything.
SIGNED_BODY = frozenset({"github", "gitea", "forgejo", "bitbucket-cloud", "bitbucket-server"})
# What parsing may ask for; no signature, token or cookie among them.
_KEPT_HEADERS = (
    *("content-type", "user-agent", "x-github-event", "x-gitlab-event", "x-event-key"),
    *("x-gitea-event", "x-gitea-event-type", "x-forgejo-event", "x-forgejo-event-type", "x-gogs-event"),
    "x-amz-sns-message-type",
)
_LONGEST_ID, _LONGEST_HEADER = 200, 500


@attrs.frozen
class NewDelivery:
    """A delivery that was believed. delivery_id: the forge's own; None where it sent none."""

    hook: str
    delivery_id: str | None
    body_hash: bytes | None
    headers: Mapping[str, str]
    body: bytes
    state: State = "received"
    reason: str | None = None


@attrs.frozen
class Delivery:
    """One on record. events: what came of it: {kind, ref, commit, became, reason, event}."""

    id: int
    hook: str
    project: str
    forge: str
    delivery_id: str | None
    headers: Mapping[str, str]
    state: State
    reason: str | None
    events: Sequence[Mapping[str, Any]]
    repeats: int
    replays: int
    attempts: int
    received_at: datetime
    finished_at: datetime | None


@attrs.frozen
class Claimed:
    """One to be worked on now. replays: how often a person asked for it again."""

    id: int
    hook: str
    headers: Mapping[str, str]
    body: bytes
    replays: int
    attempts: int


def new_delivery(
    hook: str, forge: str, delivery_id: str | None, body: bytes, headers: Mapping[str, str]
) -> NewDelivery:
    """What is stored of bytes that came in."""
    lower = {name.lower(): value for name, value in headers.items()}
    kept = {name: storable(lower[name])[:_LONGEST_HEADER] for name in _KEPT_HEADERS if name in lower}
    digest = hashlib.sha256(body).digest() if forge in SIGNED_BODY else None
    return NewDelivery(hook, delivery_id and _as_id(delivery_id), digest, kept, body)


def _as_id(told: str) -> str:
    if len(told) <= _LONGEST_ID and told.isascii() and told.isprintable():
        return told
    return f"sha256:{hashlib.sha256(told.encode('utf-8', 'backslashreplace')).hexdigest()}"


def storable(text: str) -> str:
    """Without what PostgreSQL cannot hold: NUL and halves of surrogate pairs."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def store(database: sa.Engine, new: NewDelivery) -> int | None:
    """
    On disk when this returns. Returns: its number; None when it is known already.

    One that is known and was rejected is worked on again: somebody changed what was wrong and sent it anew.
    Raises: NotFoundError when the hook has gone meanwhile.
    """
    row = insert(deliveries).values(**attrs.asdict(new)).on_conflict_do_nothing().returning(deliveries.c.id)
    try:
        with database.begin() as connection:
            made = connection.execute(row).scalar()
            return int(made) if made is not None else _again(connection, new)
    except sa.exc.IntegrityError as error:
        raise NotFoundError("no hook has this address", remedy="see `penstock hook list`") from error


def _again(connection: sa.Connection, new: NewDelivery) -> int | None:
    told = {deliveries.c.delivery_id: new.delivery_id, deliveries.c.body_hash: new.body_hash}
    alike = [column == value for column, value in told.items() if value is not None]
    same = sa.update(deliveries).where(deliveries.c.hook == new.hook, sa.or_(*alike))
    connection.execute(same.values(repeats=deliveries.c.repeats + 1))
    if new.state != "received":
        return None
    revived = same.where(deliveries.c.state == "rejected").values(state="received", again_at=None, attempts=0)
    return connection.execute(revived.returning(deliveries.c.id)).scalars().first()


def claim(
    connection: sa.Connection, limit: int, *, of: Collection[str] = (), not_of: Collection[str] = ()
) -> tuple[Claimed, ...]:
    """
    Deliveries to work on, oldest first; nobody else gets them until the transaction ends.

    of: of these forges alone; empty: of all but those of `not_of`.
    """
    due = sa.or_(deliveries.c.again_at.is_(None), deliveries.c.again_at <= sa.func.now())
    columns = [deliveries.c[field.name] for field in attrs.fields(Claimed)]
    wanted = sa.select(*columns).where(deliveries.c.state == "received", due).order_by(deliveries.c.id)
    if of or not_of:
        chosen = hooks.c.forge.in_(of) if of else hooks.c.forge.not_in(not_of)
        wanted = wanted.where(deliveries.c.hook.in_(sa.select(hooks.c.id).where(chosen)))
    rows = connection.execute(wanted.limit(limit).with_for_update(skip_locked=True)).mappings()
    return tuple(Claimed(**row) for row in rows)


def finish(
    connection: sa.Connection, delivery: int, state: State, reason: str | None, events: Sequence[Mapping[str, Any]]
) -> None:
    """What became of it."""
    told = {"state": state, "reason": reason and storable(reason), "events": list(events)}
    done = sa.update(deliveries).where(deliveries.c.id == delivery)
    connection.execute(done.values(**told, finished_at=sa.func.clock_timestamp(), attempts=deliveries.c.attempts + 1))


def put_off(database: sa.Engine, delivery: int, reason: str, after_s: float) -> None:
    """It could not be worked on just now; the reason can be seen meanwhile."""
    again_at = sa.func.now() + timedelta(seconds=after_s)
    values = {"reason": storable(reason), "again_at": again_at, "attempts": deliveries.c.attempts + 1}
    with database.begin() as connection:
        connection.execute(sa.update(deliveries).where(deliveries.c.id == delivery).values(**values))


def replay(database: sa.Engine, delivery: int) -> Delivery:
    """
    Work on a delivery once more, because a person says so: its events run again.

    Raises: NotFoundError, ConflictError when it has not been worked on yet.
    """
    known = get_delivery(database, delivery)
    values = {"state": "received", "reason": None, "again_at": None, "attempts": 0, "finished_at": None}
    change = sa.update(deliveries).where(deliveries.c.id == delivery, deliveries.c.state != "received")
    with database.begin() as connection:
        if not connection.execute(change.values(**values, replays=deliveries.c.replays + 1)).rowcount:
            raise ConflictError("it has not been worked on yet", where=f"delivery {known.id}", remedy="wait a moment")
    return get_delivery(database, delivery)


def get_delivery(database: sa.Engine, delivery: int) -> Delivery:
    """Raises: NotFoundError."""
    with database.connect() as connection:
        row = connection.execute(_all().where(deliveries.c.id == delivery)).mappings().first()
    if row is None:
        raise NotFoundError(f"no delivery has the number {delivery}", remedy="see `penstock hook deliveries`")
    return Delivery(**row)


def list_deliveries(
    database: sa.Engine,
    *,
    project: str | None = None,
    hook: str | None = None,
    states: Collection[State] = (),
    limit: int = 50,
) -> tuple[Delivery, ...]:
    """Newest first, without their bodies. states: empty is any."""
    wanted = _all().order_by(deliveries.c.id.desc()).limit(limit)
    wanted = wanted.where(hooks.c.project == project) if project else wanted
    wanted = wanted.where(hooks.c.id == hook) if hook else wanted
    wanted = wanted.where(deliveries.c.state.in_(states)) if states else wanted
    with database.connect() as connection:
        return tuple(Delivery(**row) for row in connection.execute(wanted).mappings())


def _all() -> sa.Select[Any]:
    own = [deliveries.c[f.name] for f in attrs.fields(Delivery) if f.name not in ("project", "forge")]
    return sa.select(*own, hooks.c.project, hooks.c.forge).join(hooks, hooks.c.id == deliveries.c.hook)


def forget_old(database: sa.Engine) -> int:
    """Remove what was finished longer ago than deliveries are kept. Returns: how many there were."""
    old = sa.delete(deliveries).where(deliveries.c.received_at < sa.func.now() - KEPT_FOR)
    with database.begin() as connection:
        return connection.execute(old.where(deliveries.c.state != "received")).rowcount
