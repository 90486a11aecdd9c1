"""Tokens: made once, shown never again; the database knows only their hash."""

import hashlib
import hmac
import secrets
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import AccessError
from penstock.settings import Settings, keep_secret
from penstock.state.tables import tokens

PREFIX = "pst_"
LOCAL = "local"


def token_file(settings: Settings) -> Path:
    """Where this machine's own token lies, mode 0600."""
    return settings.home / "token"


def ensure_local_token(database: sa.Engine, settings: Settings) -> None:
    """Make this machine's token at the first start; make it known to a database that does not know it."""
    path = token_file(settings)
    if not path.exists():
        keep_secret(path, PREFIX + secrets.token_urlsafe(32))
    path.chmod(0o600)
    row = insert(tokens).values(id=LOCAL, hash=_hash(path.read_text()), subject=LOCAL)
    known = row.on_conflict_do_update(index_elements=["id"], set_={"hash": row.excluded.hash})
    with database.begin() as connection:
        connection.execute(known)


def read_local_token(settings: Settings) -> str:
    """Raises: AccessError when there is none, or it is somebody else's."""
    try:
        return token_file(settings).read_text()
    except OSError as error:
        raise AccessError(
            f"cannot read the token: {error.strerror}", where=str(token_file(settings)), remedy="start `penstock up`"
        ) from error


def subject_of(database: sa.Engine, token: str) -> str | None:
    """Whose token this is; None when nobody's, or it has expired."""
    wanted = sa.select(tokens.c.subject, tokens.c.hash).where(
        tokens.c.hash == _hash(token), sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > sa.func.now())
    )
    with database.connect() as connection:
        row = connection.execute(wanted).first()
    return row.subject if row and hmac.compare_digest(row.hash, _hash(token)) else None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
