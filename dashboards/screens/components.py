"""Who runs a component, in which version, since when, and what mends it."""

import pandas as pd
import streamlit as st

from dashboards.filters import default_branches
from dashboards.markup import Column, Content, Html, join, page_link, table, tag, tiles
from dashboards.reading import lake
from dashboards.showing import ago, commit, empty, head, known, put, said_plainly, section, trouble
from penstock.components.ranges import EXAMPLE, parse_question
from penstock.errors import InputError
from penstock.warehouse import inventory

SHOWN = 100
LIVE_COLUMNS = (
    Column("service"),
    Column("environment"),
    Column("component", "wide"),
    Column("in"),
    Column("release"),
    Column("since commit"),
    Column("by"),
    Column("mended by"),
)
CODE_COLUMNS = (
    Column("project"),
    Column("branch"),
    Column("component", "wide"),
    Column("in"),
    Column("commit"),
    Column("listed"),
)
GONE_COLUMNS = (
    Column("service"),
    Column("environment"),
    Column("component", "wide"),
    Column("last release with it"),
    Column("ended"),
    Column("mended by"),
)
VERSION_COLUMNS = (
    Column("component", "wide"),
    Column("version"),
    Column("asked for"),
    Column("projects", "number"),
    Column("commits", "number"),
)
NAME_COLUMNS = (
    Column("component", "wide"),
    Column("ecosystem"),
    Column("live in", "number"),
    Column("projects", "number"),
    Column("versions", "number"),
)


def full_name(row: "pd.Series[object]") -> str:
    """`namespace/name`; in Maven's own way for its."""
    divider = ":" if row["ecosystem"] == "maven" else "/"
    return divider.join(str(part) for part in (known(row["namespace"]), row["name"]) if part)


def _named(row: "pd.Series[object]") -> Html:
    return join((full_name(row), " ", tag("strong", row["version"])))


def _place(row: "pd.Series[object]") -> Html:
    """What lists it, and whether the project itself asks for it."""
    direct = known(row["direct"])
    note = None if direct is None else "direct" if direct else "transitive"
    where = known(row["path"]) or str(row["source"]).rpartition("/")[2]
    return join((where, tag("div", note, class_="ps-muted") if note else None))


def _live_row(row: "pd.Series[object]") -> tuple[Content, ...]:
    return (
        tag("strong", f"{row['project']}/{row['service']}"),
        row["environment"],
        _named(row),
        _place(row),
        f"{row['number']}",
        _since(row),
        known(row["since_by"]),
        _mended(row),
    )


def _since(row: "pd.Series[object]") -> Html | None:
    first = known(row["since_commit"])
    return None if first is None else join((_commit(row["project"], first), " ", ago(row["since_at"])))


def _commit(project: object, named: str) -> Html:
    return page_link("diff", commit(named), project=str(project), commit=named)


def _mended(row: "pd.Series[object]") -> Html:
    """The first release without it, else the first commit without it, else nothing yet."""
    release, fixed = known(row["fixed_release"]), known(row["fixed_commit"])
    if release is not None:
        return tag("span", f"release {release:.0f} in {row['fixed_environment']}", class_="ps-state good")
    if fixed is not None:
        return join((tag("span", "not released yet: ", class_="ps-state warn"), _commit(row["project"], fixed)))
    return tag("span", "nothing yet", class_="ps-state bad")


def _code_row(row: "pd.Series[object]") -> tuple[Content, ...]:
    return (
        row["project"],
        row["branch"],
        _named(row),
        _place(row),
        _commit(row["project"], str(row["commit"])),
        ago(row["committed_at"]),
    )


def _gone_row(row: "pd.Series[object]") -> tuple[Content, ...]:
    return (
        f"{row['project']}/{row['service']}",
        row["environment"],
        _named(row),
        f"{row['number']}",
        ago(row["ended_at"]),
        _mended(row),
    )


def gone(every: pd.DataFrame, live: pd.DataFrame) -> pd.DataFrame:
    """The last release with it of each service that no longer runs it. every: also former releases, newest first."""
    service = ["project", "environment", "service"]
    if every.empty:
        return every
    last = every.drop_duplicates(service)
    still = set(map(tuple, live[service].to_numpy())) if not live.empty else set()
    return last[[tuple(row) not in still for row in last[service].to_numpy()]]


def _answer(question: str) -> None:
    versions = lake(inventory.component_versions, asked=question)
    if versions.empty:
        empty(f"No list of components has ever named `{parse_question(question).name}`. Search by a part of its name:")
        _names(parse_question(question).name)
        return
    live = lake(inventory.component_releases, asked=question)
    every = lake(inventory.component_releases, asked=question, live_only=False)
    code = lake(inventory.component_branches, asked=question, branches=default_branches())
    before = gone(every, live)
    _figures(live, code, before)
    _table("Live now", "by what their commit, or their image, is made of", LIVE_COLUMNS, live, _live_row)
    _table("In the code", "what the newest list of each default branch names", CODE_COLUMNS, code, _code_row)
    _table("Gone", "services that ran it once", GONE_COLUMNS, before, _gone_row)
    section("Versions", "ever listed, the latest first")
    rows = (
        (full_name(row), row["version"], "yes" if row["asked"] else None, int(row["projects"]), int(row["commits"]))
        for _, row in versions.head(SHOWN).iterrows()
    )
    put(table(VERSION_COLUMNS, rows, caption="Versions of the component"))


def _figures(live: pd.DataFrame, code: pd.DataFrame, before: pd.DataFrame) -> None:
    services = len(live.drop_duplicates(["project", "environment", "service"]))
    production = live[live["environment"] == "production"] if len(live) else live
    put(
        tiles(
            [
                ("services run it", services, "bad" if services else "good"),
                ("of them in production", len(production.drop_duplicates(["project", "service"])), ""),
                ("projects have it in their code", code["project"].nunique() if len(code) else 0, ""),
                ("services ran it once", len(before), ""),
            ]
        )
    )


def _table(title: str, note: str, columns: tuple[Column, ...], found: pd.DataFrame, row: object) -> None:
    section(title, note)
    if found.empty:
        put(tag("p", "None.", class_="ps-muted"))
        return
    put(table(columns, (row(each) for _, each in found.head(SHOWN).iterrows()), caption=title))  # type: ignore[operator]
    left, right = st.columns([1, 5], vertical_alignment="center")
    name = f"{title.lower().replace(' ', '-')}.csv"
    left.download_button("CSV", lambda: found.to_csv(index=False), name, "text/csv", key=title, on_click="ignore")
    right.caption(f"{min(SHOWN, len(found))} of {len(found)}")


def _names(words: str = "") -> None:
    found = lake(inventory.component_names, words=words)
    section("Components", "of live releases and newest lists, most used first")
    if found.empty:
        put(tag("p", "None is called so.", class_="ps-muted"))
        return
    rows = (
        (
            page_link("components", full_name(row), q=full_name(row)),
            row["ecosystem"],
            int(row["live"]),
            int(row["projects"]),
            int(row["versions"]),
        )
        for _, row in found.head(SHOWN).iterrows()
    )
    put(table(NAME_COLUMNS, rows, caption="Components, most used first"))
    st.caption(f"{min(SHOWN, len(found))} of {len(found)}")


def _show() -> None:
    if lake(inventory.component_names, limit=1).empty:
        empty(
            "No list of components yet. Scan what is built, or let a step write CycloneDX and name it:",
            "- name: dependencies\n  type: step.scan_deps\n"
            "- name: list\n  type: step.shell_exec\n  commands: [trivy fs --format cyclonedx --output sbom.json .]\n"
            "  reports: { sbom: sbom.json }",
            then="Then push, or `penstock run`.",
        )
        return
    question = st.text_input("Component and versions", key="q", bind="query-params", placeholder=EXAMPLE, width=420)
    st.caption("A name, with or without its group, and limits: `>= 2.0, < 2.12.4 || >= 2.13, < 2.17.1`.")
    if not (question or "").strip():
        _names()
        return
    try:
        _answer(str(question))
    except InputError as error:
        trouble(str(error))


head("Components")
with said_plainly():
    _show()
