"""A step's log as it grows: fetched piece by piece, searched, and shown from its end."""

from collections.abc import Sequence

import attrs

from dashboards.acting import step_log
from dashboards.markup import Html, join, printable, tag
from penstock.api.models import LogLineOut

SHOWN = 1000  # lines on the page; more makes a browser slow
PIECES = 8  # of at most 4 MiB each time


@attrs.define
class FollowedLog:
    """What is known of one step's log so far. offset: bytes read; complete: nothing more will come."""

    run_id: str
    step: str
    lines: list[LogLineOut] = attrs.field(factory=list)
    offset: int = 0
    complete: bool = False

    def catch_up(self) -> None:
        """Fetch what was printed since. Raises: PenstockError."""
        for _ in range(PIECES):
            if self.complete:
                return
            piece = step_log(self.run_id, self.step, self.offset)
            self.lines += piece.lines
            self.offset, self.complete = piece.next_offset, piece.complete
            if not piece.lines:
                return


def lines_with(lines: Sequence[LogLineOut], wanted: str) -> list[LogLineOut]:
    """Lines that contain `wanted`, whatever its case; all without it."""
    sought = wanted.casefold()
    return [line for line in lines if sought in line.text.casefold()] if sought else list(lines)


def log_view(lines: Sequence[LogLineOut], wanted: str) -> Html:
    """The last SHOWN lines, `wanted` marked, the newest in sight."""
    body = join(_line(line, wanted) for line in lines[-SHOWN:])
    return tag("div", tag("pre", body), class_="ps-log", tabindex="0")


def _line(line: LogLineOut, wanted: str) -> Html:
    at = tag("span", f"{line.at[11:19]} ", class_="at", title=f"{line.at} UTC")
    return tag("div", at, tag("span", _marked(printable(line.text), wanted), class_="own" if line.own else None))


def _marked(text: str, wanted: str) -> Html:
    """`text` with every `wanted` in it marked."""
    at = text.casefold().find(wanted.casefold()) if wanted else -1
    if at < 0 or len(text.casefold()) != len(text):
        return join([text])
    end = at + len(wanted)
    return join([text[:at], tag("mark", text[at:end]), _marked(text[end:], wanted)])
