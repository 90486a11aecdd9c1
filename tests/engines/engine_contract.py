"""What the contract tests work with: one engine of any kind, and scripts that run on all of them."""

import os
import random
import socket
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import psutil
from containers import BUSYBOX

from penstock.engines import Engine, Exit, Job, Sidecar, open_engine
from penstock.pipeline.cancel import CancelToken
from penstock.processes import wait_until
from penstock.settings import Settings, load_settings

MIB = 1 << 20


@attrs.define
class Contract:
    """
    An engine with a workspace. Scripts may use /bin/sh and `busybox`, which the image and the test machine have.

    isolated: whether the engine keeps jobs apart from the machine; the process engine needs bubblewrap for it.
    """

    engine: Engine
    settings: Settings
    workspace: Path
    image: str | None
    isolated: bool = True
    run_id: str = attrs.field(factory=lambda: f"run-{random.getrandbits(64):x}")
    printed: bytes = b""

    def job(self, script: str, **options: object) -> Job:
        argv = options.pop("argv", ("/bin/sh", "-c", textwrap.dedent(script)))
        return Job(self.run_id, "step", argv, self.workspace, image=self.image, **options)  # type: ignore[arg-type]

    def run(self, script: str = "", token: CancelToken | None = None, **options: object) -> Exit:
        self.printed = b""
        return self.engine.run(self.job(script, **options), self._take, token or CancelToken())

    def says(self, script: str, **options: object) -> str:
        self.run(script, **options)
        return self.printed.decode()

    def cancelled(self, script: str, **options: object) -> Exit:
        """Run a script that prints when it has begun; cancel it then."""
        token, begun = CancelToken(), threading.Event()
        self.printed = b""

        def take(chunk: bytes) -> None:
            self._take(chunk)
            begun.set()

        canceller = threading.Thread(target=lambda: begun.wait(120) and token.cancel("the test says so"))
        canceller.start()
        try:
            return self.engine.run(self.job(script, **options), take, token)
        finally:
            begun.set()
            canceller.join()

    def sidecar(self, name: str, script: str, **options: object) -> Sidecar:
        return Sidecar(name, self.image, ("/bin/sh", "-c", textwrap.dedent(script)), **options)  # type: ignore[arg-type]

    def _take(self, chunk: bytes) -> None:
        self.printed += chunk


def container_contract(host: str, home: Path, workspace: Path) -> Contract:
    """The docker engine on whatever answers at `host`."""
    words = {"PENSTOCK_HOME": str(home), "PENSTOCK_ENGINE": "docker", "PENSTOCK_DOCKER_HOST": host}
    settings = load_settings(words)
    return Contract(open_engine(settings), settings, workspace, BUSYBOX)


def long_sleep() -> int:
    """Seconds that no other process of this machine sleeps, by which the sleeper is found."""
    return random.randrange(10**7, 10**8)


def runs(command: str) -> bool:
    """Whether a process of this machine, in a container or not, has just this command line."""
    return any(" ".join(_words(process)) == command for process in psutil.process_iter())


def ends_soon(seconds: int) -> bool:
    """Whether nobody sleeps that long any more; the kernel may take a moment to bury the dead."""
    return wait_until(lambda: not _is_named(str(seconds)), limit_s=30)


def _is_named(word: str) -> bool:
    return any(word in " ".join(_words(process)) for process in psutil.process_iter())


def _words(process: psutil.Process) -> list[str]:
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid() else process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def listening_on_this_machine(answer: bytes = b"this machine answers\n") -> Iterator[int]:
    """A service of this machine on all of its addresses. Gives its port."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        threading.Thread(target=_answer_all, args=(server, answer), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _answer_all(server: socket.socket, answer: bytes) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(answer)


def own_addresses() -> list[str]:
    """This machine's IPv4 addresses, loopback too."""
    found = psutil.net_if_addrs().values()
    return [one.address for addresses in found for one in addresses if one.family == socket.AF_INET]
