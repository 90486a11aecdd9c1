"""A person's terminal, joined to a container."""

import os
import selectors
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from penstock.engines.docker_server import Server
from penstock.engines.docker_stream import Stream

_READ_SIZE = 64 * 1024


def is_terminal() -> bool:
    """Whether a person sits there: then the container has a terminal too."""
    return os.isatty(0) and os.isatty(1)


def join(server: Server, container_id: str, stream: Stream) -> None:
    """Pass keys in and output out until the container, which has a terminal, ends."""
    with _raw_keys(), _following_size(server, container_id):
        _pass_on(stream)


def write_out(chunk: bytes) -> None:
    """To this process's stdout, at once."""
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _pass_on(stream: Stream) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(stream.own, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                chunk = os.read(0, _READ_SIZE) if key.fd == 0 else stream.own.recv(_READ_SIZE)
                if key.fd == 0 and chunk:
                    stream.own.sendall(chunk)
                elif key.fd == 0:
                    selector.unregister(0)
                elif chunk:
                    write_out(chunk)
                else:
                    return


@contextmanager
def _raw_keys() -> Iterator[None]:
    """Every key goes to the container, Ctrl-C too."""
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is kept
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _following_size(server: Server, container_id: str) -> Iterator[None]:
    """The container's terminal is as large as this one, also when that changes."""
    from docker.errors import APIError

    def resize(*_: int | FrameType | None) -> None:
        size = shutil.get_terminal_size()
        with suppress(APIError):  # it has ended meanwhile
            server.client.api.resize(container_id, height=size.lines, width=size.columns)

    resize()
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield
        return
    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
