"""What a commit or a branch brought and fixed."""

import pandas as pd
import streamlit as st

from dashboards.filters import project_filter, scanned_projects
from dashboards.markup import Column, Content, page_link, table, tag, tiles
from dashboards.reading import lake, projects
from dashboards.showing import empty, facts_of_commit, head, known, put, said_plainly, section, severity, state
from dashboards.tables import shortened
from penstock.warehouse import queries, views

SHOWN = 100
COLUMNS = (
    Column("severity"),
    Column("rule"),
    Column("message", "wide"),
    Column("where"),
    Column("tool"),
    Column("now"),
)
CHANGES = {
    "brought": "what merging would bring",
    "fixed": "seen on the branch, and gone there",
    "absent": "not seen on the branch: fixed there at once, or the branch is older",
}


def _row(row: "pd.Series[object]", project: str) -> tuple[Content, ...]:
    place, line = known(row["path"]), known(row["line"])
    named = {"project": project, "branch": str(row["branch"]), "fingerprint": str(row["fingerprint"])}
    return (
        severity(known(row["severity"])),
        page_link("finding", row["rule_id"], **named),
        shortened(known(row["message"]) or ""),
        f"{place}:{int(line)}" if place and line is not None else place,
        row["tool"],
        state(str(row["state"])) if "state" in row else None,
    )


def _list(title: str, note: str, found: pd.DataFrame, project: str) -> None:
    if found.empty:
        return
    section(title, f"{len(found)}; {note}" if note else str(len(found)))
    rows = (_row(row, project) for _, row in found.head(SHOWN).iterrows())
    columns = COLUMNS if "state" in found else COLUMNS[:-1]
    put(table(columns, (row[: len(columns)] for row in rows), caption=f"Findings {title.casefold()}", brief=True))
    if len(found) > SHOWN:
        st.caption(f"the worst {SHOWN} of {len(found)}")


def _figures(brought: pd.DataFrame, fixed: pd.DataFrame) -> None:
    worst = int(brought["severity"].isin(["critical", "high"]).sum())
    put(
        tiles(
            [
                ("brought", len(brought), "bad" if len(brought) else "good"),
                ("of them critical or high", worst, "bad" if worst else ""),
                ("fixed", len(fixed), "good" if len(fixed) else ""),
            ]
        )
    )


def _show_branch(project: str, branch: str, base: str) -> None:
    put(tag("p", tag("code", branch), " beside ", tag("code", base), class_="ps-muted"))
    found = lake(views.branch_difference, project=project, branch=branch, base=base)
    parts = {name: found[found["change"] == name] for name in CHANGES}
    _figures(parts["brought"], found[found["change"] != "brought"])
    if found.empty:
        empty(f"The branch brings nothing and fixes nothing that `{base}` has.")
    for name, note in CHANGES.items():
        _list(name.capitalize(), note, parts[name], project)


def _show_commit(project: str, row: "pd.Series[object]") -> None:
    put(facts_of_commit(row))
    of = {"project": project, "commit": str(row["commit"])}
    brought, fixed = lake(queries.introduced_by_commit, **of), lake(queries.fixed_by_commit, **of)
    here = row["branch"]
    brought, fixed = brought[brought["branch"] == here], fixed[fixed["branch"] == here]
    older, brought = brought[brought["baseline"]], brought[~brought["baseline"]]
    _figures(brought, fixed)
    if brought.empty and fixed.empty and older.empty:
        empty("This commit brought nothing and fixed nothing that a scanner has seen.")
    _list("Brought", "", brought, project)
    _list("Fixed", "", fixed, project)
    _list("There at the first scan", "nobody knows which commit brought them", older, project)


def _label(row: "pd.Series[object]") -> str:
    return f"{str(row['commit'])[:12]} {known(row['title']) or ''}"


def _choose(project: str) -> None:
    commits = lake(views.scanned_commits, project=project, limit=2000)
    base = next((each.default_branch for each in projects() if each.name == project), "main")
    branches = [name for name in commits["branch"].unique() if name != base]
    labels = {str(row["commit"]): _label(row) for _, row in commits.iterrows()}
    wanted = st.query_params.get("commit")
    with st.container(horizontal=True):
        branch = st.selectbox(
            "Branch", branches, index=None, key="branch", bind="query-params", placeholder=base, width=220
        )
        shown = commits[commits["branch"] == (branch or base)]
        names = list(dict.fromkeys([*([wanted] if wanted and not branch else []), *shown["commit"]]))
        chosen = st.selectbox(
            "Commit",
            names,
            index=None if branch else 0,
            key="commit",
            bind="query-params",
            format_func=lambda each: labels.get(each, each[:12]),
            placeholder="the whole branch",
            width=460,
        )
    if branch and not chosen:
        _show_branch(project, branch, base)
        return
    rows = commits[commits["commit"] == chosen]
    if rows.empty:
        rows = lake(views.scanned_commits, project=project, limit=100_000)
        rows = rows[rows["commit"] == chosen]
    if rows.empty:
        empty("No scanner has read that commit. Choose another.")
        return
    _show_commit(project, rows.iloc[0])


def _show() -> None:
    names = scanned_projects()
    if not names:
        empty(
            "No commit has been scanned yet. Add a scan to a penstock.yaml, then push or run it here:",
            "- name: sast\n  type: step.scan_sast",
            "penstock run",
        )
        return
    if project := project_filter(names, required=True):
        _choose(project)


head("Commit diff", tag("span", "what it brought, and what it fixed", class_="ps-muted"))
with said_plainly():
    _show()
