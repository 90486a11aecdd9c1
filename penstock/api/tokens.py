"""This machine's own token: made at the first start, in a file of its owner; it lets do everything."""

import secrets
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import AccessError
from penstock.people.tokens import PREFIX, SCOPES, hash_of
from penstock.people.users import LOCAL
from penstock.settings import Settings, keep_secret
from penstock.state.tables import tokens


def token_file(settings: Settings) -> Path:
    """Where this machine's own token lies, mode 0600."""
    return settings.home / "token"


def ensure_local_token(database: sa.Engine, settings: Settings) -> None:
    """Make this machine's token at the first start; make it known to a database that does not know it."""
    path = token_file(settings)
    if not path.exists():
        keep_secret(path, PREFIX + secrets.token_urlsafe(32))
    path.chmod(0o600)
    row = insert(tokens).values(id=LOCAL, hash=hash_of(path.read_text()), subject=LOCAL, scopes=list(SCOPES))
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
