"""
The one way out of a plugin: an HTTP proxy that connects to the hosts of its allow-list, and says what it refused.

It takes CONNECT, and plain HTTP with an absolute address. What is asked of the proxy itself (`GET /…`) goes to the data
API when the plugin may read, which is how a plugin reaches it without knowing of proxies. Whoever is connected stays
connected to that one address: bytes are passed on, not looked into.
"""

import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import attrs

from penstock.errors import AccessError, PenstockError
from penstock.pipeline.complaints import shortened
from penstock.plugins.network import Rule, permitted

HEAD_BYTES = 64 * 1024
CONNECTIONS = 64
HEAD_LIMIT_S = 20.0
CONNECT_LIMIT_S = 15.0
IDLE_LIMIT_S = 600.0
TOLD = 20
_CHUNK = 64 * 1024
_OF_THE_HOP = ("connection", "proxy-connection", "proxy-authorization", "keep-alive", "te", "upgrade", "host")

Connect = Callable[[], socket.socket]


class _Refused(Exception):
    """status, and one line for the plugin."""

    def __init__(self, status: str, line: str) -> None:
        self.status, self.line = status, line
        super().__init__(line)


@attrs.frozen
class _Head:
    """The first line and the headers of a request, and what of its body came with them."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    rest: bytes


@attrs.frozen
class Proxy:
    """
    rules: the allow-list. allow_private: what the operator lets be private. say: a line for the step's log.
    local: connects to the data API; None when the plugin may not read. local_prefix: the only paths that it is for.
    """

    rules: Sequence[Rule]
    allow_private: Collection[str]
    say: Callable[[str], None]
    local: Connect | None = None
    local_prefix: str = "/"
    _told: set[str] = attrs.field(factory=set, init=False)

    @contextmanager
    def serve(self, listening: socket.socket) -> Iterator[None]:
        """Take connections of `listening` as long as the block runs; then all of them are closed, and it too."""
        work = _Work(self, listening)
        thread = threading.Thread(target=work.accept, name="plugin's proxy", daemon=True)
        thread.start()
        try:
            yield
        finally:
            work.end()
            thread.join(CONNECT_LIMIT_S)

    def handle(self, client: socket.socket, opened: Callable[[socket.socket], None]) -> None:
        """One connection, to its end. opened: told of the connection that is made for it."""
        try:
            client.settimeout(HEAD_LIMIT_S)
            head = _read_head(client)
            upstream, first = self._connected(head)
        except _Refused as refusal:
            _answer(client, refusal)
            return
        except OSError:
            return  # it went away, or said nothing
        with upstream:
            opened(upstream)
            with suppress(OSError):
                if head.method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                upstream.sendall(first)
                _pass_on(client, upstream)

    def _connected(self, head: _Head) -> tuple[socket.socket, bytes]:
        """The connection, and the bytes that it begins with."""
        if head.method == "CONNECT":
            return self._reach(*_host_and_port(f"//{head.target}", None)), head.rest
        if head.target.startswith("/"):
            return self._reach_local(head), _rewritten(head, head.target, "127.0.0.1")
        parts = urlsplit(head.target)
        if parts.scheme != "http":
            raise _Refused("400 Bad Request", "only http addresses are asked for directly; use CONNECT for https")
        host, port = _host_and_port(head.target, 80)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        named = f"[{host}]" if ":" in host else host
        return self._reach(host, port), _rewritten(head, path, named if port == 80 else f"{named}:{port}")

    def _reach(self, host: str, port: int) -> socket.socket:
        try:
            addresses = permitted(self.rules, host, port, self.allow_private)
        except AccessError as error:
            self._tell(f"refused: {error.what}")
            raise _Refused("403 Forbidden", str(error.what)) from error
        except PenstockError as error:
            raise _Refused("502 Bad Gateway", str(error.what)) from error
        for address in addresses:
            with suppress(OSError):
                return socket.create_connection((address, port), CONNECT_LIMIT_S)
        raise _Refused("502 Bad Gateway", f"{host}:{port} does not answer")

    def _reach_local(self, head: _Head) -> socket.socket:
        if self.local is None:
            raise _Refused("403 Forbidden", "the plugin does not say `reads:` in its manifest")
        if not head.target.startswith(self.local_prefix) or ".." in head.target or "%2e" in head.target.lower():
            raise _Refused("404 Not Found", f"only {self.local_prefix} is here")
        try:
            return self.local()
        except OSError as error:
            raise _Refused("502 Bad Gateway", "the data API does not answer; is Penstock up?") from error

    def _tell(self, line: str) -> None:
        """Each refusal once, and not for ever: a plugin may try many."""
        if line not in self._told and len(self._told) < TOLD:
            self._told.add(line)
            self.say(line)


class _Work:
    """The connections of one proxy."""

    def __init__(self, proxy: Proxy, listening: socket.socket) -> None:
        self._proxy, self._listening = proxy, listening
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ended = False

    def accept(self) -> None:
        """Until the listening socket is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if not self._keep(client):
                    client.close()
                    continue
                threading.Thread(target=self._handle, args=(client,), name="plugin's connection", daemon=True).start()

    def end(self) -> None:
        """Close everything."""
        with self._lock:
            self._ended = True
            still = list(self._open)
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for one in still:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _handle(self, client: socket.socket) -> None:
        mine = [client]

        def opened(upstream: socket.socket) -> None:
            mine.append(upstream)
            with self._lock:
                self._open.add(upstream)
                late = self._ended
            if late:
                upstream.close()

        try:
            with client:
                self._proxy.handle(client, opened)
        finally:
            with self._lock:
                self._open.difference_update(mine)

    def _keep(self, client: socket.socket) -> bool:
        with self._lock:
            if self._ended or len(self._open) >= 2 * CONNECTIONS:
                return False
            self._open.add(client)
            return True


def _read_head(client: socket.socket) -> _Head:
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > HEAD_BYTES:
            raise _Refused("431 Request Header Fields Too Large", "the headers are too large")
        chunk = client.recv(_CHUNK)
        if not chunk:
            raise OSError("it went away")
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _Refused("400 Bad Request", "this is no HTTP/1 request")
    headers = tuple((name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    return _Head(words[0], words[1], words[2], headers, rest)


def _host_and_port(url: str, default: int | None) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or default
    except ValueError:
        host, port = None, None
    if not host or not port or any(ord(char) <= 32 or ord(char) == 127 for char in host):
        raise _Refused("400 Bad Request", f'"{shortened(url)}" is no address')
    return host, port


def _rewritten(head: _Head, path: str, host: str) -> bytes:
    """The request as its server wants it. One request a connection: the next one may be for another host."""
    lines = [f"{head.method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in head.headers if name.lower() not in _OF_THE_HOP]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + head.rest


def _answer(client: socket.socket, refusal: _Refused) -> None:
    body = f"penstock: {refusal.line}\n".encode("utf-8", "replace")
    head = f"HTTP/1.1 {refusal.status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    with suppress(OSError):
        client.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        client.shutdown(socket.SHUT_WR)


def _pass_on(client: socket.socket, upstream: socket.socket) -> None:
    """Bytes of both directions, until both are at their end or nothing has come for long."""
    others = {client: upstream, upstream: client}
    with selectors.DefaultSelector() as selector:
        for one in others:
            one.settimeout(IDLE_LIMIT_S)
            selector.register(one, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(IDLE_LIMIT_S)
            if not ready:
                return
            for key, _ in ready:
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if chunk := _received(source):
                    others[source].sendall(chunk)
                else:
                    selector.unregister(source)
                    with suppress(OSError):
                        others[source].shutdown(socket.SHUT_WR)


def _received(source: socket.socket) -> bytes:
    """What has come; of TLS also what has been decrypted already, which no selector knows of."""
    chunk = source.recv(_CHUNK)
    if isinstance(source, ssl.SSLSocket):
        while source.pending():
            chunk += source.recv(_CHUNK)
    return chunk
