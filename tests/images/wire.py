"""A wire to a registry that can be cut, be silent, or tell another manifest than the registry has."""

import contextlib
import re
import socket
import threading
from typing import Self

import attrs

_LIMIT_S = 60.0


@attrs.define
class Wire:
    """
    Listens on loopback and passes bytes on to `target` (`host:port`).

    cut_after_bytes: when so much has been sent, the wire is cut and nobody listens any more.
    silent: takes connections, and never says a word.
    manifest: what is answered to a GET of a manifest by tag, instead of what the registry has.
    """

    target: str
    port: int = 0
    cut_after_bytes: int | None = None
    silent: bool = False
    manifest: bytes | None = None
    was_cut: bool = False
    _sent: int = 0
    _listening: socket.socket = attrs.field(init=False)
    _open: list[socket.socket] = attrs.field(factory=list)

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self._open.append(near)
                if not self.silent:
                    threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        host, _, port = self.target.rpartition(":")
        with contextlib.suppress(OSError):
            far = socket.create_connection((host, int(port)), _LIMIT_S)
            far.settimeout(None)
            self._open.append(far)
            threading.Thread(target=self._back, args=(far, near), daemon=True).start()
            while data := near.recv(65536):
                if self.manifest is not None and re.match(rb"GET /v2/\S+/manifests/(?!sha256:)", data):
                    self._answer(near, self.manifest)
                    continue
                far.sendall(data)
                self._count(len(data))

    def _answer(self, near: socket.socket, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        near.sendall(head.encode() + body)

    def _back(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)
            near.shutdown(socket.SHUT_RDWR)

    def _count(self, size: int) -> None:
        self._sent += size
        if self.cut_after_bytes is not None and self._sent > self.cut_after_bytes:
            self.was_cut = True
            self._cut()

    def _cut(self) -> None:
        for one in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
