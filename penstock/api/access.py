"""
Who asks: the token of a request, what it may, and the record of what its owner changed.

Reading asks for the scope `read`, changing for `write`; answering gates for `approve`, and changing people, tokens,
environments or plugins for `admin`, which includes the others.
"""

import re
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from penstock.errors import AccessError, ForbiddenError
from penstock.people.audit import record, record_in
from penstock.people.tokens import Bearer, Scope, bearer_of

__all__ = ["Actor", "Bearer", "Carrier", "authorised", "bearer", "record", "record_in", "scope_of"]

_bearer = HTTPBearer(auto_error=False, description="The token that lies in PENSTOCK_HOME/token.")


_READING = ("GET", "HEAD", "OPTIONS")
_CHANGES: tuple[tuple[re.Pattern[str], Scope], ...] = (
    (re.compile(r"/(approvals|environments/[^/]+/freezes)(/|$)"), "approve"),
    (re.compile(r"/(users|groups|tokens|environments|plugins)(/|$)"), "admin"),
)


def bearer(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Bearer:
    """Who came, with a token that lets do what is asked. Raises: AccessError; ForbiddenError for a lesser token."""
    found = bearer_of(request.app.state.database, given.credentials) if given else None
    if found is None:
        raise AccessError("a valid token is needed", remedy="send `Authorization: Bearer` and a token")
    scope = scope_of(request.method, request.scope["route"].path)
    if not found.may(scope):
        remedy = f"use one with it: `penstock token create {found.subject} --scope {scope}`"
        raise ForbiddenError(f"the token does not have the scope {scope}", remedy=remedy)
    return found


def scope_of(method: str, path: str) -> Scope:
    """What a token needs for a route. path: as the route declares it, with or without the API's prefix."""
    if method in _READING:
        return "read"
    own = path.removeprefix("/api/v1")
    return next((scope for pattern, scope in _CHANGES if pattern.match(own)), "write")


Carrier = Annotated[Bearer, Depends(bearer)]


def authorised(found: Carrier) -> str:
    """Whose token came along: a user's name, or `local`."""
    return found.subject


Actor = Annotated[str, Depends(authorised)]
