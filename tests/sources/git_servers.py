"""Real git servers of a test's own: `git http-backend` behind basic authentication, and OpenSSH's server."""

import base64
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs

BACKEND = "/usr/lib/git-core/git-http-backend"


@attrs.define
class HttpServer:
    """Serves the repositories of a folder. seen: what came in as Authorization; redirect: answers all with this."""

    folder: Path
    url: str = ""
    user: str = "ada"
    password: str = "correct horse"
    seen: list[str | None] = attrs.field(factory=list)
    redirect: str | None = None
    may_write: bool = True

    @property
    def wanted(self) -> str:
        """The header that is let in."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    about: HttpServer

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *words: object) -> None:
        """Nothing on the terminal."""

    def _answer(self) -> None:
        self.about.seen.append(self.headers.get("Authorization"))
        if self.about.redirect:
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", self.about.redirect + self.path)
            self.end_headers()
        elif self.headers.get("Authorization") != self.about.wanted:
            self.send_response(HTTPStatus.UNAUTHORIZED)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
        elif "git-receive-pack" in self.path and not self.about.may_write:
            self.send_response(HTTPStatus.FORBIDDEN)
            self.end_headers()
        else:
            self._backend()

    def _backend(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.about.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "http.receivepack",
            "GIT_CONFIG_VALUE_1": "true",
            "REMOTE_USER": self.about.user,
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run([BACKEND], input=body, env=env, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        told = dict(line.split(b": ", 1) for line in head.split(b"\r\n") if b": " in line)
        self.send_response(int(told.pop(b"Status", b"200 OK").split()[0]))
        for name, value in told.items():
            self.send_header(name.decode(), value.decode())
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving_http(folder: Path) -> Iterator[HttpServer]:
    """A server on a free port of loopback."""
    about = HttpServer(folder)
    handler = type("Handler", (_Handler,), {"about": about})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    about.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield about
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@attrs.frozen
class SshServer:
    """An OpenSSH server that lets one key in."""

    port: int
    key: bytes = attrs.field(repr=False)
    known_hosts: Path

    def url(self, repository: Path) -> str:
        """An address of a repository on this machine."""
        import getpass

        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{repository}"


def make_key(path: Path, passphrase: str = "") -> bytes:
    """A private key; the public one lies beside it."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    return path.read_bytes()


@contextmanager
def serving_ssh(folder: Path) -> Iterator[SshServer]:
    """A server on a free port of loopback, as whoever runs the tests."""
    folder.mkdir(mode=0o700, exist_ok=True)
    key = make_key(folder / "client")
    make_key(folder / "host")
    shutil.copy(folder / "client.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = (
        *(f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", "UsePAM no", "StrictModes no"),
        *(f"AuthorizedKeysFile {folder}/authorized_keys", "PasswordAuthentication no", "PidFile none"),
        *("PermitRootLogin prohibit-password", "LogLevel ERROR", "UseDNS no"),
    )
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where OpenSSH locks its helper process up
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert sshd, "install Debian's package openssh-server"
    process = subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(folder / "sshd_config")],
        stderr=(folder / "log").open("wb"),
        stdin=subprocess.DEVNULL,
    )
    try:
        _wait(port, process, folder / "log")
        yield SshServer(port, key, folder / "known_hosts")
    finally:
        process.terminate()
        process.wait()


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"sshd does not answer: {log.read_text()}")
