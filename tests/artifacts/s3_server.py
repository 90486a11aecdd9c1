"""A real S3 server (rclone's), and a proxy before it that breaks requests on purpose."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import httpx
from containers import free_port

RCLONE = Path(sys.executable).with_name("rclone")
KEY, SECRET, BUCKET = "TESTKEY", "test-secret-key", "builds"
START_LIMIT_S = 60.0

# What becomes of a request: None, it goes through; an HTTP status; or after how many bytes of the answer it is cut.
Fault = int | tuple[str, int] | None
Decide = Callable[[str, str], Fault]


@attrs.frozen
class S3Server:
    """folder: where the bucket's objects lie as files."""

    port: int
    folder: Path

    @property
    def objects(self) -> list[Path]:
        """Every file of the bucket, also what the server has not completed."""
        return [path for path in (self.folder / BUCKET).rglob("*") if path.is_file()]


def s3_env(port: int) -> dict[str, str]:
    """What reaches a server on that port."""
    return {
        "PENSTOCK_ARTIFACTS_ENDPOINT": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """`rclone serve s3` on loopback with one bucket."""
    (folder / "data" / BUCKET).mkdir(parents=True)
    port = free_port()
    words = [str(RCLONE), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    words += ["--config", str(folder / "rclone.conf"), "--dir-cache-time", "1ms", str(folder / "data")]
    (folder / "rclone.conf").touch()
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_for(port, process, folder / "log")
        yield S3Server(port, folder / "data")
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", timeout=5, trust_env=False)
            return
        except httpx.HTTPError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"rclone does not serve: {log.read_text()[-2000:]}") from None
            time.sleep(0.05)


@attrs.define
class BreakingProxy:
    """One request per connection. decide: method, path with query → what becomes of it; `seen` are all, in order."""

    upstream: int
    decide: Decide = lambda _method, _path: None
    seen: list[tuple[str, str]] = attrs.field(factory=list)
    port: int = 0

    @contextmanager
    def running(self) -> Iterator["BreakingProxy"]:
        """Listens on a free port."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
            threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
            yield self

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it is closed at the end of the test
            while True:
                client, _ = listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError):
            client.settimeout(60)
            with client.makefile("rb") as reader:
                head = []
                while (line := reader.readline()) not in (b"\r\n", b""):
                    head.append(line)
                if not head:
                    return
                method, path, _ = head[0].decode().split(" ", 2)
                lengths = [int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length:")]
                body = reader.read(sum(lengths))
                self.seen.append((method, path))
                self._answer(client, head, body, self.decide(method, path))

    def _answer(self, client: socket.socket, head: list[bytes], body: bytes, fault: Fault) -> None:
        if isinstance(fault, int):
            client.sendall(b"HTTP/1.1 %d Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % fault)
            return
        left = fault[1] if fault else None
        kept = [line for line in head if not line.lower().startswith(b"connection:")]
        with socket.create_connection(("127.0.0.1", self.upstream), timeout=60) as server:
            server.sendall(b"".join([*kept, b"Connection: close\r\n\r\n"]) + body)
            while chunk := server.recv(65536):
                client.sendall(chunk if left is None else chunk[:left])
                left = None if left is None else left - len(chunk)
                if left is not None and left <= 0:
                    return
