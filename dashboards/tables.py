"""Tables that more than one page shows."""

from collections.abc import Iterable

import pandas as pd

from dashboards.markup import Column, Content, Html, join, page_link, table, tag, web_link
from dashboards.reading import LiveService
from dashboards.showing import ago, commit, known, run_link, severity_counts, span, state
from penstock.deploy.releases import Release
from penstock.pipeline.records import RunRecord

RUN_COLUMNS = (
    Column("state"),
    Column("run"),
    Column("project"),
    Column("branch"),
    Column("commit"),
    Column("title", "wide"),
    Column("author"),
    Column("queued"),
    Column("took", "number"),
)
LIVE_COLUMNS = (
    Column("service"),
    Column("environment"),
    Column("address"),
    Column("release"),
    Column("commit"),
    Column("title", "wide"),
    Column("live since"),
    Column("open findings of that commit"),
)


def run_table(runs: Iterable[RunRecord], caption: str = "Runs, newest first") -> Html:
    """One row per run; what went wrong stands below its title."""
    return table(RUN_COLUMNS, (_run_row(run) for run in runs), caption=caption, brief=True)


def _run_row(run: RunRecord) -> tuple[Content, ...]:
    info = run.info
    return (
        state(run.state),
        run_link(info.id),
        page_link("runs", info.project, project=info.project),
        info.branch,
        commit(info.commit),
        _title(info.title, run.reason),
        info.author,
        ago(run.queued_at),
        span(run.seconds),
    )


def _title(title: str | None, reason: str | None) -> Html:
    return join((title or "", tag("div", shortened(reason), class_="ps-muted") if reason else None))


def shortened(text: str, limit: int = 160) -> str:
    """The first line of `text`, cut at `limit` characters."""
    first = text.strip().partition("\n")[0]
    return first if len(first) <= limit else first[: limit - 1] + "…"


def live_table(services: Iterable[LiveService], seen: pd.DataFrame) -> Html:
    """One row per service that answers now. seen: `queries.live_releases`, what the warehouse knows of them."""
    return table(LIVE_COLUMNS, (_live_row(each, seen) for each in services), caption="What runs where right now")


def _live_row(live: LiveService, seen: pd.DataFrame) -> tuple[Content, ...]:
    release, row = live.release, row_of(live.release, seen)
    title = None if row is None else known(row["title"])
    address = web_link(live.url, live.url.removeprefix("http://")) if live.url else None
    return (
        tag("strong", service_link(release.service.project, release.service.environment, release.service.name)),
        release.service.environment,
        address,
        join((f"{release.number} by run ", run_link(release.run_id))),
        commit(release.commit),
        title,
        ago(release.live_at),
        weakness_of(row),
    )


def service_link(project: str, environment: str, service: str) -> Html:
    """A service's name, leading to its releases."""
    named = {"environment": environment, "project": project, "service": service}
    return page_link("deployments", f"{project}/{service}", **named)


def row_of(release: Release, seen: pd.DataFrame) -> "pd.Series[object] | None":
    """What the warehouse knows of a live release. seen: `queries.live_releases`."""
    if seen.empty:
        return None
    service = release.service
    same = (seen["project"] == service.project) & (seen["environment"] == service.environment)
    rows = seen[same & (seen["service"] == service.name) & (seen["number"] == release.number)]
    return None if rows.empty else rows.iloc[0]


def weakness_of(row: "pd.Series[object] | None") -> Html:
    """The open findings of a live release's commit, or why they are not known."""
    if row is None:
        return tag("span", "not in the warehouse yet", class_="ps-muted")
    if not row["scanned"]:
        return tag("span", "never scanned", class_="ps-state warn")
    return severity_counts({str(name): value for name, value in row.items()})  # type: ignore[misc]
