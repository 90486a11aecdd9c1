"""Tokens of the data API: minted for one step, alive for minutes, known to the database by their hash alone."""

import hashlib
import hmac
import secrets
from datetime import timedelta

import attrs
import sqlalchemy as sa

from penstock.errors import InputError
from penstock.plugins.data.scope import Scope
from penstock.state.plugin_tables import plugin_tokens

PREFIX = "ppd_"
LONGEST_LIFE = timedelta(days=2)
KEPT = timedelta(days=7)
"""How long the record of a token outlives it."""


def mint(database: sa.Engine, scope: Scope, lives: timedelta) -> str:
    """
    A new token of 256 random bits for `scope`; nobody can read it again.

    Raises: InputError when it would live for no time or too long.
    """
    if not timedelta(0) < lives <= LONGEST_LIFE:
        raise InputError("a token lives for more than nothing and at most two days", where="plugin data")
    token = PREFIX + secrets.token_urlsafe(32)
    row = {**attrs.asdict(scope), "hash": _hash(token), "expires_at": sa.func.now() + lives}
    with database.begin() as connection:
        connection.execute(sa.insert(plugin_tokens).values(row))
    return token


def revoke(database: sa.Engine, token: str) -> None:
    """From now on nobody's; also when it already was."""
    mine = sa.and_(plugin_tokens.c.hash == _hash(token), plugin_tokens.c.revoked_at.is_(None))
    with database.begin() as connection:
        connection.execute(sa.update(plugin_tokens).where(mine).values(revoked_at=sa.func.now()))


def scope_of(database: sa.Engine, token: str) -> Scope | None:
    """Whose token this is; None when it is nobody's, was revoked, or has expired."""
    if not token.startswith(PREFIX) or len(token) > 200:
        return None
    wanted = sa.select(plugin_tokens).where(
        plugin_tokens.c.hash == _hash(token),
        plugin_tokens.c.revoked_at.is_(None),
        plugin_tokens.c.expires_at > sa.func.clock_timestamp(),
    )
    with database.connect() as connection:
        row = connection.execute(wanted).mappings().first()
    if row is None or not hmac.compare_digest(row["hash"], _hash(token)):
        return None
    return Scope(**{each.name: row[each.name] for each in attrs.fields(Scope)})


def sweep(connection: sa.Connection) -> None:
    """Forget tokens that ended long ago."""
    connection.execute(sa.delete(plugin_tokens).where(plugin_tokens.c.expires_at < sa.func.now() - KEPT))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
