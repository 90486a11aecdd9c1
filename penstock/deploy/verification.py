"""What is asked of a release beyond its health: before it gets traffic (verify), and when it has all of it (smoke)."""

import http.client
import re
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import attrs
import msgspec

from penstock.errors import InputError

BODY_LIMIT_BYTES = 4 * 1024**2
EXCERPT_CHARACTERS = 200


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """
    One question, by HTTP or by a command that runs where the instance does.

    path: what is fetched; `status` must come back, and `body` stand in the answer. command: words, or a line for
    /bin/sh; it must exit with 0.
    """

    name: str
    path: str | None = None
    status: int = 200
    body: str = ""
    command: tuple[str, ...] | str | None = None
    timeout_s: float = 10.0


@attrs.frozen
class Checked:
    """What came of the questions: passed, and in words the one that did not, or how many there were."""

    passed: bool
    text: str


def check_checks(checks: Sequence[Check], *, where: str) -> None:
    """Raises: InputError for a question that cannot be asked."""
    for check in checks:
        place = f"{where}.{check.name}"
        if (check.path is None) == (check.command is None):
            raise InputError("asks by a path or by a command, by one of them", where=place, remedy="leave one out")
        if check.path is not None and not re.fullmatch(r"/[!-~]*", check.path):
            raise InputError(f'"{check.path}" is no path', where=place, remedy='begin with "/", without spaces')
        if not 0 < check.timeout_s <= 3600:
            raise InputError("must be from 0 to 3600", where=f"{place}.timeout", remedy="give seconds")


def ask_all(checks: Sequence[Check], address: str, run: Callable[[Check], Checked]) -> Checked:
    """
    Ask one after the other until one fails. Raises nothing of HTTP's: silence is an answer.

    address: http://HOST:PORT. run: asks a command.
    """
    for check in checks:
        answer = run(check) if check.path is None else fetch(check, f"{address}{check.path}")
        if not answer.passed:
            return Checked(False, f"{check.name}: {answer.text}")
    return Checked(True, f"{len(checks)} of {len(checks)} passed")


def fetch(check: Check, url: str) -> Checked:
    """Ask by HTTP; takes at most `timeout_s`, whatever the other side does."""
    deadline_s = time.monotonic() + check.timeout_s
    try:
        status, body = _get(url, deadline_s)
    except TimeoutError:
        return Checked(False, f"GET {url}: no whole answer within {check.timeout_s:g} s")
    except (OSError, http.client.HTTPException) as error:
        return Checked(False, f"GET {url}: {str(error) or type(error).__name__}")
    said = f"GET {url}: {status} {_excerpt(body)}".rstrip()
    if status != check.status:
        return Checked(False, f"{said}, expected {check.status}")
    if check.body.encode() not in body:
        return Checked(False, f'{said}, expected "{check.body[:EXCERPT_CHARACTERS]}" in it')
    return Checked(True, said)


def _get(url: str, deadline_s: float) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=max(0.001, deadline_s - time.monotonic()))
    try:
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request("GET", path, headers={"User-Agent": "penstock-verification", "Connection": "close"})
        sock, body = connection.sock, b""
        answer = connection.getresponse()
        while len(body) < BODY_LIMIT_BYTES:
            if (left_s := deadline_s - time.monotonic()) <= 0:
                raise TimeoutError
            if sock.fileno() >= 0:
                sock.settimeout(left_s)
            if not (chunk := answer.read1(65_536)):
                break
            body += chunk
        return answer.status, body
    finally:
        connection.close()


def _excerpt(body: bytes) -> str:
    words = " ".join(body.decode("utf-8", "replace").split())
    printable = "".join(character if character.isprintable() else "?" for character in words)
    return f'"{printable[:EXCERPT_CHARACTERS]}"' if printable else ""
