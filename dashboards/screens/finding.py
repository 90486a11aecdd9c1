"""One finding: what it says, where, since when, by whom, and its life on every branch."""

import json
import textwrap
from pathlib import PurePosixPath

import pandas as pd
import streamlit as st

from dashboards.markup import Column, Content, Html, facts, join, page_link, printable, table, tag, web_link
from dashboards.reading import lake
from dashboards.showing import commit, empty, head, known, moment, put, run_link, section, severity, state
from penstock.warehouse import views

LANGUAGES = {
    ".py": "python",
    ".js": "javascript",
    ".ts": "typescript",
    ".tsx": "tsx",
    ".jsx": "jsx",
    ".go": "go",
    ".java": "java",
    ".rb": "ruby",
    ".rs": "rust",
    ".sh": "bash",
    ".tf": "hcl",
    ".yaml": "yaml",
    ".yml": "yaml",
}
LIFE_COLUMNS = (
    Column("what"),
    Column("then"),
    Column("commit"),
    Column("title", "wide"),
    Column("author"),
    Column("committed"),
    Column("severity"),
    Column("run"),
)
BRANCH_COLUMNS = (
    Column("branch"),
    Column("state"),
    Column("introduced"),
    Column("fixed"),
    Column("reopened", "number"),
)


def language(path: str | None) -> str | None:
    """The language of a file, for highlighting; None when its name does not tell."""
    return LANGUAGES.get(PurePosixPath(path).suffix.casefold()) if path else None


def _where(life: "pd.Series[object]") -> Html:
    path, line = known(life["path"]), known(life["line"])
    return tag("code", f"{path}:{int(line)}" if path and line is not None else path or "no place in the repository")


def _weaknesses(life: "pd.Series[object]") -> Html | None:
    names = [str(name) for name in (life["cwe"] if known_list(life["cwe"]) else [])]
    base = "https://cwe.mitre.org/data/definitions"
    return join((web_link(f"{base}/{name.removeprefix('CWE-')}.html", name) for name in names), ", ") if names else None


def known_list(value: object) -> bool:
    """Whether pandas has a list (or array) there, and not nothing."""
    return hasattr(value, "__len__") and len(value) > 0  # type: ignore[arg-type]


def _introduced(life: "pd.Series[object]") -> Html:
    by = known(life["introduced_by"])
    pieces = [commit(str(life["introduced_commit"])), " ", moment(life["introduced_at"])]
    if known(life["baseline"]):
        return join(["there at the first scan, ", *pieces])
    return join([*pieces, f" by {by}" if by else None])


def _fixed(life: "pd.Series[object]") -> Html | None:
    if known(life["fixed_commit"]) is None:
        return None
    by = known(life["fixed_by"])
    return join([commit(str(life["fixed_commit"])), " ", moment(life["fixed_at"]), f" by {by}" if by else None])


def _facts(life: "pd.Series[object]") -> None:
    help_uri = known(life["help_uri"])
    put(
        facts(
            {
                "project": page_link("findings", life["project"], project=str(life["project"])),
                "branch": life["branch"],
                "where": _where(life),
                "introduced": _introduced(life),
                "fixed": _fixed(life),
                "suppressed because": known(life["suppression_reason"]),
                "tool": join((known(life["tool"]), known(life["tool_version"])), " "),
                "weakness": _weaknesses(life),
                "package": known(life["package"]),
                "fixed in version": known(life["fixed_version"]),
                "severity from": known(life["severity_source"]),
                "about the rule": web_link(help_uri, "documentation") if help_uri else None,
            }
        )
    )


def _life_row(row: "pd.Series[object]") -> tuple[Content, ...]:
    return (
        row["event"],
        state(str(row["state"])),
        commit(str(row["commit"])),
        known(row["title"]),
        known(row["author"]),
        moment(row["committed_at"]),
        severity(known(row["severity"])),
        run_link(known(row["run_id"])),
    )


def _branch_row(row: "pd.Series[object]") -> tuple[Content, ...]:
    here = {name: str(row[name]) for name in ("project", "branch", "fingerprint")}
    return (
        page_link("finding", row["branch"], **here),
        state(str(row["state"])),
        moment(row["introduced_at"]),
        moment(row["fixed_at"]),
        int(row["reopened"]),
    )


def _flows(raw: str | None) -> None:
    if raw:
        with st.expander("How the data flows there, as the tool reported it"):
            st.json(json.loads(raw), expanded=2)


def _show(project: str, fingerprint: str, branch: str) -> None:
    lives = lake(views.finding_lives, project=project, fingerprint=fingerprint)
    here = lives[lives["branch"] == branch] if not lives.empty else lives
    if here.empty:
        head("Finding")
        empty("No finding is called that. Choose one from the list of findings.")
        return
    life = here.iloc[0]
    head(str(life["rule_id"]), severity(known(life["severity"])), state(str(life["state"])))
    put(tag("p", known(life["message"]) or "The tool gave no message."))
    _facts(life)
    if snippet := known(life["snippet"]):
        st.code(
            printable(textwrap.dedent(str(snippet)).strip("\n")),
            language=language(known(life["path"])),
            wrap_lines=True,
        )
    _flows(known(life["code_flows"]))
    section("Its life", f"on {branch}")
    events = lake(views.finding_life, project=project, branch=branch, fingerprint=fingerprint)
    put(
        table(
            LIFE_COLUMNS, (_life_row(row) for _, row in events.iterrows()), caption="What happened to it, oldest first"
        )
    )
    if len(lives) > 1:
        section("On every branch")
        put(table(BRANCH_COLUMNS, (_branch_row(row) for _, row in lives.iterrows()), caption="Branches that had it"))
    st.caption(f"fingerprint {fingerprint}")


named = [st.query_params.get(name, "") for name in ("project", "fingerprint", "branch")]
if all(named[:2]):
    _show(named[0], named[1], named[2] or "main")
else:
    head("Finding")
    empty("No finding is named in the address. Choose one from the list of findings.")
    st.page_link("screens/findings.py")
