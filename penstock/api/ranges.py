"""
What a request says of bytes: the part that it wants, what it has already, and what the whole must hash to.

Sources: RFC 9110 sections 13 and 14 (conditions, ranges), RFC 9530 (Repr-Digest), RFC 3230 (Digest).
"""

import base64
import binascii
import re
from collections.abc import Mapping
from http import HTTPStatus

import attrs

from penstock.api.problems import HttpError
from penstock.errors import InputError

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE | re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}")
_CHECKSUM = "X-Checksum-SHA256"


@attrs.frozen
class Part:
    """Bytes from `start` to before `end` of `size`."""

    start: int
    end: int
    size: int

    @property
    def content_range(self) -> str:
        """As the header says it: the last byte counts in."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def wanted_part(header: str | None, size: int) -> Part | None:
    """
    The one part that a Range header asks for.

    Returns: None for the whole: no header, another unit, several parts, or one that makes no sense; all of these a
    server may ignore.
    Raises: HttpError 416 when there are no such bytes.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if first and last and int(last) < int(first):
        return None
    if start >= size:
        what = f"it has {size} bytes, and none from {first or 'its end'} on"
        raise HttpError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, what, {"Content-Range": f"bytes */{size}"})
    return Part(start, end, size)


def etag(digest: str) -> str:
    """A strong validator: the bytes under a digest never change."""
    return f'"{digest}"'


def is_known(if_none_match: str | None, digest: str) -> bool:
    """Whether the client has it already."""
    if not if_none_match:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag(digest) in tags


def repr_digest(digest: str) -> str:
    """A digest as Repr-Digest says it."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(digest)).decode()}:"


def expected_digest(checksum: str | None, hashes: Mapping[str, str]) -> str | None:
    """
    The SHA-256 that the bytes must have, as 64 hex digits; None when nobody says.

    checksum: of X-Checksum-SHA256. hashes: header → value, of Repr-Digest and the like; other algorithms are ignored.
    Raises: InputError for one that is none, or two that differ.
    """
    told = set() if checksum is None else {_from_hex(checksum)}
    for header, text in hashes.items():
        told |= _sha256_of(header, text)
    if len(told) > 1:
        raise InputError("they name different hashes", where="headers", remedy="send one checksum")
    return told.pop() if told else None


def _from_hex(text: str) -> str:
    if not _HEX.fullmatch(text.strip().lower()):
        raise InputError("this is no SHA-256", where=_CHECKSUM, remedy="give 64 hex digits")
    return text.strip().lower()


def _sha256_of(header: str, text: str) -> set[str]:
    found = set()
    for entry in text.split(","):
        algorithm, _, value = entry.strip().partition("=")
        if algorithm.strip().lower() == "sha-256":
            found.add(_from_base64(header, value.strip().strip(":")))
    return found


def _from_base64(header: str, text: str) -> str:
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _no_base64(header) from error
    if len(digest) != 32:
        raise _no_base64(header)
    return digest.hex()


def _no_base64(header: str) -> InputError:
    return InputError("this is no SHA-256", where=header, remedy="give sha-256=:BASE64: of its 32 bytes")
