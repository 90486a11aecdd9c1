"""
A command that runs in a container, over a WebSocket of the API: what goes in, what comes out, how it ended.

Frame by frame: the kubernetes package's own client gathers what comes in memory, which a workspace does not fit.
Source: kubernetes.io/docs, remote command protocol v4 and v5: the first byte of a frame is its channel.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from penstock.errors import PlatformError, StepFailure

STDIN, STDOUT, STDERR, ERROR, CLOSED = 0, 1, 2, 3, 255
ASK_EVERY_S = 1.0
SEND_LIMIT_S = 60.0  # when nobody takes what is sent, the way is cut off
_KEPT_BYTES = 64 * 1024
Check = Callable[[], None]


class Exec:
    """One running command. socket: a websocket-client's WebSocket."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._kept = {STDOUT: b"", STDERR: b"", ERROR: b""}
        socket.settimeout(SEND_LIMIT_S)

    def send(self, chunk: bytes) -> bool:
        """To its standard input. Returns: False when it has ended and takes no more; why, it tells itself."""
        from websocket import ABNF, WebSocketException

        try:
            self._socket.send(bytes([STDIN]) + chunk, opcode=ABNF.OPCODE_BINARY)
        except (WebSocketException, OSError):
            return False
        return True

    def output(self, channel: int, check: Check) -> Iterator[bytes]:
        """Chunks of one channel until the command has ended. check: called now and then; what it raises ends this."""
        for found, data in self._frames(check):
            if found == channel:
                yield data
            elif found in self._kept:
                self._kept[found] = (self._kept[found] + data)[:_KEPT_BYTES]

    def refuse_failed(self, doing: str, words: bytes = b"") -> None:
        """Once all output was read. Raises: StepFailure, PlatformError unless the API tells that it ended well."""
        told = self._kept[ERROR]
        code, said = outcome_of(told), (words or self._kept[STDERR]).decode(errors="replace").strip()
        if code is None:
            raise PlatformError(f"{doing} was cut off: {said or told.decode(errors='replace') or 'without a word'}")
        if code in (126, 127):
            raise StepFailure(f"{doing} failed: {said}", remedy="use an image that has /bin/sh, head and tar")
        if code:
            raise PlatformError(f"{doing} failed with exit code {code}: {said}")

    def _frames(self, check: Check) -> Iterator[tuple[int, bytes]]:
        from websocket import ABNF, WebSocketConnectionClosedException, WebSocketTimeoutException

        self._socket.settimeout(ASK_EVERY_S)
        while True:
            check()
            try:
                code, frame = self._socket.recv_data_frame(True)
            except WebSocketTimeoutException:  # what has come of a frame is kept for the next time
                continue
            except (WebSocketConnectionClosedException, ConnectionError):
                return
            if code == ABNF.OPCODE_CLOSE:
                return
            if code in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) and len(frame.data) > 1 and frame.data[0] != CLOSED:
                yield frame.data[0], bytes(frame.data[1:])


def outcome_of(status: bytes) -> int | None:
    """
    The exit code of a command in a container.

    status: what came on the error channel, a Status as JSON. Returns: None when it does not tell.
    """
    try:
        told = json.loads(status)
        if told["status"] == "Success":
            return 0
        causes = told["details"]["causes"]
        return next(int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode")
    except (ValueError, KeyError, TypeError, StopIteration):
        return None
