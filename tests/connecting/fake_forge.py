"""A forge's API, faked at the wire."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import attrs

TOKEN = "token-of-the-test-0123456789"


@attrs.define
class FakeForge:
    """Answers as it is told: (method, path without query) → status, body, headers. asked: what came in."""

    url: str = ""
    answers: dict[tuple[str, str], tuple[int, Any, dict[str, str]]] = attrs.field(factory=dict)
    asked: list[tuple[str, str, dict[str, str], Any]] = attrs.field(factory=list)

    def says(self, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> None:
        """From now on."""
        self.answers[method, path] = (status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def sent(self, method: str, path: str) -> list[Any]:
        """Bodies that came to a route."""
        return [body for m, p, _, body in self.asked if (m, p) == (method, path)]


class Handler(BaseHTTPRequestHandler):
    about: FakeForge

    def log_message(self, *words: object) -> None:
        """Nothing on the terminal."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.about.asked.append((self.command, path, dict(self.headers), json.loads(body) if body else None))
        status, told, headers = self.about.answers.get((self.command, path), (404, {"message": "Not Found"}, {}))
        content = told if isinstance(told, bytes) else b"" if told is None else json.dumps(told).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()
