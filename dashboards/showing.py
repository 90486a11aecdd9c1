"""How values of Penstock look on a page: states, severities, commits, times."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy.exc
import streamlit as st

from dashboards.markup import Html, facts, join, page_link, tag
from penstock.errors import PenstockError
from penstock.findings.finding import SEVERITIES

STATES = {
    "succeeded": ("✔", "good"),
    "live": ("●", "good"),
    "failed": ("✘", "bad"),
    "timed_out": ("✘", "bad"),
    "infra_error": ("!", "odd"),
    "cancelled": ("■", "warn"),
    "running": ("▶", "busy"),
    "pending": ("▶", "busy"),
    "queued": ("…", "calm"),
    "skipped": ("–", "calm"),
    "waiting": ("◔", "warn"),
    "approved": ("✔", "good"),
    "rejected": ("✘", "bad"),
    "expired": ("■", "warn"),
    "withdrawn": ("–", "calm"),
    "superseded": ("–", "calm"),
    "open": ("●", "bad"),
    "fixed": ("✔", "good"),
    "suppressed": ("–", "calm"),
    "passed": ("✔", "good"),
    "error": ("✘", "bad"),
}
"""State → sign and tone."""

BAD_STATES = ("failed", "timed_out", "infra_error")


def state(name: str) -> Html:
    """A state, with a sign for those who see no colours."""
    sign, tone = STATES.get(name, ("?", "calm"))
    return tag("span", f"{sign} {name.replace('_', ' ')}", class_=f"ps-state {tone}")


def severity(name: str | None) -> Html:
    """A severity."""
    return tag("span", name or "unknown", class_=f"ps-sev {name if name in SEVERITIES else 'info'}")


def severity_counts(counts: Mapping[str, int]) -> Html:
    """How many of each severity, worst first; what is zero is left out."""
    found = [(name, int(counts[name])) for name in SEVERITIES if counts.get(name)]
    if not found:
        return tag("span", "none open", class_="ps-muted")
    return join((tag("span", f"{count} {name}", class_=f"ps-sev {name}") for name, count in found), " ")


def commit(value: str | None) -> Html:
    """A commit by its first twelve digits."""
    return tag("code", (value or "")[:12])


def run_link(run_id: str | None) -> Html | None:
    """A run by its first eight digits, leading to its page."""
    return page_link("run", run_id[:8], id=run_id) if isinstance(run_id, str) else None


def facts_of_commit(row: "pd.Series[Any]") -> Html:
    """A commit with its title, branch, author and time."""
    named = {"commit": join((commit(str(row["commit"])), " ", known(row["title"]))), "branch": row["branch"]}
    return facts({**named, "author": known(row["author"]), "committed": moment(row["committed_at"])})


def known(value: Any) -> Any:
    """None where pandas has NaN, NaT or NA; a `datetime` where it has a Timestamp."""
    if value is None or (not isinstance(value, list | dict | str) and pd.api.types.is_scalar(value) and pd.isna(value)):
        return None
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


def moment(at: datetime | None) -> Html | None:
    """A time in UTC, to the minute; to the second for whoever points at it."""
    at = known(at)
    if at is None:
        return None
    exact = at.astimezone(UTC)
    return tag("time", f"{exact:%Y-%m-%d %H:%M} UTC", title=f"{exact:%Y-%m-%d %H:%M:%S} UTC")


def ago(at: datetime | None, now: datetime | None = None) -> Html | None:
    """How long ago, with the time in UTC for whoever points at it."""
    at = known(at)
    if at is None:
        return None
    elapsed = ((now or datetime.now(UTC)) - at).total_seconds()
    return tag("time", f"{span(elapsed)} ago", title=f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")


def span(value_s: float | None) -> str:
    """A duration in its largest fitting unit; nothing for None."""
    value_s = known(value_s)
    if value_s is None:
        return ""
    if value_s < 60:
        return f"{max(value_s, 0.0):.1f} s" if value_s < 10 else f"{value_s:.0f} s"
    for limit, unit_s, unit in ((3600, 60, "min"), (172_800, 3600, "h")):
        if value_s < limit:
            return f"{value_s / unit_s:.0f} {unit}"
    return f"{value_s / 86_400:.0f} days"


def put(*pieces: Html) -> None:
    """Show markup, one piece below the other."""
    st.html(join(pieces))


def head(title: str, *beside: Html) -> None:
    """The page's title, with what stands beside it."""
    put(tag("div", tag("h1", title), *beside, class_="ps-head"))


def section(title: str, note: str | None = None) -> None:
    """A heading within the page."""
    put(tag("h2", title, tag("small", note) if note else None, class_="ps-section"))


def empty(what: str, *commands: str, then: str | None = None) -> None:
    """There is nothing to show: what is missing, what to type next, and what happens then."""
    lines = "\n".join(commands)
    put(
        tag(
            "div",
            tag("p", prose(what)),
            tag("pre", tag("code", lines)) if commands else None,
            tag("p", prose(then), class_="ps-muted") if then else None,
            class_="ps-hint",
        )
    )


def prose(text: str) -> Html:
    """A sentence in which what stands between `back-ticks` is code."""
    return join(tag("code", part) if at % 2 else part for at, part in enumerate(text.split("`")))


def trouble(text: str) -> None:
    """An error, on one line."""
    put(tag("p", prose(text), class_="ps-trouble", role="alert"))


@contextmanager
def said_plainly() -> Iterator[None]:
    """What goes wrong within is one line with the remedy."""
    try:
        yield
    except PenstockError as error:
        trouble(str(error))
    except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.ProgrammingError):
        trouble("the database does not answer or is not set up; start it with `penstock up`, then reload this page")


@st.cache_resource(show_spinner=False)
def _style() -> str:
    return (Path(__file__).parent / "style.css").read_text()


def use_style() -> None:
    """The look of what `markup` makes; once per page."""
    st.html(f"<style>{_style()}</style>")
