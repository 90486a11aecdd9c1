"""What is open, how long, and how fast it goes: by project, tool, environment and words, as the address says."""

import attrs
import pandas as pd
import streamlit as st

from dashboards.charts import introduced_and_fixed, open_by_age, open_by_project, open_over_time
from dashboards.filters import default_branches
from dashboards.markup import Column, Content, page_link, table, tag, tiles
from dashboards.reading import lake, on_default_branch
from dashboards.showing import ago, commit, empty, head, known, put, said_plainly, section, severity
from dashboards.tables import shortened
from penstock.findings.finding import SEVERITIES
from penstock.warehouse import queries, views

DEFAULT_BRANCHES = "default branches"
LIMIT = 10_000
LIMITS_DAYS = (7, 30, 90, 180, None)  # how long a finding of each severity may stay open
PAGE = 50
COLUMNS = (
    Column("severity"),
    Column("rule"),
    Column("message", "wide"),
    Column("where", "name"),
    Column("project"),
    Column("tool"),
    Column("introduced by"),
    Column("author", "name"),
    Column("when"),
)


@attrs.frozen
class Wanted:
    """What the filters say. branch: a name, or DEFAULT_BRANCHES. Empty severities: all."""

    project: str | None
    branch: str
    severities: tuple[str, ...]
    tool: str | None
    words: str
    environment: str | None = None

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the branches that are meant."""
        return (self.branch,) if self.branch_name else default_branches()

    @property
    def branch_name(self) -> str | None:
        """The one branch that is meant; None for each project's default branch."""
        return None if self.branch == DEFAULT_BRANCHES else self.branch


def matching(found: pd.DataFrame, wanted: Wanted) -> pd.DataFrame:
    """The open findings that pass the filters."""
    if wanted.branch_name is None:
        found = on_default_branch(found)
    if wanted.severities:
        found = found[found["severity"].isin(wanted.severities)]
    if wanted.tool:
        found = found[found["tool"] == wanted.tool]
    names = ("rule_id", "message", "path", "package", "introduced_commit", "introduced_by")
    for word in wanted.words.casefold().split():
        hits = (found[name].fillna("").astype(str).str.casefold().str.contains(word, regex=False) for name in names)
        found = found[pd.concat(list(hits), axis=1).any(axis=1)]
    return found


def _filters(counts: pd.DataFrame) -> Wanted:
    with st.container(horizontal=True):
        names, tools, branches = (sorted(counts[name].unique()) for name in ("project", "tool", "branch"))
        project = st.selectbox(
            "Project", names, index=None, key="project", bind="query-params", placeholder="all", width=180
        )
        branch = st.selectbox("Branch", [DEFAULT_BRANCHES, *branches], key="branch", bind="query-params", width=180)
        tool = st.selectbox("Tool", tools, index=None, key="tool", bind="query-params", placeholder="all", width=160)
        environment = st.selectbox(
            "Live in", _environments(), index=None, key="live", bind="query-params", placeholder="wherever", width=160
        )
        words = st.text_input(
            "Search", key="words", bind="query-params", placeholder="rule, message, path, author …", width=280
        )
    severities = st.pills(
        "Severity",
        SEVERITIES,
        selection_mode="multi",
        key="severity",
        bind="query-params",
        label_visibility="collapsed",
    )
    return Wanted(project, branch or DEFAULT_BRANCHES, tuple(severities), tool, words or "", environment)


def _environments() -> list[str]:
    live = lake(queries.live_releases)
    return [] if live.empty else sorted(live["environment"].unique())


def overdue(ages: pd.DataFrame) -> int:
    """How many have been open for longer than their severity may be. ages: `views.open_by_age`."""
    return 0 if ages.empty else int(ages["overdue"].sum())


def _pace(wanted: Wanted) -> None:
    """Ages and speed of everything on these branches, whatever severity or words are wanted."""
    of = {"project": wanted.project, "branches": wanted.branches}
    ages = lake(views.open_by_age, **of, limits=LIMITS_DAYS)
    fixed = lake(views.time_to_fix, **of)
    section("Age and pace", "all severities and tools of the chosen project and branch")
    late, days = overdue(ages), _weighted(fixed, "mean_days")
    put(
        tiles(
            [
                ("overdue", late, "bad" if late else "good"),
                ("fixed in 90 days", int(fixed["fixed"].sum()), ""),
                ("mean time to fix", "–" if days is None else f"{days:.0f} days", ""),
                *((f"median for {row.severity}", f"{row.median_days:.0f} days", "") for row in fixed[:2].itertuples()),
            ]
        )
    )
    allowed = ", ".join(f"{name} {days} days" for name, days in zip(SEVERITIES, LIMITS_DAYS, strict=True) if days)
    st.caption(f"overdue: open for longer than {allowed}. What was there at the first scan counts from that scan.")
    left, right = st.columns(2, gap="medium")
    with left:
        st.altair_chart(open_by_age(ages), alt="Open findings by age")
    with right:
        weeks = lake(views.introduced_and_fixed, project=wanted.project, branch=wanted.branches[0])
        st.altair_chart(introduced_and_fixed(weeks), alt="Findings introduced and fixed in each week")


def _weighted(fixed: pd.DataFrame, column: str) -> float | None:
    count = fixed["fixed"].sum()
    return None if not count else float((fixed[column] * fixed["fixed"]).sum() / count)


def _figures(found: pd.DataFrame) -> None:
    counts = found["severity"].value_counts()
    put(
        tiles(
            (name, int(counts.get(name, 0)), "bad" if name in SEVERITIES[:2] and counts.get(name, 0) else "")
            for name in SEVERITIES
        )
    )


def _charts(found: pd.DataFrame, wanted: Wanted) -> None:
    left, right = st.columns(2, gap="medium")
    with left:
        section("By project")
        counts = found.groupby(["project", "severity"]).size().rename("open").reset_index()
        st.altair_chart(open_by_project(counts), alt="Open findings by project and severity")
    with right:
        branch = wanted.branch_name or "main"
        section("The last 90 days", f"on {branch}")
        days = lake(queries.findings_over_time, project=wanted.project, branch=branch)
        st.altair_chart(open_over_time(days), alt="Open findings at the end of each day")


def _row(row: "pd.Series[object]") -> tuple[Content, ...]:
    named = {name: str(row[name]) for name in ("project", "branch", "fingerprint")}
    baseline = tag("span", "before the first scan", class_="ps-muted")
    return (
        severity(known(row["severity"])),
        page_link("finding", row["rule_id"], **named),
        shortened(known(row["message"]) or ""),
        place(row),
        row["project"],
        row["tool"],
        baseline if row["baseline"] else commit(row["introduced_commit"]),
        None if row["baseline"] else known(row["introduced_by"]),
        ago(row["introduced_at"]),
    )


def place(row: "pd.Series[object]") -> str | None:
    """`path:line`, as far as it is known."""
    path, line = known(row["path"]), known(row["line"])
    return path if line is None or path is None else f"{path}:{int(line)}"


def _list(found: pd.DataFrame) -> None:
    section("Open findings", "worst first, then oldest")
    shown = st.session_state.get("findings_shown", PAGE)
    put(
        table(
            COLUMNS,
            (_row(row) for _, row in found.head(shown).iterrows()),
            caption="Open findings, worst first",
            brief=True,
        )
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        if len(found) > shown and st.button("Show more"):
            st.session_state["findings_shown"] = shown + PAGE
            st.rerun()
        st.download_button("CSV", lambda: found.to_csv(index=False), "findings.csv", "text/csv", on_click="ignore")
        st.caption(f"{min(shown, len(found))} of {len(found)} findings")


def _none_yet() -> None:
    if lake(queries.scanner_health).empty:
        empty(
            "Nothing has been scanned yet. Add a scan to a penstock.yaml, then push or run it here:",
            "- name: sast\n  type: step.scan_sast",
            "penstock run",
        )
    else:
        empty("Nothing is open. Whether the scanners looked at all is on the page Scanners.")


def _show() -> None:
    counts = lake(queries.findings_by_severity)
    if counts.empty:
        _none_yet()
        return
    wanted = _filters(counts)
    found = lake(
        queries.open_findings,
        project=wanted.project,
        branches=wanted.branches,
        environment=wanted.environment,
        limit=LIMIT,
    )
    if len(found) == LIMIT:
        st.caption(f"More than {LIMIT} are open; these are the worst. Narrow by project or branch.")
    found = matching(found, wanted)
    if found.empty:
        empty("No open finding is like that. Take a filter away.")
        return
    _figures(found)
    _charts(found, wanted)
    _pace(wanted)
    _list(found)


head("Findings")
with said_plainly():
    _show()
