"""The door of a sandboxed job that may go out through a gateway alone: it begins when its gateway serves."""

import json
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import attrs

from penstock.engines.gateways import listen_inside
from penstock.errors import PlatformError

_LIMIT_S = 20.0


@attrs.frozen
class Door:
    """
    Two pipes: on `info` bubblewrap tells its child's process id, at `block` it waits for a byte before it begins.

    Each is (the end to read, the end to write).
    """

    info: tuple[int, int]
    block: tuple[int, int]

    @classmethod
    @contextmanager
    def made(cls) -> Iterator["Door"]:
        """The pipes, closed afterwards."""
        door = cls(os.pipe(), os.pipe())
        try:
            yield door
        finally:
            for number in (*door.info, *door.block):
                with suppress(OSError):
                    os.close(number)

    @property
    def inside(self) -> list[int]:
        """The ends that bubblewrap gets."""
        return [self.info[1], self.block[0]]

    @property
    def words(self) -> list[str]:
        """What bubblewrap is told of them."""
        return ["--info-fd", str(self.info[1]), "--block-fd", str(self.block[0])]

    def listening(self) -> socket.socket:
        """
        A socket inside of the sandbox's network namespace.

        Raises: PlatformError when there is no such sandbox, or it may not be entered.
        """
        told = b""
        while b"}" not in told and select.select([self.info[0]], [], [], _LIMIT_S)[0]:  # it comes in pieces
            told += os.read(self.info[0], 4096)
        try:
            pid = int(json.loads(told)["child-pid"])
        except (ValueError, KeyError, TypeError) as error:
            raise PlatformError("bubblewrap did not say which process it started") from error
        return listen_inside(pid)

    def open(self) -> None:
        """Let the job begin."""
        os.write(self.block[1], b"x")
