"""The words: one line for a status, and a comment's Markdown, where a stranger's text stays text."""

import html
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from penstock.answers.difference import Change, Difference

LONGEST_LINE = 140  # GitHub takes no more, the others do
_MOST_ROWS = 20
_PLAIN: Final = {
    "queued": "waits to start",
    "running": "runs",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "timed_out": "took too long",
    "skipped": "skipped",
    "waiting": "waits",
    "infra_error": "Penstock could not do it",
}
_ENDED_BY_WORK = ("succeeded", "failed", "timed_out")


def status_line(
    state: str, reason: str | None, started_at: datetime | None = None, finished_at: datetime | None = None
) -> str:
    """`failed in 12 s: test: exit code 1`, at most 140 characters."""
    text = _PLAIN.get(state, state)
    if state in _ENDED_BY_WORK and started_at and finished_at:
        text = f"{text} in {_span((finished_at - started_at).total_seconds())}"
    if reason and state != "succeeded":
        text = f"{text}: {reason}"
    return shortened(text)


def shortened(text: str, longest: int = LONGEST_LINE) -> str:
    """One line, printable, with an ellipsis where it was cut."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _span(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def comment_text(difference: Difference, *, commit: str, target: str, url: str) -> str:
    """What a pull request changes in the findings, for its conversation. commit: its head. url: of the run."""
    parts = [f"### Findings: {_headline(difference)}"]
    if difference.introduced:
        parts += ["**Introduced**", _table(difference.introduced)]
    if difference.fixed:
        parts += ["**Fixed**", _table(difference.fixed)]
    parts += [f"⚠️ {plain(tool)} could not look, so nothing is said of what it finds." for tool in difference.blind]
    parts += [
        f"{plain(tool)} has not scanned {code(target)} yet: there is nothing to compare with."
        for tool in difference.incomparable
    ]
    parts.append(f"{code(commit[:12])} compared with {code(target)} · [the run]({url})")
    return "\n\n".join(parts) + "\n"


def _headline(difference: Difference) -> str:
    if not (difference.introduced or difference.fixed) and difference.says_nothing:
        return "no comparison"
    return f"{len(difference.introduced)} introduced, {len(difference.fixed)} fixed"


def _table(changes: Sequence[Change]) -> str:
    rows = [
        f"| {plain(one.severity)} | {code(one.rule)} | {code(_place(one))} | {plain(shortened(one.message, 160))} |"
        for one in changes[:_MOST_ROWS]
    ]
    more = [f"\n… and {len(changes) - _MOST_ROWS} more"] if len(changes) > _MOST_ROWS else []
    return "\n".join(["| severity | rule | where | what |", "|---|---|---|---|", *rows, *more])


def _place(change: Change) -> str:
    return f"{change.path}:{change.line}" if change.path and change.line else change.path or "-"


def plain(text: str) -> str:
    """A stranger's text in Markdown: no link, no HTML, no picture, nobody is called."""
    line = html.escape(shortened(text, 400), quote=False).replace("`", "'")
    # @ and # get a joiner besides: forges look for people and issues behind a backslash too.
    line = re.sub(r"([\\*_{}\[\]()#+!|~])", r"\\\1", line)
    line = re.sub(r"@(?=\w)", "@\u200b", line)
    line = re.sub(r"#(?=\d)", "#\u200b", line)
    return re.sub(r"(?i)\b(https?|ftp)://", "\\1:\u200b//", line).replace("www.", "www\u200b.")


def code(text: str) -> str:
    """A stranger's text as code, in a table too."""
    line = shortened(text, 200).replace("`", "'").replace("|", "¦")
    return f"`{line or '-'}`"
