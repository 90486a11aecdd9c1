"""From raw bytes and headers to the typed structs of a forge; every failure is an EventError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeVar
from urllib.parse import parse_qs

import msgspec

from penstock.errors import EventError

T = TypeVar("T")

# Beyond 2**53 JSON numbers are no longer the same everywhere; no forge counts that far.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
ABSENT = msgspec.Raw()
Number = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


def header(headers: Mapping[str, str], name: str) -> str | None:
    """The value of a header whatever its letter case, stripped; None where it is absent or empty."""
    value = headers.get(name)
    if value is None:
        wanted = name.lower()
        value = next((v for k, v in headers.items() if k.lower() == wanted), None)
    return (value.strip() or None) if value else None


def decode(forge: str, body: bytes, of_type: type[T]) -> T:
    """
    `body` as `of_type`; members that the type does not name are skipped unread.

    Raises: EventError for what is not JSON, is nested too deep, or has another shape.
    """
    try:
        return msgspec.json.decode(_unwrapped_form(body), type=of_type)
    except msgspec.ValidationError as fault:
        raise EventError(f"the body is no event of this forge: {fault}", where=forge) from fault
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise EventError(f"the body is not JSON: {fault}", where=forge) from fault
    except RecursionError as fault:
        raise EventError("the body is nested too deep", where=forge) from fault


def is_told(member: msgspec.Raw) -> bool:
    """Whether a member that was left undecoded is there and not null."""
    return bytes(member) not in (b"", b"null")


def required(forge: str, value: T | None, name: str) -> T:
    """`value`, or an EventError that names the missing member."""
    if value is None or value == "":
        raise EventError(f"the body has no {name}", where=forge)
    return value


def number_in(forge: str, told: str | int | None, name: str) -> int:
    """A pull request's number from a member that may be text. Raises: EventError."""
    text = str(required(forge, told, name))
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise EventError(f"{name} is no pull request number", where=forge)
    return int(text)


def _unwrapped_form(body: bytes) -> bytes:
    # GitHub, Gitea and Forgejo can be told to send the JSON as a form field; the signature is over the form.
    if not body.startswith(b"payload="):
        return body
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=16)
    return fields.get("payload", [""])[0].encode("utf-8", "replace")
