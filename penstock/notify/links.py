"""
Links in mails that approve or reject: random, single use, for one person and one request.

A token is 256 random bits; the database keeps its SHA-256. It answers for the person to whom the mail went, and for
the request that the mail was about: commit, graph and digest. It is worth nothing once either link of the mail was
used, the request is over, or it has expired. Looking at a link answers nothing: mail scanners look at all of them.
"""

import secrets
from datetime import datetime
from typing import Literal

import attrs
import sqlalchemy as sa

from penstock.errors import ConflictError, NotFoundError
from penstock.people.tokens import hash_of
from penstock.people.users import find_users
from penstock.pipeline.approval_rows import Request, get_request
from penstock.pipeline.approvals import answer
from penstock.pipeline.log import utc_now
from penstock.state.people_tables import approval_links

Decision = Literal["approved", "rejected"]
_table = approval_links


@attrs.frozen
class Link:
    """What a link would do if it were used."""

    request: Request
    person: str
    decision: Decision


def make_links(connection: sa.Connection, request_id: int, person: str) -> tuple[str, str]:
    """Tokens that approve and that reject; both are known to nobody but the caller."""
    tokens = {decision: secrets.token_urlsafe(32) for decision in ("approved", "rejected")}
    rows = [
        {"hash": hash_of(token), "request_id": request_id, "person": person, "decision": decision}
        for decision, token in tokens.items()
    ]
    connection.execute(sa.insert(_table), rows)
    return tokens["approved"], tokens["rejected"]


def look_at(database: sa.Engine, token: str, now: datetime | None = None) -> Link:
    """
    What a link is for; changes nothing.

    Raises: NotFoundError for one that there never was; ConflictError when it is worth nothing any more.
    """
    with database.connect() as connection:
        return _valid(connection, token, now or utc_now())


def use(database: sa.Engine, token: str, why: str = "", now: datetime | None = None) -> Request:
    """
    Answer with a link; it and its fellow are worth nothing from then on.

    Raises: as `look_at`, and as `penstock.pipeline.approvals.answer`.
    """
    now = now or utc_now()
    with database.begin() as connection:
        connection.execute(sa.select(_table).where(_table.c.hash == hash_of(token)).with_for_update())
        link = _valid(connection, token, now)
        # Taken first: a link whose answer is refused, or whose process dies here, has to be asked for anew, not twice.
        both = (_table.c.request_id == link.request.id, _table.c.person == link.person)
        connection.execute(sa.update(_table).where(*both, _table.c.used_at.is_(None)).values(used_at=now))
    approved = link.decision == "approved"
    return answer(
        database,
        link.request.id,
        link.person,
        approved=approved,
        how="mail",
        why=why,
        digest=link.request.digest,
        now=now,
    )


def _valid(connection: sa.Connection, token: str, now: datetime) -> Link:
    row = connection.execute(sa.select(_table).where(_table.c.hash == hash_of(token))).mappings().first()
    if row is None:
        raise NotFoundError("there is no such link", remedy="use the link of the mail as it is")
    request = get_request(connection, row["request_id"])
    elsewhere = "answer with `penstock approve`, or on the page Approvals"
    if row["used_at"] is not None:
        raise ConflictError("the link has been used", remedy=elsewhere)
    if not find_users(connection, [row["person"]]):
        raise ConflictError("the link's owner is no user any more", remedy=elsewhere)
    if request.state != "waiting":
        raise ConflictError(f"the request is {request.state}: {request.reason or ''}", remedy="nothing is left to do")
    if now > request.expires_at:
        raise ConflictError("the link has expired", remedy="run the gate again, which asks anew")
    return Link(request, row["person"], row["decision"])
