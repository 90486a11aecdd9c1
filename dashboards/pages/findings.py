"""What is open: by severity, project, tool and words, as the address says."""

import attrs
import pandas as pd
import streamlit as st

from dashboards.charts import open_by_project, open_over_time
from dashboards.markup import Column, Content, page_link, table, tag, tiles
from dashboards.reading import lake, on_default_branch
from dashboards.showing import ago, commit, empty, head, known, put, said_plainly, section, severity
from dashboards.tables import shortened
from penstock.findings.finding import SEVERITIES
from penstock.warehouse import queries

DEFAULT_BRANCHES = "default branches"
LIMIT = 10_000
PAGE = 50
COLUMNS = (
    Column("severity"),
    Column("rule"),
    Column("message", "wide"),
    Column("where"),
    Column("project"),
    Column("tool"),
    Column("introduced by"),
    Column("author"),
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
    return Wanted(project, branch or DEFAULT_BRANCHES, tuple(severities), tool, words or "")


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
        empty("Nothing is open. Every scanner's last word is on the list of scanners below.")


def _health() -> None:
    health = lake(queries.scanner_health)
    if health.empty:
        return
    section("Scanners", "whoever failed or has not looked for long knows nothing")
    columns = tuple(map(Column, ("project", "tool", "category", "last scan", "last success", "scans", "failures")))
    rows = (
        (
            r.project,
            r.tool,
            r.category,
            ago(r.last_scanned_at),
            ago(r.last_succeeded_at) or "never",
            r.scans,
            r.failures,
        )
        for r in health.itertuples()
    )
    put(
        table(
            (*columns, Column("last reason", "wide")),
            ((*row, known(why)) for row, why in zip(rows, health["last_reason"], strict=True)),
            caption="Scanners by project",
        )
    )


def _show() -> None:
    counts = lake(queries.findings_by_severity)
    if counts.empty:
        _none_yet()
        return
    wanted = _filters(counts)
    found = lake(queries.open_findings, project=wanted.project, branch=wanted.branch_name, limit=LIMIT)
    if len(found) == LIMIT:
        st.caption(f"More than {LIMIT} are open; these are the worst. Narrow by project or branch.")
    found = matching(found, wanted)
    if found.empty:
        empty("No open finding is like that. Take a filter away.")
        return
    _figures(found)
    _charts(found, wanted)
    _list(found)


head("Findings")
with said_plainly():
    _show()
    _health()
