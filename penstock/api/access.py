"""Who asks: the token of a request, and the record of what its owner changed."""

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from penstock.api.tokens import subject_of
from penstock.errors import AccessError
from penstock.state.tables import audit

_bearer = HTTPBearer(auto_error=False, description="The token that lies in PENSTOCK_HOME/token.")


def authorised(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> str:
    """Whose token came along. Raises: AccessError."""
    subject = subject_of(request.app.state.database, given.credentials) if given else None
    if subject is None:
        raise AccessError("a valid token is needed", remedy="send `Authorization: Bearer` and a token")
    return subject


Actor = Annotated[str, Depends(authorised)]


def record(database: sa.Engine, actor: str, action: str, subject: str, **detail: Any) -> None:
    """
    One more row of the audit: `actor` changed something.

    action: thing and verb, such as run.cancel. subject: the thing's name. detail: plain values, no secret.
    """
    with database.begin() as connection:
        record_in(connection, actor, action, subject, **detail)


def record_in(connection: sa.Connection, actor: str, action: str, subject: str, **detail: Any) -> None:
    """The same inside a transaction: the change and its record, both or neither."""
    connection.execute(sa.insert(audit).values(actor=actor, action=action, subject=subject, detail=detail))
