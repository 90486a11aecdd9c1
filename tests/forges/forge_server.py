"""What forges do when they are told something: a real HTTP server, and what goes wrong with it."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

TOKEN = "forge-token-7c1d2e"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TARGET = "fedcba9876543210fedcba9876543210fedcba98"


@attrs.frozen
class Seen:
    """A request as it came in."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body) if self.body else None


@attrs.frozen
class Answer:
    """What is answered. cut: the connection is cut instead, after the request was taken."""

    status: int
    value: Any = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    cut: bool = False
    raw: bytes | None = None

    @property
    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return b"" if self.value is None else json.dumps(self.value).encode()


Route = Callable[..., Answer]


class ForgeServer:
    """
    One forge with one repository. token: the one that it takes.

    troubles: answers in place of the next ones (a `cut` one takes the request first). away: every connection is cut.
    """

    name = ""
    repository = "shop/api"
    path = ""
    limited = Answer(429, {"message": "Too many requests"}, {"Retry-After": "17"})

    def __init__(self) -> None:
        self.token = TOKEN
        self.troubles: list[Answer] = []
        self.away = False
        self.seen: list[Seen] = []
        self.statuses: list[dict[str, Any]] = []
        self.commits = {COMMIT}
        self.hooks: list[Any] = []
        self.notes: dict[int, dict[str, Any]] = {}
        self._numbers = iter(range(101, 10_000))
        self._lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True

    @property
    def secret(self) -> str:
        """What Penstock is given."""
        return self.token

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def url(self) -> str:
        """Where its API begins."""
        return self.origin + self.path

    def number(self) -> int:
        return next(self._numbers)

    def answer(self, seen: Seen) -> Answer | None:
        """None: the connection is cut."""
        if seen.headers.get("user-agent") != "penstock":
            return Answer(404)  # somebody else on this machine, who expects another server at this port
        with self._lock:
            self.seen.append(seen)
            if self.away:
                return None
            trouble = self.troubles.pop(0) if self.troubles else None
            if trouble and not trouble.cut:
                return trouble
            found = self._routed(seen)
            return None if trouble else found

    def _routed(self, seen: Seen) -> Answer:
        if not self.may(seen):
            return self.denied()
        for method, pattern, route in self.routes():
            found = re.fullmatch(pattern, seen.path)
            if found and method == seen.method:
                return route(seen, *map(unquote, found.groups()))
        return Answer(404, {"message": "Not Found"})

    def may(self, seen: Seen) -> bool:
        raise NotImplementedError

    def denied(self) -> Answer:
        return Answer(401, {"message": "Bad credentials"})

    def routes(self) -> list[tuple[str, str, Route]]:
        raise NotImplementedError

    def hook(self, seen: Seen) -> Answer:
        """Somebody has a hook made."""
        self.hooks.append(seen.value)
        return Answer(201, {"id": len(self.hooks), "uuid": f"{{{len(self.hooks)}}}"})

    def told_with(self) -> str:
        """The secret of the hook that was made, wherever this forge's API has it."""
        (made,) = {_secret_of(one) for one in self.hooks}
        return made

    def shown(self) -> dict[str, str]:
        """Context → state, as the forge shows them at the commit: the newest of each."""
        return {one["context"]: one["state"] for one in self.statuses}

    def write(self, _seen: Seen, text: str, **more: Any) -> dict[str, Any]:
        """Somebody writes a comment."""
        number = self.number()
        self.notes[number] = {"id": number, "body": text, **more}
        return self.notes[number]

    def texts(self) -> list[str]:
        """The comments on the pull request."""
        return [note["body"] for note in self.notes.values()]


def _secret_of(hook: Mapping[str, Any]) -> str:
    inner = {**hook.get("config", {}), **hook.get("configuration", {}), **hook.get("consumerInputs", {})}
    found = {**hook, **inner}
    return str(found.get("secret") or found.get("token") or found["basicAuthPassword"])


@contextmanager
def running(kind: type[ForgeServer]) -> Iterator[Any]:
    """A forge that listens on a free port."""
    forge = kind()
    thread = threading.Thread(target=forge.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield forge
    finally:
        forge.server.shutdown()
        thread.join()
        forge.server.server_close()


def _handler(forge: ForgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = forge.answer(Seen(self.command, parts.path, query, headers, body))
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if answer.status != 204:
                self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            """The tests look at `seen` instead."""

    return Handler
