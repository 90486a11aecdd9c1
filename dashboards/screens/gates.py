"""What a gate would have stopped: a policy held against the commits that were."""

import pandas as pd
import streamlit as st

from dashboards.charts import gate_by_week
from dashboards.filters import default_branches, period_filter, project_filter, scanned_projects
from dashboards.markup import Column, Content, page_link, table, tag, tiles
from dashboards.reading import lake, on_default_branch
from dashboards.showing import commit, empty, head, known, moment, prose, put, run_link, said_plainly, section
from dashboards.showing import severity_counts as counts_of
from penstock.warehouse import queries
from penstock.warehouse.queries import SEVERITY_NAMES

NEW, ALL = "what the commit brought", "everything that is there"
PAGE = 40
COMMIT_COLUMNS = (
    Column("commit"),
    Column("title", "wide"),
    Column("project"),
    Column("author"),
    Column("committed"),
    Column("because of"),
    Column("got traffic"),
    Column("run"),
)
PROJECT_COLUMNS = (
    Column("project", "wide"),
    Column("commits", "number"),
    Column("stopped", "number"),
    Column("share", "number"),
    Column("of them got traffic", "number"),
)
POLICY_COLUMNS = (Column("fail_on_severity"), Column(NEW, "number"), Column(ALL, "number"))


def by_project(history: pd.DataFrame) -> pd.DataFrame:
    """One row per project, the most stopped first: commits, stopped, share, released. history: with `blocked`."""
    found = history.assign(released=history["blocked"] & history["is_released"]).groupby("project")
    made = found.agg(commits=("blocked", "size"), stopped=("blocked", "sum"), released=("released", "sum"))
    return made.assign(share=made["stopped"] / made["commits"]).sort_values("share", ascending=False).reset_index()


def _offenders(row: "pd.Series[object]", threshold: str, *, new_only: bool) -> dict[str, int]:
    worst = SEVERITY_NAMES[: SEVERITY_NAMES.index(threshold) + 1]
    return {name: int(row[f"new_{name}" if new_only else name]) for name in worst}


def _commit_row(row: "pd.Series[object]", threshold: str, *, new_only: bool) -> tuple[Content, ...]:
    return (
        page_link("diff", commit(str(row["commit"])), project=str(row["project"]), commit=str(row["commit"])),
        known(row["title"]),
        row["project"],
        known(row["author"]),
        moment(row["committed_at"]),
        counts_of(_offenders(row, threshold, new_only=new_only)),
        "yes" if row["is_released"] else "no",
        run_link(known(row["run_id"])),
    )


def _policy() -> tuple[str | None, int, str, bool]:
    with st.container(horizontal=True):
        project = project_filter(scanned_projects())
        days = period_filter()
        threshold = st.selectbox(
            "Stop at", SEVERITY_NAMES[:-1], index=1, key="severity", bind="query-params", width=160
        )
        counted = st.selectbox("Count", (NEW, ALL), key="count", bind="query-params", width=240)
    return project, days, threshold or "high", counted != ALL


def _every_policy(history: pd.DataFrame) -> None:
    section("Every threshold", f"how many of {len(history)} commits each would have stopped")
    rows = (
        (name, *(_share(queries.blocked(history, severity=name, new_only=new)) for new in (True, False)))
        for name in SEVERITY_NAMES[:-1]
    )
    put(table(POLICY_COLUMNS, rows, caption="Commits that each threshold would have stopped"))


def _share(stopped: "pd.Series[bool]") -> str:
    return f"{int(stopped.sum())} ({stopped.mean():.0%})"


def _show() -> None:
    if not scanned_projects():
        empty(
            "No commit has been scanned yet, so that there is nothing to try a policy on. Add a scan, then run it:",
            "- name: sast\n  type: step.scan_sast",
            "penstock run",
        )
        return
    project, days, threshold, new_only = _policy()
    history = lake(queries.gate_history, project=project, branches=default_branches(), days=days)
    history = on_default_branch(history)
    if history.empty:
        empty("No commit of a default branch was scanned in that time. Take a longer period.")
        return
    history = history.assign(blocked=queries.blocked(history, severity=threshold, new_only=new_only))
    stopped = history[history["blocked"]]
    released = int(stopped["is_released"].sum())
    put(
        tiles(
            [
                ("commits", len(history), ""),
                ("would have been stopped", len(stopped), "bad" if len(stopped) else "good"),
                ("of all", f"{len(stopped) / len(history):.0%}", ""),
                ("stopped ones that got traffic in production", released, "bad" if released else ""),
            ]
        )
    )
    only = "`new_only: true` and " if new_only else ""
    put(
        tag(
            "p",
            prose(f"As a step of type `step.gate` with {only}`fail_on_severity: {threshold}` says it."),
            class_="ps-muted",
        )
    )
    section("Week by week", "commits that would have passed, and been stopped")
    st.altair_chart(gate_by_week(history[["committed_at", "blocked"]]), alt="Commits stopped in each week")
    _every_policy(history)
    _projects(history)
    _commits(stopped, threshold, new_only=new_only)


def _projects(history: pd.DataFrame) -> None:
    section("By project")
    rows = (
        (page_link("gates", r.project, project=r.project), r.commits, r.stopped, f"{r.share:.0%}", r.released)
        for r in by_project(history).itertuples()
    )
    put(table(PROJECT_COLUMNS, rows, caption="Commits stopped by project"))


def _commits(stopped: pd.DataFrame, threshold: str, *, new_only: bool) -> None:
    if stopped.empty:
        return
    section("Stopped", "newest first")
    rows = (_commit_row(row, threshold, new_only=new_only) for _, row in stopped.head(PAGE).iterrows())
    put(table(COMMIT_COLUMNS, rows, caption="Commits that would have been stopped, newest first", brief=True))
    st.caption(f"{min(PAGE, len(stopped))} of {len(stopped)} commits; times are UTC")


head("Gates", tag("span", "what a policy would have stopped", class_="ps-muted"))
with said_plainly():
    _show()
