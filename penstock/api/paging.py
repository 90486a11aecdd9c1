"""Lists in pages: a cursor names the last row of a page, and the Link header the next one."""

import base64
import binascii
from datetime import datetime
from typing import Any

from fastapi import Request, Response

from penstock.errors import InputError

PAGED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Link": {"description": 'Where the next page is: <ADDRESS>; rel="next"', "schema": {"type": "string"}}
        }
    }
}


def write_cursor(at: datetime, key: str) -> str:
    """Where a page that is ordered by time and key ended, in letters that an address takes."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {key}".encode()).decode().rstrip("=")


def read_cursor(text: str) -> tuple[datetime, str]:
    """
    What `write_cursor` wrote.

    Raises: InputError.
    """
    try:
        padded = text + "=" * (-len(text) % 4)
        at, _, key = base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition(" ")
        found = datetime.fromisoformat(at)
    except (binascii.Error, ValueError) as error:
        raise _unknown() from error
    if found.tzinfo is None or not key or "\0" in key:
        raise _unknown()
    return found, key


def _unknown() -> InputError:
    return InputError("this is no cursor", where="cursor", remedy="take it from the Link header of the page before")


def link_next(request: Request, response: Response, cursor: str) -> None:
    """Say where the list goes on."""
    url = request.url.include_query_params(cursor=cursor)
    response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
