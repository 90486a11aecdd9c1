"""What a container prints, as it comes: one connection that is there before the container starts."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import attrs

from penstock.engines.docker_server import Server


@attrs.frozen
class Stream:
    """
    An attached connection. Whoever reads slowly slows the container down: nothing piles up.

    raw: the SDK's socket. own: the same connection, which another thread may shut.
    """

    raw: Any
    own: socket.socket
    terminal: bool = False

    def read(self, take: Callable[[bytes], None]) -> None:
        """Until the container has closed its output, or somebody shut the stream."""
        for chunk in self._chunks():
            take(chunk)

    def _chunks(self) -> Iterator[bytes]:
        from docker.utils.socket import frames_iter

        frames = frames_iter(self.raw, tty=self.terminal)
        while True:
            try:
                _, chunk = next(frames)
            except (StopIteration, ConnectionError):  # ended, or the engine went away: whoever asks it next is told
                return
            yield chunk

    def shut(self) -> None:
        """Let `read` end, also when the engine does not answer any more."""
        with suppress(OSError):
            self.own.shutdown(socket.SHUT_RDWR)


@contextmanager
def attached(server: Server, container_id: str, *, terminal: bool = False) -> Iterator[Stream]:
    """Before the container starts, or its first words are lost. terminal: keys are passed in too."""
    params = {"stdout": 1, "stderr": 1, "stream": 1, "stdin": int(terminal)}
    raw = server.client.api.attach_socket(container_id, params)
    try:
        with socket.socket(fileno=os.dup(raw.fileno())) as own:
            own.settimeout(None)
            yield Stream(raw, own, terminal)
    finally:
        raw.close()
