"""Whether an instance answers: HTTP and TCP probes, and how many answers make it healthy."""

import re
import socket
import time
from typing import Literal

import attrs
import msgspec

from penstock.errors import InputError

HANGS_UP_WITHIN_S = 0.25  # what stands before a port that nobody listens on takes a connection, and drops it at once
FIRST_GAP_S, GAP_GROWTH = 0.02, 1.2  # quick services cost milliseconds, slow ones are asked at their interval
HEAD_LIMIT_BYTES = 16_384
EXCERPT_CHARACTERS = 200

Verdict = Literal["waiting", "healthy", "unhealthy"]


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """
    How an instance is asked.

    path: for `http`, what is fetched; 200 to 399 is an answer that counts. `tcp` only connects. `docker` is the
    image's own HEALTHCHECK, run by the engine. `exec` runs a command where the instance is; exit code 0 counts.
    command: for `exec`, words, or a line for /bin/sh.
    healthy_after, unhealthy_after: answers in a row.
    start_period_s: failures in it do not count; the first success ends the wait as ever.
    limit_s: an instance that is not healthy by then never will be.
    """

    kind: Literal["http", "tcp", "docker", "exec"] = "http"
    path: str = "/"
    command: tuple[str, ...] | str | None = None
    interval_s: float = 1.0
    timeout_s: float = 2.0
    healthy_after: int = 2
    unhealthy_after: int = 3
    start_period_s: float = 10.0
    limit_s: float = 300.0


def check_health(check: HealthCheck, *, where: str) -> None:
    """Raises: InputError when `check` asks for what cannot be done."""
    if not re.fullmatch(r"/[!-~]*", check.path):
        raise InputError(f'"{check.path}" is no path', where=f"{where}.path", remedy='begin with "/", without spaces')
    if (check.kind == "exec") != bool(check.command):
        remedy = "give a command to `exec`, and to nothing else"
        raise InputError("`exec` and a command belong together", where=f"{where}.command", remedy=remedy)
    for name in ("interval_s", "timeout_s", "healthy_after", "unhealthy_after", "limit_s"):
        if not 0 < getattr(check, name) < float("inf"):
            raise InputError("must be above 0", where=f"{where}.{name}", remedy="leave it out for the default")
    if not 0 <= check.start_period_s < float("inf"):
        raise InputError("must not be negative", where=f"{where}.start_period_s", remedy="leave it out for 10")


@attrs.frozen
class ProbeResult:
    """One answer: whether it counts as good, and in words what was asked and what came back."""

    good: bool
    text: str


def probe(check: HealthCheck, port: int, host: str = "127.0.0.1", *, proxied: bool = False) -> ProbeResult:
    """
    Ask once; takes at most `timeout_s`, whatever the other side does. Raises nothing: silence is a result.

    proxied: whether something else, a container engine, takes connections for the instance: one that it drops at
    once has reached nobody.
    """
    asked = f"GET http://{host}:{port}{check.path}" if check.kind == "http" else f"connect to {host}:{port}"
    try:
        if check.kind == "tcp" and proxied and _is_dropped(check, host, port):
            return ProbeResult(False, f"{asked}: closed at once")
        answer = _ask(check, host, port)
    except TimeoutError:
        return ProbeResult(False, f"{asked}: no answer within {check.timeout_s:g} s")
    except OSError as error:
        return ProbeResult(False, f"{asked}: {(error.strerror or str(error)).lower()}")
    if check.kind == "tcp":
        return ProbeResult(True, f"{asked}: connected")
    return judge_answer(answer, asked)


def _ask(check: HealthCheck, host: str, port: int) -> bytes:
    """The beginning of what is answered. Own reading, since a client library's time limit restarts at every byte."""
    deadline = time.monotonic() + check.timeout_s
    with socket.create_connection((host, port), timeout=check.timeout_s) as connection:
        if check.kind == "tcp":
            return b""
        head = f"GET {check.path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: penstock-health\r\n"
        connection.sendall(f"{head}Accept: */*\r\nConnection: close\r\n\r\n".encode())
        return _read_until(connection, deadline)


def _is_dropped(check: HealthCheck, host: str, port: int) -> bool:
    with socket.create_connection((host, port), timeout=check.timeout_s) as connection:
        connection.settimeout(HANGS_UP_WITHIN_S)
        try:
            return not connection.recv(1)
        except TimeoutError:
            return False


def _read_until(connection: socket.socket, deadline: float) -> bytes:
    answer = b""
    while len(answer) < HEAD_LIMIT_BYTES and (left_s := deadline - time.monotonic()) > 0:
        connection.settimeout(left_s)
        try:
            chunk = connection.recv(4096)
        except TimeoutError:
            break
        if not chunk:
            return answer
        answer += chunk
    if b"\r\n\r\n" not in answer:
        raise TimeoutError
    return answer


def judge_answer(answer: bytes, asked: str) -> ProbeResult:
    """What the beginning of an HTTP answer says; `asked` begins the text."""
    status = re.match(rb"HTTP/1\.[01] ([1-5][0-9]{2})\b", answer)
    if not status:
        said = f"no HTTP: {excerpt(answer)}" if answer else "closed without an answer"
        return ProbeResult(False, f"{asked}: {said}")
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        body = body.partition(b"\r\n")[2].partition(b"\r\n")[0]
    code = int(status[1])
    return ProbeResult(200 <= code < 400, f"{asked}: {code} {excerpt(body)}".rstrip())


def excerpt(body: bytes) -> str:
    """Its beginning in quotes, on one line and printable; nothing for nothing."""
    words = " ".join(body.decode("utf-8", "replace").split())
    printable = "".join(character if character.isprintable() else "?" for character in words)
    if not printable:
        return ""
    return f'"{printable[:EXCERPT_CHARACTERS]}"'


@attrs.frozen
class HealthCount:
    """Answers in a row so far: a pure state, one step per probe."""

    check: HealthCheck
    good: int = 0
    bad: int = 0
    counted_at_s: float = 0.0

    def after(self, result: ProbeResult, age_s: float) -> "HealthCount":
        """
        The next state. age_s: seconds since the instance was started.

        Failures count once per interval, so that asking quickly at first does not condemn quickly.
        """
        if result.good:
            return attrs.evolve(self, good=self.good + 1, bad=0, counted_at_s=age_s)
        since = max(self.counted_at_s, self.check.start_period_s)
        if age_s - since < self.check.interval_s:
            return attrs.evolve(self, good=0)
        return attrs.evolve(self, good=0, bad=self.bad + 1, counted_at_s=age_s)

    @property
    def verdict(self) -> Verdict:
        """`waiting` until there are enough answers of one kind in a row."""
        if self.good >= self.check.healthy_after:
            return "healthy"
        return "unhealthy" if self.bad >= self.check.unhealthy_after else "waiting"


def gap_s(check: HealthCheck, asked: int) -> float:
    """Seconds before the next probe when `asked` have been made: at most 50 ms for the first five."""
    # The exponent is bounded: 1.2 to a few thousand is no float any more.
    return min(check.interval_s, FIRST_GAP_S * GAP_GROWTH ** min(asked, 60))
