"""The audit: who changed what on the platform, when. Rows are added, never changed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs
import sqlalchemy as sa

from penstock.state.tables import audit


@attrs.frozen
class Change:
    """
    One change. actor: a user, a system's account, `local` for this machine's token, or Penstock itself.

    action: thing and verb, such as run.cancel. subject: the thing's name. detail: plain values, no secret.
    """

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


def record(database: sa.Engine, actor: str, action: str, subject: str, **detail: Any) -> None:
    """
    One more row: `actor` changed something.

    action: thing and verb, such as run.cancel. subject: the thing's name. detail: plain values, no secret.
    """
    with database.begin() as connection:
        record_in(connection, actor, action, subject, **detail)


def record_in(connection: sa.Connection, actor: str, action: str, subject: str, **detail: Any) -> None:
    """The same inside a transaction: the change and its record, both or neither."""
    connection.execute(sa.insert(audit).values(actor=actor, action=action, subject=subject, detail=detail))


def list_changes(
    connection: sa.Connection,
    *,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    before: int | None = None,
    limit: int = 50,
) -> tuple[Change, ...]:
    """The newest first. action: in full, or its thing alone (run). before: a change's number, older ones than that."""
    wanted = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
    wanted = wanted.where(audit.c.actor == actor) if actor else wanted
    if action:
        wanted = wanted.where(
            sa.or_(audit.c.action == action, audit.c.action.startswith(f"{action}.", autoescape=True))
        )
    wanted = wanted.where(audit.c.subject == subject) if subject else wanted
    wanted = wanted.where(audit.c.at >= since) if since else wanted
    wanted = wanted.where(audit.c.id < before) if before is not None else wanted
    names = [field.name for field in attrs.fields(Change)]
    return tuple(Change(**{name: row[name] for name in names}) for row in connection.execute(wanted).mappings())
