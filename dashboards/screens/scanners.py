"""Whether the scanners can be trusted: who looks at what, since when not, and whom nobody heeds."""

import pandas as pd
import streamlit as st

from dashboards.filters import default_branches, project_filter, scanned_projects
from dashboards.markup import Column, Content, page_link, table, tag, tiles
from dashboards.reading import lake
from dashboards.showing import ago, commit, empty, head, known, put, run_link, said_plainly, section, severity, state
from penstock.warehouse import health, queries

STALE_DAYS = 7
RULE_COLUMNS = (
    Column("rule", "wide"),
    Column("tool"),
    Column("severity"),
    Column("projects", "number"),
    Column("findings ever", "number"),
    Column("open", "number"),
    Column("suppressed", "number"),
    Column("share", "number"),
)
SCANNER_COLUMNS = (
    Column("last"),
    Column("project"),
    Column("tool"),
    Column("category"),
    Column("last success"),
    Column("scans", "number"),
    Column("failures", "number"),
    Column("left out", "number"),
    Column("last reason", "wide"),
)
FAILURE_COLUMNS = (
    Column("when"),
    Column("project"),
    Column("tool"),
    Column("commit"),
    Column("what", "wide"),
    Column("run"),
)


def is_stale(scanners: pd.DataFrame) -> "pd.Series[bool]":
    """Which scanners have not succeeded for STALE_DAYS, or ever."""
    return scanners["stale_days"].isna() | (scanners["stale_days"] > STALE_DAYS)


def _scanner_row(row: "pd.Series[object]") -> tuple[Content, ...]:
    success = ago(row["last_succeeded_at"]) or tag("span", "never", class_="ps-state bad")
    stale = known(row["stale_days"]) is None or row["stale_days"] > STALE_DAYS
    return (
        state(str(row["last_state"])),
        page_link("findings", row["project"], project=str(row["project"]), tool=str(row["tool"])),
        row["tool"],
        row["category"],
        tag("span", success, class_="ps-state warn") if stale else success,
        int(row["scans"]),
        int(row["failures"]),
        int(row["quarantined"]) or None,
        known(row["last_reason"]) if row["last_state"] == "failed" else None,
    )


def _scanners(found: pd.DataFrame) -> None:
    section("Scanners", "the ones to look after first")
    ordered = found.assign(stale=is_stale(found)).sort_values(["stale", "failures"], ascending=False, kind="stable")
    put(table(SCANNER_COLUMNS, (_scanner_row(row) for _, row in ordered.iterrows()), caption="Scanners by project"))


def _coverage(project: str | None) -> None:
    covered = lake(health.scan_coverage, project=project)
    if covered.empty:
        return
    section("Coverage", "commits that ran in the last 30 days, and how many of them each kind of scanner read")
    shares = covered.pivot(index="project", columns="category", values="share")
    commits = covered.groupby("project")["commits"].max()
    columns = [Column("project", "wide"), Column("commits", "number"), *(Column(c, "number") for c in shares.columns)]
    rows = (
        (name, int(commits[name]), *map(_share, row)) for name, row in zip(shares.index, shares.values, strict=True)
    )
    put(table(columns, rows, caption="Share of commits that were scanned"))


def _share(value: float) -> Content:
    tone = "good" if value > 0.9 else "warn" if value > 0 else "bad"
    return tag("span", f"{value:.0%}" if value else "never", class_=f"ps-state {tone}")


def _rules(project: str | None) -> None:
    rules = lake(health.noisy_rules, project=project, branches=default_branches(), limit=15)
    if rules.empty:
        return
    section("Noisy rules", "suppressed more than others: tune them, or turn them off")
    rows = (
        (
            r.rule_id,
            r.tool,
            severity(r.severity),
            r.projects,
            r.findings,
            r.open,
            r.suppressed,
            f"{r.suppressed_share:.0%}",
        )
        for r in rules.itertuples()
    )
    put(table(RULE_COLUMNS, rows, caption="Rules by how many of their findings were suppressed"))


def _failures(project: str | None) -> None:
    failed = lake(health.failed_scans, project=project)
    section("Failures", "of the last 30 days: what failed says nothing, and fixes nothing")
    if failed.empty:
        put(tag("p", "None.", class_="ps-muted"))
        return
    put(table(FAILURE_COLUMNS, (_failure_row(row) for _, row in failed.head(20).iterrows()), caption="Failed scans"))
    st.caption(f"{min(20, len(failed))} of the newest {len(failed)}")


def _failure_row(row: "pd.Series[object]") -> tuple[Content, ...]:
    left_out = int(row["quarantined"])
    what = known(row["reason"]) or f"{left_out} results could not be read and were left out"
    return (
        ago(row["scanned_at"]),
        row["project"],
        row["tool"],
        commit(str(row["commit"])),
        str(what),
        run_link(known(row["run_id"])),
    )


def _show() -> None:
    names = scanned_projects()
    if not names:
        empty(
            "No scanner has looked yet. Add a scan to a penstock.yaml, then push or run it here:",
            "- name: sast\n  type: step.scan_sast",
            "penstock run",
        )
        return
    project = project_filter(names)
    found = lake(queries.scanner_health, project=project)
    stale, failing = int(is_stale(found).sum()), int((found["last_state"] == "failed").sum())
    put(
        tiles(
            [
                ("scanners at work", len(found), ""),
                ("failed last time", failing, "bad" if failing else "good"),
                (f"silent for more than {STALE_DAYS} days", stale, "bad" if stale else "good"),
                ("of scans failed", f"{found['failures'].sum() / max(found['scans'].sum(), 1):.1%}", ""),
            ]
        )
    )
    _coverage(project)
    _rules(project)
    _failures(project)
    _scanners(found)


head("Scanners")
with said_plainly():
    _show()
