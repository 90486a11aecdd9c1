"""
What a plugin says between the lines that it prints: `::group::Title`, `::endgroup::`, `::progress::40 half way`.

Groups stay in the log as they are, for whoever shows it to fold. Progress becomes a line of Penstock's own, not more
often than once a second, so that a plugin that tells it a thousand times fills no log.
"""

import re
import time
from collections.abc import Callable

import attrs

_PREFIX = b"::progress::"
_LONGEST = 400
_PROGRESS = re.compile(r"::progress::\s*(\d{1,3})(?:\.\d+)?\s*%?\s*(.*)")
EVERY_S = 1.0


@attrs.define
class Markers:
    """
    Reads a stream of output. output: gets everything but progress. line: a line of Penstock's own.

    clock: seconds.
    """

    output: Callable[[bytes], None]
    line: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _held: bytes = b""
    _at_line_start: bool = True
    _told_at: float = float("-inf")

    def feed(self, chunk: bytes) -> None:
        """The next bytes."""
        data, self._held = self._held + chunk, b""
        passed = bytearray()
        for piece in data.splitlines(keepends=True):
            whole = piece.endswith(b"\n")
            if self._at_line_start and not whole and self._may_become(piece):
                self._held = piece
                break
            if self._at_line_start and whole and piece.startswith(_PREFIX):
                self._tell(piece)
            else:
                passed += piece
                self._at_line_start = whole
        if passed:
            self.output(bytes(passed))

    def end(self) -> None:
        """What was held back because it might have become progress."""
        if self._held:
            self.output(self._held)
            self._held = b""

    def _may_become(self, piece: bytes) -> bool:
        return len(piece) < _LONGEST and (piece.startswith(_PREFIX) or _PREFIX.startswith(piece))

    def _tell(self, piece: bytes) -> None:
        found = _PROGRESS.match(piece.decode("utf-8", "replace").strip())
        if found is None:
            self.output(piece)
            return
        percent = min(int(found[1]), 100)
        if percent < 100 and self.clock() - self._told_at < EVERY_S:
            return
        self._told_at = self.clock()
        self.line(f"{percent} %" + (f": {found[2]}" if found[2] else ""))
