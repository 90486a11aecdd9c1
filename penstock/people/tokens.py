"""API tokens of users: made once, shown once; the database knows only their hash, what they may, and until when."""

import hashlib
import hmac
import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import attrs
import sqlalchemy as sa

from penstock.errors import InputError, NotFoundError
from penstock.people.users import LOCAL, get_user
from penstock.state.tables import tokens

Scope = Literal["read", "write", "approve", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "pst_"
_LABEL_LIMIT = 200
_NOTED_EVERY = timedelta(minutes=5)


@attrs.frozen
class Token:
    """A token without its secret. label: what its owner calls it. used_at: about when, to five minutes."""

    id: str
    subject: str
    scopes: tuple[Scope, ...]
    label: str
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None


@attrs.frozen
class Bearer:
    """Who brought a token, and what it lets do. subject: a user, or `local`."""

    subject: str
    scopes: frozenset[str]

    def may(self, scope: Scope) -> bool:
        """Whether it lets do that: admin lets do everything, and every token may read."""
        return scope in self.scopes or "admin" in self.scopes or (scope == "read" and bool(self.scopes))


def create_token(
    connection: sa.Connection, user: str, scopes: Collection[str], *, expires_at: datetime | None, label: str = ""
) -> tuple[Token, str]:
    """
    A new token, and its secret, which is told here and never again.

    Raises: NotFoundError for the user; InputError for a scope or label that cannot be.
    """
    get_user(connection, user)
    if unknown := sorted(set(scopes) - set(SCOPES)) or (not scopes and ["nothing"]):
        raise InputError(f'"{unknown[0][:30]}" is no scope', remedy=f"choose from {', '.join(SCOPES)}")
    if len(label) > _LABEL_LIMIT or not (label.isprintable() or not label):
        raise InputError("a label is at most 200 printable characters", remedy="shorten it")
    secret = PREFIX + secrets.token_urlsafe(32)
    row = {
        **{"id": secrets.token_hex(4), "hash": hash_of(secret), "subject": user, "label": label},
        **{"scopes": [scope for scope in SCOPES if scope in scopes], "expires_at": expires_at},
    }
    made = connection.execute(sa.insert(tokens).values(row).returning(*tokens.c)).mappings().one()
    return _token(made), secret


def list_tokens(
    connection: sa.Connection, *, user: str | None = None, after: str = "", limit: int = 1000
) -> tuple[Token, ...]:
    """Of one user or of all, without this machine's own, by their identifiers; expired ones too."""
    wanted = sa.select(tokens).where(tokens.c.id != LOCAL, tokens.c.id > after).order_by(tokens.c.id).limit(limit)
    wanted = wanted.where(tokens.c.subject == user) if user else wanted
    return tuple(_token(row) for row in connection.execute(wanted).mappings())


def revoke_token(connection: sa.Connection, token_id: str) -> Token:
    """It is worth nothing from now on. Raises: NotFoundError."""
    gone = sa.delete(tokens).where(tokens.c.id == token_id, tokens.c.id != LOCAL).returning(*tokens.c)
    if not (row := connection.execute(gone).mappings().first()):
        raise NotFoundError(f'no token has the identifier "{token_id}"', remedy="list them with `penstock token list`")
    return _token(row)


def bearer_of(database: sa.Engine, token: str) -> Bearer | None:
    """Who brings this token; None when it is nobody's, or has expired."""
    wanted = sa.select(tokens).where(
        tokens.c.hash == hash_of(token), sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > sa.func.now())
    )
    with database.connect() as connection:
        row = connection.execute(wanted).first()
    if row is None or not hmac.compare_digest(row.hash, hash_of(token)):
        return None
    if row.id == LOCAL:
        return Bearer(LOCAL, frozenset(SCOPES))
    if row.used_at is None or row.used_at < datetime.now(UTC) - _NOTED_EVERY:
        with database.begin() as connection:
            connection.execute(sa.update(tokens).where(tokens.c.id == row.id).values(used_at=sa.func.now()))
    return Bearer(row.subject, frozenset(row.scopes))


def hash_of(token: str) -> bytes:
    """What is kept of a token: it is random and long, so that its SHA-256 tells nothing."""
    return hashlib.sha256(token.encode()).digest()


def _token(row: sa.RowMapping) -> Token:
    values = {field.name: row[field.name] for field in attrs.fields(Token)}
    return Token(**{**values, "scopes": tuple(row["scopes"])})
